"""The parameter servers at phase fidelity: one numpy operation and one event stand for a fan-out to all of them.

Servers and NICs are FIFO queues, which is what ServerSchedule does when nothing fails; updates are counted in the order
of arrival, so version staleness stays exact.  Shapes: S server processes, K pooled draws of how a batch's rows spread.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence

import numpy as np

from persia.schedule.messages import EVERY_SERVER, RowsArrived, UpdateAcked
from simulator.costs import BatchCosts
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.queues import Link
from simulator.recorder import Recorder
from simulator.server_side import DRAWS, Tell, spread
from simulator.streams import Noise

_TIDY_AT = 256  # applied updates that are listed at most


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
        self._cores = cluster.server_cores
        self._nics = cluster.server_nics
        self._costs = costs
        self._gather = gather
        self._recorder = recorder
        self._jitter = jitter
        self._tell = tell
        self._latency_s = cluster.latency_s("embedding_worker", "parameter_server")
        self._pipes_out = cluster.pipes("embedding_worker", "parameter_server")
        self._pipes_back = cluster.pipes("parameter_server", "embedding_worker")
        tier = cluster.tiers["parameter_server"]
        share = spread(shares, costs.unique, tier.processes, DRAWS)
        cpu = cluster.slow["parameter_server"] * tier.cpu_factor
        lookup_s = (share * costs.server_lookup_s + costs.server_request_s) * cpu
        update_s = (share * costs.server_update_s + costs.server_request_s) * cpu
        nics = self._nics
        request_s = nics.transmission_s(share * costs.lookup_request_bytes)
        reply_s = nics.transmission_s(share * costs.lookup_reply_bytes)
        gradients_s = nics.transmission_s(share * costs.update_bytes)
        self._lookup_times = list(zip(request_s, lookup_s, reply_s, strict=True))  # one triple of vectors per draw
        self._update_times = list(zip(gradients_s, update_s, strict=True))
        self._mean_lookup_s = float(lookup_s.mean())
        self._totals = np.stack([request_s.sum(1), lookup_s.sum(1), reply_s.sum(1), gradients_s.sum(1), update_s.sum(1)])
        self._lookups_of = [0] * DRAWS  # lookups that took each draw
        self._updates_of = [0] * DRAWS
        self._nic = [cluster.nic("embedding_worker", worker) for worker in range(cluster.tiers["embedding_worker"].processes)]
        self._version_at: dict[int, int] = {}
        self._applied = 0  # updates applied and no longer listed in `_applying`
        self._applying: list[float] = []  # when each update is applied, the earliest first

    @property
    def lookups(self) -> float:
        """Return the batches looked up so far."""
        return float(sum(self._lookups_of))

    @property
    def updates(self) -> float:
        """Return the batches applied so far."""
        return float(self._applied + len(self._applying))

    def _version(self, at_s: float) -> int:
        """Return how many updates are applied at `at_s`; those of a gathered step count when all of them are."""
        applying = self._applying
        done = bisect_right(applying, at_s)
        if done > _TIDY_AT:
            del applying[:done]
            self._applied += done
            done = 0
        return (self._applied + done) // self._gather * self._gather

    @property
    def busy_s(self) -> float:
        """Return the core-seconds used by all servers so far."""
        return float(self._totals[1] @ self._lookups_of + self._totals[4] @ self._updates_of)

    def nic_busy_s(self) -> tuple[float, float]:
        """Return the card-seconds used by the servers' messages so far: outgoing, incoming."""
        received_s = self._totals[0] @ self._lookups_of + self._totals[3] @ self._updates_of
        return float(self._totals[2] @ self._lookups_of), float(received_s)

    def lookup(self, worker: int, batch: int) -> None:
        """Ask every server for its part of the batch's rows; the worker hears when the last is here."""
        now_s, costs, draw, nic = self._engine.now_s, self._costs, batch % DRAWS, self._nic[worker]
        request_s, lookup_s, reply_s = self._lookup_times[draw]
        self._lookups_of[draw] += 1
        latency_s = self._latency_s * self._jitter.factor()
        asked_s = nic.tx.send(now_s, costs.lookup_request_bytes) + latency_s
        if self._pipes_out:
            asked_s = through(self._pipes_out, asked_s, costs.lookup_request_bytes)
        self._version_at[batch] = self._version(asked_s)
        served_s = self._cores.serve_uncounted(self._nics.receive(asked_s, request_s), lookup_s)
        sent_s = self._nics.send(served_s, reply_s) + latency_s
        if self._pipes_back:
            sent_s = through(self._pipes_back, sent_s, costs.lookup_reply_bytes)
        first_byte_s = asked_s + self._mean_lookup_s + latency_s
        received_s = nic.rx.book(now_s, first_byte_s, costs.lookup_reply_bytes)
        if batch in self._recorder.span_batches:
            self._recorder.span("parameter_server", 0, "lookup", batch, asked_s, sent_s - latency_s)
        end_s = received_s if received_s > sent_s else sent_s
        self._engine.call_later(end_s - now_s, self._tell, worker, RowsArrived(batch, EVERY_SERVER))

    def update(self, worker: int, batch: int) -> None:
        """Send every server its part of the batch's gradients; the worker hears when the last has applied it."""
        now_s, costs, draw, nic = self._engine.now_s, self._costs, batch % DRAWS, self._nic[worker]
        gradients_s, update_s = self._update_times[draw]
        self._updates_of[draw] += 1
        latency_s = self._latency_s * self._jitter.factor()
        first_byte_s = max(now_s, nic.tx.busy_until_s) + latency_s
        sent_s = nic.tx.send(now_s, costs.update_bytes) + latency_s
        if self._pipes_out:
            sent_s = through(self._pipes_out, sent_s, costs.update_bytes)
        received_s = np.maximum(self._nics.receive(first_byte_s, gradients_s), sent_s)  # cuts through, but ends no sooner than sent
        applied_s = float(np.maximum.reduce(self._cores.serve_uncounted(received_s, update_s)))
        before = self._applied + len(self._applying)  # updates are applied in the order in which they fan out
        self._recorder.version.append(before // self._gather * self._gather - self._version_at.pop(batch))
        insort(self._applying, applied_s)
        if batch in self._recorder.span_batches:
            self._recorder.span("parameter_server", 0, "update", batch, sent_s, applied_s)
        self._engine.call_later(applied_s + latency_s - now_s, self._tell, worker, UpdateAcked(batch, EVERY_SERVER))


def through(pipes: Sequence[Link], at_s: float, size_bytes: float) -> float:
    """Return when a fan-out, out of its sender's card at `at_s`, is through what else limits the two tiers."""
    for pipe in pipes:
        at_s = pipe.send(at_s, size_bytes)
    return at_s
