"""The cluster's resources as FIFO queues: NICs in both directions, cores, host links; and who shares which machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from persia.scenario import Catalog, Profile, Scenario
from simulator.arrays import FloatArray
from simulator.machines import TIERS, TierHardware, tier_hardware
from simulator.network.topology import Topology, build_topology
from simulator.queues import Cores, CoresVector, Link, LinkVector


class LinkElement:
    """One link of a LinkVector behind the interface of a Link: a worker that shares its machine's NIC with a server."""

    __slots__ = ("_index", "_vector")

    def __init__(self, vector: LinkVector, index: int) -> None:
        self._vector = vector
        self._index = index

    @property
    def busy_until_s(self) -> float:
        """Return when the link falls idle."""
        return float(self._vector.busy_until_s[self._index])

    @property
    def busy_s(self) -> float:
        """Return the seconds of transmission given out."""
        return float(self._vector.busy_s[self._index])

    def send(self, arrival_s: float, size_bytes: float) -> float:
        """Return when the last byte of a message has passed."""
        return self._vector.send_one(self._index, arrival_s, size_bytes)

    def book(self, now_s: float, arrival_s: float, size_bytes: float) -> float:
        """Return when a message of the future has passed; its time is taken from now on."""
        return self._vector.book_one(self._index, now_s, arrival_s, size_bytes)


AnyLink = Link | LinkElement


@dataclass(frozen=True, slots=True, kw_only=True)
class Nic:
    """Both directions of one machine's network card."""

    tx: AnyLink
    rx: AnyLink


class ServerNics:
    """The NICs of the parameter servers' machines as two vectors; P processes of a machine share its NIC.

    Shapes: S processes, M machines, S = M P.
    """

    __slots__ = ("_machines", "_processes", "rx", "tx")

    def __init__(self, hardware: TierHardware, bytes_per_s: float) -> None:
        self._machines = hardware.machines
        self._processes = hardware.processes_per_machine
        self.tx = LinkVector(hardware.machines, bytes_per_s)
        self.rx = LinkVector(hardware.machines, bytes_per_s)

    def transmission_s(self, size_bytes: FloatArray) -> FloatArray:
        """Return the time that messages of these sizes [draws, S] take on each machine's card [draws, M]."""
        draws = len(size_bytes)
        per_machine: FloatArray = size_bytes.reshape(draws, self._machines, self._processes).sum(axis=2)
        return per_machine / self.tx.bytes_per_s

    def receive(self, arrival_s: float, transmission_s: FloatArray) -> FloatArray:
        """Return when each process's message [S], all arriving at `arrival_s`, is in; transmission times [M]."""
        received_s = self.rx.send_uncounted(arrival_s, transmission_s)
        return received_s if self._processes == 1 else np.repeat(received_s, self._processes)

    def send(self, ready_s: FloatArray, transmission_s: FloatArray) -> float:
        """Return when the last of the processes' messages, ready at `ready_s` [S], is out; transmission times [M]."""
        if self._processes > 1:
            ready_s = ready_s.reshape(self._machines, self._processes).max(axis=1)
        return float(np.maximum.reduce(self.tx.send_uncounted(ready_s, transmission_s)))


class Cluster:
    """Every resource of the cluster, by tier.

    A single machine that hosts every tier has no network: its NIC is the loopback.
    """

    def __init__(self, scenario: Scenario, catalog: Catalog, profile: Profile) -> None:
        self.tiers = {name: tier_hardware(scenario, catalog, profile, name) for name in TIERS}
        self.topology: Topology = build_topology(scenario, catalog)
        self._network = scenario.cluster.network
        hosts = {tier.host: self.tiers[tier.host].machines for tier in self.tiers.values()}
        self.one_machine = list(hosts.values()) == [1]
        self.nic_efficiency = profile["wire.nic_efficiency"]
        self._loopback_bytes_per_s = profile["wire.loopback_bytes_per_s"]
        servers = self.tiers["parameter_server"]
        self.server_nics = ServerNics(servers, self.nic_bytes_per_s(servers.host))
        self.server_cores = CoresVector(servers.processes, servers.threads_per_process)
        self.nics = {host: self._host_nics(host, machines) for host, machines in hosts.items()}
        self.worker_cores = self._cores("embedding_worker")
        self.loader_cores = self._cores("loader")
        self._fabrics = self._zone_fabrics()
        self._overrides: dict[tuple[str, str], Link] = {}
        self.slow = {name: self._slow_factors(scenario, name) for name in TIERS}

    def nic_bytes_per_s(self, host: str) -> float:
        """Return the payload rate of one direction of a tier's network cards."""
        return self._loopback_bytes_per_s if self.one_machine else self.nic_efficiency * self.tiers[host].nic_bytes_per_s

    def _host_nics(self, host: str, machines: int) -> list[Nic]:
        """Return the NICs of a tier's machines; those that also run servers share the servers' vectors."""
        servers = self.tiers["parameter_server"]
        shared = servers.machines if servers.host == host else 0
        vectors = self.server_nics
        rate = self.nic_bytes_per_s(host)
        nics = [Nic(tx=LinkElement(vectors.tx, i), rx=LinkElement(vectors.rx, i)) for i in range(min(shared, machines))]
        return nics + [Nic(tx=Link(rate), rx=Link(rate)) for _ in range(machines - shared)]

    def _cores(self, name: str) -> list[Cores]:
        tier = self.tiers[name]
        return [Cores(tier.threads_per_process) for _ in range(tier.processes)]

    def _slow_factors(self, scenario: Scenario, name: str) -> FloatArray:
        """Return by how much each process of a tier is slower than its machine type says [processes]."""
        tier = self.tiers[name]
        factors = np.ones(tier.processes)
        for slow in scenario.simulation.slow_machines:
            if slow.tier == name:
                first = slow.index * tier.processes_per_machine
                factors[first : first + tier.processes_per_machine] *= slow.factor
        return factors

    def nic(self, name: str, process: int) -> Nic:
        """Return the NIC of the machine that process `process` of tier `name` runs on."""
        tier = self.tiers[name]
        return self.nics[tier.host][tier.machine_of(process)]

    def same_machine(self, name: str, process: int, other: str, other_process: int) -> bool:
        """Return whether two processes run on one machine."""
        a, b = self.tiers[name], self.tiers[other]
        return a.host == b.host and a.machine_of(process) == b.machine_of(other_process)

    def local_s(self, size_bytes: float) -> float:
        """Return the time of a message between two processes of one machine."""
        return self._network.latency_same_host + size_bytes / self._loopback_bytes_per_s

    def latency_s(self, name: str, other: str) -> float:
        """Return the one-way latency between two tiers."""
        if self.one_machine:
            return self._network.latency_same_host
        return self.topology.tier_latency_s(name, other)

    def pipes(self, name: str, other: str) -> tuple[Link, ...]:
        """Return what limits the traffic between two tiers beside their network cards: overrides, oversubscribed fabrics."""
        if self.one_machine:
            return ()
        zones = dict.fromkeys((self.topology.zone(name), self.topology.zone(other)))
        fabrics = [self._fabrics[zone] for zone in zones if zone in self._fabrics]
        limit = self.topology.tier_bandwidth_bytes_per_s(name, other)
        if limit is None:
            return tuple(fabrics)
        pair = (name, other)
        if pair not in self._overrides:
            self._overrides[pair] = Link(limit)
        return (*fabrics, self._overrides[pair])

    def _zone_fabrics(self) -> dict[str, Link]:
        """Return the fabric of each zone that is oversubscribed."""
        fabrics: dict[str, Link] = {}
        for name in TIERS:
            rate = self.topology.fabric_bytes_per_s(name)
            if rate is not None:
                fabrics.setdefault(self.topology.zone(name), Link(rate))
        return fabrics
