"""How a message gets from one process to another: through FIFO network cards, or as a flow that shares links fairly.

Both fidelities offer the same few verbs, so that the rest of the physics does not know which it drives.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from simulator.engine import Callback, Engine
from simulator.hardware import Cluster, transfer_s
from simulator.network.flows import FlowNetwork


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

    def load(self, tier: str, size_bytes: float) -> None:
        """Let a collective pass `size_bytes` through both directions of every card of a tier's machines."""
        ...

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        ...


class FifoWire:
    """Phase fidelity: every card is a FIFO in each direction, and a message is one event."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
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
        arrived_s = transfer_s(sender.tx, receiver.rx, at_s, size_bytes, latency_s)
        self._engine.call_later(arrived_s - self._engine.now_s, then, *args)

    def load(self, tier: str, size_bytes: float) -> None:
        """Let a collective pass through every card: what comes later queues behind it."""
        now_s = self._engine.now_s
        for nic in self._cluster.nics[self._cluster.tiers[tier].host]:
            nic.tx.send(now_s, size_bytes)
            nic.rx.send(now_s, size_bytes)

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        if host == self._cluster.tiers["parameter_server"].host:
            vectors = self._cluster.server_nics
            own = self._cluster.nics[host][vectors.tx.links :]
            tx_s, rx_s = float(vectors.tx.busy_s.sum()), float(vectors.rx.busy_s.sum())
        else:
            own, tx_s, rx_s = self._cluster.nics[host], 0.0, 0.0
        return tx_s + sum(nic.tx.busy_s for nic in own), rx_s + sum(nic.rx.busy_s for nic in own)


class FlowWire:
    """Message fidelity: messages are flows that share the cards, and any limited link between tiers, max-min fairly."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._engine = engine
        self._cluster = cluster
        self._first: dict[str, int] = {}  # host tier -> link of its machine 0; links come in pairs, tx then rx
        capacity: list[float] = []
        for host, nics in cluster.nics.items():
            self._first[host] = len(capacity)
            capacity += [cluster.nic_bytes_per_s(host)] * (2 * len(nics))
        self._pipes: dict[frozenset[str], int] = {}
        for pair, bytes_per_s in cluster.limited_pairs().items():
            self._pipes[pair] = len(capacity)
            capacity.append(bytes_per_s)
        self._capacity = np.array(capacity)
        self._flows = FlowNetwork(engine, self._capacity)

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
        path = [self._link(source), self._link(target) + 1]
        pipe = self._pipes.get(frozenset((source[0], target[0])))
        if pipe is not None:
            path.append(pipe)
        self._engine.call_later(at_s - self._engine.now_s, self._start, size_bytes, path, latency_s, then, args)

    def _start(self, size_bytes: float, path: list[int], latency_s: float, then: Callback, args: tuple[Any, ...]) -> None:
        self._flows.start(size_bytes, path, self._engine.call_later, latency_s, then, *args)

    def _link(self, process: tuple[str, int]) -> int:
        tier = self._cluster.tiers[process[0]]
        return self._first[tier.host] + 2 * tier.machine_of(process[1])

    def load(self, tier: str, size_bytes: float) -> None:
        """Start the flows of a ring between a tier's machines; the ring's own time is the collective's formula."""
        machines = self._cluster.tiers[tier].machines
        first = self._first[self._cluster.tiers[tier].host]
        for machine in range(machines):
            self._flows.start(size_bytes, [first + 2 * machine, first + 2 * ((machine + 1) % machines) + 1], _nothing)

    def busy_s(self, host: str) -> tuple[float, float]:
        """Return the card-seconds used by a tier's machines so far: outgoing, incoming."""
        first, machines = self._first[host], len(self._cluster.nics[host])
        links = slice(first, first + 2 * machines)
        seconds = self._flows.carried_bytes[links] / self._capacity[links]
        return float(seconds[0::2].sum()), float(seconds[1::2].sum())


def _nothing() -> None:
    """A collective's flow ends unheard."""
