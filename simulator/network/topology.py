"""The map of the cluster: machines, their NICs, zone fabrics, zones and the region, as a networkx graph.

Directed edges carry `bytes_per_s` (infinite where nothing limits), `latency_s` (one way), `usd_per_gb` (what the sender pays)
and `link`, the edge's number among the limited ones or -1. A process is named `tier/index of its machine`.

    nn_worker/0 <-> nn_worker/0/nic -> zone/in -> zone/out -> zone <-> region
                                    <----------------/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from persia.scenario import TIER_NAMES, Catalog, Link, Scenario
from simulator.allocatable import nic_bytes_per_s
from simulator.arrays import FloatArray

if TYPE_CHECKING:
    import networkx as nx

UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """What one directed edge carries."""

    bytes_per_s: float
    latency_s: float
    usd_per_gb: float
    link: int


@dataclass(frozen=True, slots=True)
class _End:
    """One end of a path: the tier of the process, the tier that owns its machine, the machine's node."""

    tier: str
    host: str
    machine: str
    zone: str


class Topology:
    """Machines and links of one scenario; `build_topology` makes it."""

    def __init__(self, scenario: Scenario, catalog: Catalog) -> None:
        self._nodes: dict[str, dict[str, str]] = {}
        self._edges: dict[tuple[str, str], _Edge] = {}
        self._network = scenario.cluster.network
        self._hosts = {tier: scenario.host_tier(tier) for tier in TIER_NAMES}
        self._zones = {tier: scenario.zone(tier) for tier in TIER_NAMES}
        self._machines = {tier: scenario.tier(tier).count for tier in TIER_NAMES}
        self._limits: list[float] = []
        self._names: list[tuple[str, str]] = []
        self._paths: dict[tuple[str, str], tuple[int, ...]] = {}
        self._add_zones(scenario, catalog)
        for host in dict.fromkeys(self._hosts.values()):
            self._add_machines(host, nic_bytes_per_s(scenario, catalog, host))

    @cached_property
    def graph(self) -> nx.DiGraph[str]:
        """Return the map as a networkx graph, made when it is first asked for: a check needs no graph library."""
        import networkx as nx

        graph: nx.DiGraph[str] = nx.DiGraph()
        for node, attributes in self._nodes.items():
            graph.add_node(node, **attributes)
        for (source, target), edge in self._edges.items():
            carries = {"bytes_per_s": edge.bytes_per_s, "latency_s": edge.latency_s, "usd_per_gb": edge.usd_per_gb, "link": edge.link}
            graph.add_edge(source, target, **carries)
        return graph

    @property
    def capacity_bytes_per_s(self) -> FloatArray:
        """Return the rate of every limited link, by its number."""
        return np.array(self._limits)

    @property
    def link_names(self) -> tuple[tuple[str, str], ...]:
        """Return the two nodes of every limited link, by its number."""
        return tuple(self._names)

    # --- building -------------------------------------------------------------------------------------------------

    def _connect(
        self, source: str, target: str, *, bytes_per_s: float = UNLIMITED, latency_s: float = 0.0, usd_per_gb: float = 0.0
    ) -> None:
        """Add one directed edge; number it if it is limited."""
        link = -1
        if bytes_per_s < UNLIMITED:
            link = len(self._limits)
            self._limits.append(bytes_per_s)
            self._names.append((source, target))
        self._edges[source, target] = _Edge(bytes_per_s=bytes_per_s, latency_s=latency_s, usd_per_gb=usd_per_gb, link=link)

    def _add_zones(self, scenario: Scenario, catalog: Catalog) -> None:
        """Add the region, its zones and their fabrics; a fabric with oversubscription 1 limits nobody."""
        network = self._network
        self._nodes[network.region] = {"kind": "region"}
        beyond_s = max(0.0, network.latency_cross_zone - network.latency_same_zone) / 2.0
        egress = cross_zone_usd_per_gb(catalog)
        for zone in dict.fromkeys(self._zones.values()):
            self._nodes[zone] = {"kind": "zone"}
            for side in ("in", "out"):
                self._nodes[f"{zone}/{side}"] = {"kind": "fabric"}
            fabric = UNLIMITED
            if network.fabric_oversubscription != 1.0:
                hosts = [host for host in dict.fromkeys(self._hosts.values()) if self._zones[host] == zone]
                nics = sum(self._machines[host] * nic_bytes_per_s(scenario, catalog, host) for host in hosts)
                fabric = nics / network.fabric_oversubscription
            self._connect(f"{zone}/in", f"{zone}/out", bytes_per_s=fabric)
            self._connect(f"{zone}/out", zone)
            self._connect(zone, f"{zone}/in")
            self._connect(zone, network.region, latency_s=beyond_s, usd_per_gb=egress)
            self._connect(network.region, zone, latency_s=beyond_s)

    def _add_machines(self, host: str, nic: float) -> None:
        """Add a tier's machines, their NICs, and a gate for every override that limits one machine's rate."""
        zone, near_s = self._zones[host], self._network.latency_same_zone / 2.0
        limits = [(number, limit) for number, limit in enumerate(self._network.links) if limit.bandwidth is not None]
        tiers = [tier for tier in TIER_NAMES if self._hosts[tier] == host]
        for index in range(self._machines[host]):
            machine, card = f"{host}/{index}", f"{host}/{index}/nic"
            self._nodes[machine] = {"kind": "machine", "tier": host}
            self._nodes[card] = {"kind": "nic", "tier": host}
            self._connect(machine, card, bytes_per_s=nic)
            self._connect(card, machine, bytes_per_s=nic)
            self._connect(card, f"{zone}/in", latency_s=near_s)
            self._connect(f"{zone}/out", card, latency_s=near_s)
            for number, limit in limits:
                if limit.bandwidth is not None and any(place in (limit.source, limit.target) for place in (*tiers, zone)):
                    gate = f"{machine}/gate{number}"
                    self._nodes[gate] = {"kind": "gate", "tier": host}
                    for source, target in ((machine, gate), (gate, machine)):
                        self._connect(source, target, bytes_per_s=limit.bandwidth / 8.0)

    # --- asking ---------------------------------------------------------------------------------------------------

    def _end(self, process: str) -> _End:
        """Return the end called `tier/machine index`; raises KeyError."""
        tier, _, index = process.rpartition("/")
        host = self._hosts[tier]
        machine = f"{host}/{index}"
        if machine not in self._nodes:
            raise KeyError(process)
        return _End(tier, host, machine, self._zones[tier])

    def _override(self, tiers: tuple[str, str], wants: str) -> tuple[int, Link] | None:
        """Return the last override between two tiers, or their zones, that sets `wants`."""
        ends = [(tier, self._zones[tier]) for tier in tiers]
        for number, link in reversed(list(enumerate(self._network.links))):
            forth = link.source in ends[0] and link.target in ends[1]
            back = link.source in ends[1] and link.target in ends[0]
            if (forth or back) and getattr(link, wants) is not None:
                return number, link
        return None

    def nodes(self, a: str, b: str) -> list[str]:
        """Return the nodes from process `a` to process `b`; one node where both are on one machine.

        The graph is a tree of zones, so the way is known without a search. Raises KeyError for an unknown process.
        """
        start, end = self._end(a), self._end(b)
        if start.machine == end.machine:
            return [start.machine]
        between = [f"{start.zone}/in", f"{start.zone}/out"]
        if start.zone != end.zone:
            between += [start.zone, self._network.region, end.zone, f"{end.zone}/in", f"{end.zone}/out"]
        return [start.machine, f"{start.machine}/nic", *between, f"{end.machine}/nic", end.machine]

    def path(self, a: str, b: str) -> tuple[int, ...]:
        """Return the numbers of the limited links from process `a` to process `b`; raises KeyError."""
        if (a, b) not in self._paths:
            edges = list(pairwise(self.nodes(a, b)))
            start, end = self._end(a), self._end(b)
            limit = self._override((start.tier, end.tier), "bandwidth") if edges else None
            if limit is not None:
                edges.insert(0, (start.machine, f"{start.machine}/gate{limit[0]}"))
                edges.append((f"{end.machine}/gate{limit[0]}", end.machine))
            links = [self._edges[edge].link for edge in edges]
            self._paths[a, b] = tuple(link for link in links if link >= 0)
        return self._paths[a, b]

    def latency_s(self, a: str, b: str) -> float:
        """Return the one-way latency from process `a` to process `b`; raises KeyError."""
        edges = list(pairwise(self.nodes(a, b)))
        if not edges:
            return self._network.latency_same_host
        override = self._override((self._end(a).tier, self._end(b).tier), "latency")
        if override is not None and override[1].latency is not None:
            return override[1].latency
        return float(sum(self._edges[edge].latency_s for edge in edges))

    def usd_per_gb(self, a: str, b: str) -> float:
        """Return what a gigabyte from process `a` to process `b` costs; raises KeyError."""
        return float(sum(self._edges[edge].usd_per_gb for edge in pairwise(self.nodes(a, b))))

    def tier_latency_s(self, tier_a: str, tier_b: str) -> float:
        """Return the one-way latency between two different machines of two tiers, or inside the one they share."""
        a, b = f"{tier_a}/0", f"{tier_b}/0"
        if self._hosts[tier_a] == self._hosts[tier_b]:
            most = max(self._machines[tier_a], self._machines[tier_b])
            if most == 1:
                return self._network.latency_same_host
            a, b = (f"{tier_a}/0", f"{tier_b}/1") if self._machines[tier_b] > 1 else (f"{tier_a}/1", f"{tier_b}/0")
        return self.latency_s(a, b)

    def tier_bandwidth_bytes_per_s(self, tier_a: str, tier_b: str) -> float | None:
        """Return the rate of all traffic between two tiers in one direction where an override limits it, or None.

        An override limits each machine; the tier with fewer machines is the narrower side.
        """
        override = self._override((tier_a, tier_b), "bandwidth")
        if override is None or override[1].bandwidth is None:
            return None
        return min(self._machines[tier_a], self._machines[tier_b]) * override[1].bandwidth / 8.0

    def fabric_bytes_per_s(self, tier: str) -> float | None:
        """Return the rate of the fabric of a tier's zone, or None where it limits nobody."""
        zone = self._zones[tier]
        rate = self._edges[f"{zone}/in", f"{zone}/out"].bytes_per_s
        return None if rate == UNLIMITED else rate

    def zone(self, tier: str) -> str:
        """Return the zone of a tier's machines."""
        return self._zones[tier]

    def crosses_zones(self, tier_a: str, tier_b: str) -> bool:
        """Return whether traffic between two tiers leaves a zone."""
        return self._zones[tier_a] != self._zones[tier_b]


def cross_zone_usd_per_gb(catalog: Catalog) -> float:
    """Return what a gigabyte between two zones of a region costs its sender, in US dollars."""
    return catalog.egress["cross_zone"].value


def build_topology(scenario: Scenario, catalog: Catalog) -> Topology:
    """Return the map of the scenario's cluster.

    Raises:
        ScenarioError: a machine type is in neither the scenario nor the catalogue.
        Infeasible: a machine type has no known network rate.
    """
    return Topology(scenario, catalog)
