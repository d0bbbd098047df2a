"""How a message gets from one process to another: through FIFO network cards, or as a flow that shares links fairly.

Both fidelities offer the same few verbs, so that the rest of the physics does not know which it drives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from simulator.engine import Callback, Engine
from simulator.hardware import Cluster
from simulator.network.flows import FlowNetwork

_MOST_SMALL = 0.95  # of a card's rate that small messages take from bulk


class Wire(Protocol):
    """Carries messages between processes; sizes in bytes, times in seconds of the engine's clock."""

    def send(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        at_s: float,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Carry a message that is ready at `at_s` from process to process, (tier, index) each, and call `then(*args)`."""
        ...

    def send_bulk(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Carry a piece of a long transfer, which leaves the cards' small messages nearly their whole rate."""
        ...

    def load(self, tier: str, size_bytes: float) -> None:
        """Let a collective pass `size_bytes` through both directions of every card of a tier's machines."""
        ...

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        ...


class FifoWire:
    """Phase fidelity: every card is a FIFO in each direction, and a message is one event.

    Bulk (a dense exchange, an all-reduce) does not hold small messages up, as fair sharing would not either: bulk pieces
    queue among themselves and take what rate the small messages leave on average.
    """

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._bulk_until_s: dict[tuple[str, int, int], float] = {}  # (host tier, machine, 0 out or 1 in)
        self._bulk_s = {host: [0.0, 0.0] for host in cluster.nics}
        self.fan_out_busy_s: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)  # the servers' side of fan-outs
        self._pipes = {(name, other): pipes for name in cluster.tiers for other in cluster.tiers if (pipes := cluster.pipes(name, other))}
        self._nics = {name: [cluster.nic(name, i) for i in range(tier.processes)] for name, tier in cluster.tiers.items()}

    def send(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        at_s: float,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Carry a message that is ready at `at_s`, and call `then(*args)`."""
        sender, receiver = self._nics[source[0]][source[1]], self._nics[target[0]][target[1]]
        now_s, busy_s = self._engine.now_s, sender.tx.busy_until_s
        first_byte_s = (at_s if at_s > busy_s else busy_s) + latency_s
        arrived_s = sender.tx.send(at_s, size_bytes) + latency_s
        received_s = receiver.rx.book(now_s, first_byte_s, size_bytes)  # it cuts through
        if received_s > arrived_s:
            arrived_s = received_s
        for pipe in self._pipes.get((source[0], target[0]), ()):
            arrived_s = max(arrived_s, pipe.send(at_s, size_bytes) + latency_s)
        self._engine.call_later(arrived_s - now_s, then, *args)

    def send_bulk(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Carry a piece of a long transfer behind the other bulk of the two cards."""
        now_s = self._engine.now_s
        sent_s = self._bulk_end_s(source, 0, now_s, size_bytes) + latency_s
        received_s = self._bulk_end_s(target, 1, now_s + latency_s, size_bytes)
        self._engine.call_later(max(sent_s, received_s) - now_s, then, *args)

    def _bulk_end_s(self, process: tuple[str, int], direction: int, at_s: float, size_bytes: float) -> float:
        tier = self._cluster.tiers[process[0]]
        card = (tier.host, tier.machine_of(process[1]), direction)
        rate = self._cluster.nic_bytes_per_s(tier.host)
        small = min(_MOST_SMALL, self.small_busy_s(tier.host)[direction] / (len(self._cluster.nics[tier.host]) * max(at_s, 1e-9)))
        end_s = max(at_s, self._bulk_until_s.get(card, 0.0)) + size_bytes / (rate * (1.0 - small))
        self._bulk_until_s[card] = end_s
        self._bulk_s[tier.host][direction] += size_bytes / rate
        return end_s

    def load(self, tier: str, size_bytes: float) -> None:
        """Count a collective on every card; its own time is the collective's formula."""
        host = self._cluster.tiers[tier].host
        seconds = len(self._cluster.nics[host]) * size_bytes / self._cluster.nic_bytes_per_s(host)
        self._bulk_s[host][0] += seconds
        self._bulk_s[host][1] += seconds

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        small, bulk = self.small_busy_s(host), self._bulk_s[host]
        return small[0] + bulk[0], small[1] + bulk[1]

    def small_busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by small messages."""
        if host == self._cluster.tiers["parameter_server"].host:
            vectors = self._cluster.server_nics
            own = self._cluster.nics[host][vectors.tx.links :]
            tx_s, rx_s = self.fan_out_busy_s()
            tx_s, rx_s = tx_s + float(vectors.tx.busy_s.sum()), rx_s + float(vectors.rx.busy_s.sum())
        else:
            own, tx_s, rx_s = self._cluster.nics[host], 0.0, 0.0
        return tx_s + sum(nic.tx.busy_s for nic in own), rx_s + sum(nic.rx.busy_s for nic in own)


class FlowWire:
    """Message fidelity: messages are flows that share every limited link of the topology max-min fairly."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._topology = cluster.topology
        self._capacity = cluster.topology.capacity_bytes_per_s * cluster.nic_efficiency
        self._flows = FlowNetwork(engine, self._capacity)
        self._numbers = {nodes: number for number, nodes in enumerate(cluster.topology.link_names)}

    def send(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        at_s: float,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Start a flow at `at_s`; `then(*args)` is called when its last byte has arrived."""
        delay_s = at_s - self._engine.now_s
        if self._cluster.same_machine(*source, *target):
            self._engine.call_later(delay_s + self._cluster.local_s(size_bytes), then, *args)
            return
        path = self._topology.path(self._end(source), self._end(target))
        self._engine.call_later(delay_s, self._start, size_bytes, path, latency_s, then, args)

    def _start(self, size_bytes: float, path: Sequence[int], latency_s: float, then: Callback, args: tuple[Any, ...]) -> None:
        self._flows.start(size_bytes, path, self._engine.call_later, latency_s, then, *args)

    def _end(self, process: tuple[str, int]) -> str:
        tier, index = process
        return f"{tier}/{self._cluster.tiers[tier].machine_of(index)}"

    def send_bulk(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        *,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        """Carry a piece of a long transfer: a flow like any other."""
        self.send(source, target, at_s=self._engine.now_s, size_bytes=size_bytes, latency_s=latency_s, then=then, args=args)

    def load(self, tier: str, size_bytes: float) -> None:
        """Start the flows of a ring between a tier's machines; the ring's own time is the collective's formula."""
        machines = self._cluster.tiers[tier].machines
        for machine in range(machines):
            path = self._topology.path(f"{tier}/{machine}", f"{tier}/{(machine + 1) % machines}")
            self._flows.start(size_bytes, path, _nothing)

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        sums = []
        for direction in ((0, 1), (1, 0)):
            seconds = 0.0
            for machine in range(len(self._cluster.nics[host])):
                nodes = (f"{host}/{machine}", f"{host}/{machine}/nic")
                link = self._numbers[nodes[direction[0]], nodes[direction[1]]]
                seconds += float(self._flows.carried_bytes[link] / self._capacity[link])
            sums.append(seconds)
        return sums[0], sums[1]


def _nothing() -> None:
    """A collective's flow ends unheard."""
