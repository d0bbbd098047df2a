"""The parameter servers at phase fidelity: one numpy operation and one event stand for a fan-out to all of them.

Servers and NICs are FIFO queues, which is what ServerSchedule does when nothing fails; updates are counted in the order
of arrival, so version staleness stays exact.  Shapes: S server processes, K pooled draws of how a batch's rows spread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from persia.schedule.messages import EVERY_SERVER, Event, RowsArrived, UpdateAcked
from simulator.costs import BatchCosts
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.queues import Link
from simulator.recorder import Recorder
from simulator.streams import Noise

DRAWS = 64  # how often the spread of rows over servers is drawn; batches take the draws in turn

Tell = Callable[[int, Event], None]


class PhaseServers:
    """Carries out a worker's fan-outs: request, service, reply on every server at once."""

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: Cluster,
        costs: BatchCosts,
        gather: int,
        recorder: Recorder,
        shares: np.random.Generator,
        jitter: Noise,
        tell: Tell,
    ) -> None:
        self._engine = engine
        self._cluster = cluster
        self._costs = costs
        self._gather = gather
        self._recorder = recorder
        self._jitter = jitter
        self._tell = tell
        self._latency_s = cluster.latency_s("embedding_worker", "parameter_server")
        self._pipe: Link | None = cluster.pipe("embedding_worker", "parameter_server")
        tier = cluster.tiers["parameter_server"]
        share = spread(shares, costs.unique, tier.processes, DRAWS)
        cpu = cluster.slow["parameter_server"] * tier.cpu_factor
        self._lookup_s = (share * costs.server_lookup_s + costs.server_request_s) * cpu
        self._update_s = (share * costs.server_update_s + costs.server_request_s) * cpu
        self._request_bytes = share * costs.lookup_request_bytes
        self._reply_bytes = share * costs.lookup_reply_bytes
        self._update_bytes = share * costs.update_bytes
        self._version_at: dict[int, int] = {}
        self.updates = 0
        self.lookups = 0

    def lookup(self, worker: int, batch: int) -> None:
        """Ask every server for its part of the batch's rows; the worker hears when the last is here."""
        now_s, costs, draw = self._engine.now_s, self._costs, batch % DRAWS
        nic = self._cluster.nic("embedding_worker", worker)
        servers = self._cluster.server_nics
        latency_s = self._latency_s * self._jitter.factor()
        asked_s = self._through_pipe(nic.tx.send(now_s, costs.lookup_request_bytes), costs.lookup_request_bytes) + latency_s
        arrived_s = servers.receive(asked_s, self._request_bytes[draw])
        served_s = self._cluster.server_cores.serve(arrived_s, self._lookup_s[draw])
        self.lookups += 1
        self._version_at[batch] = self.updates // self._gather * self._gather
        sent_s = self._through_pipe(servers.send(served_s, self._reply_bytes[draw]), costs.lookup_reply_bytes) + latency_s
        first_byte_s = asked_s + float(self._lookup_s[draw, 0]) + latency_s
        received_s = max(nic.rx.send(first_byte_s, costs.lookup_reply_bytes), sent_s)
        if self._recorder.wants_spans(batch):
            self._recorder.span("parameter_server", 0, "lookup", batch, asked_s, sent_s - latency_s)
        self._engine.call_later(received_s - now_s, self._tell, worker, RowsArrived(batch, EVERY_SERVER))

    def update(self, worker: int, batch: int) -> None:
        """Send every server its part of the batch's gradients; the worker hears when the last has applied it."""
        now_s, costs, draw = self._engine.now_s, self._costs, batch % DRAWS
        nic = self._cluster.nic("embedding_worker", worker)
        latency_s = self._latency_s * self._jitter.factor()
        sent_s = self._through_pipe(nic.tx.send(now_s, costs.update_bytes), costs.update_bytes) + latency_s
        arrived_s = self._cluster.server_nics.receive(sent_s, self._update_bytes[draw])
        applied_s = float(self._cluster.server_cores.serve(arrived_s, self._update_s[draw]).max())
        self._recorder.version.append(self.updates // self._gather * self._gather - self._version_at.pop(batch))
        self.updates += 1
        if self._recorder.wants_spans(batch):
            self._recorder.span("parameter_server", 0, "update", batch, sent_s, applied_s)
        self._engine.call_later(applied_s + latency_s - now_s, self._tell, worker, UpdateAcked(batch, EVERY_SERVER))

    @property
    def busy_s(self) -> float:
        """Return the core-seconds used by all servers so far."""
        return float(self._cluster.server_cores.busy_s.sum())

    def _through_pipe(self, at_s: float, size_bytes: float) -> float:
        """Return when a fan-out is through the link between the tiers, where the scenario limits it."""
        return at_s if self._pipe is None else self._pipe.send(at_s, size_bytes)


def spread(generator: np.random.Generator, unique: float, servers: int, draws: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return `draws` multinomial draws of the share of a batch's unique IDs that each server gets [draws, servers]."""
    count = max(1, round(unique))
    return generator.multinomial(count, np.full(servers, 1.0 / servers), size=draws) / count
