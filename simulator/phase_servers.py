"""The parameter servers at phase fidelity: one numpy operation and one event stand for a fan-out to all of them.

Servers and NICs are FIFO queues, which is what ServerSchedule does when nothing fails; an update counts from the mean
time at which the servers have applied it, a lookup sees what counts at the mean time at which they begin to serve it.
What queues for a worker's card reaches the servers when it has left, lest it hold a place there that others could use.
Shapes: S server processes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np

from persia.schedule.messages import EVERY_SERVER, RowsArrived, UpdateAcked
from simulator.arrays import FloatArray
from simulator.costs import BatchCosts
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.queues import Link
from simulator.recorder import Recorder
from simulator.server_side import DRAWS, Tell, spread
from simulator.streams import Noise

_LATE = 509  # how often the latencies of a fan-out are drawn; a prime, so that they do not keep step with DRAWS


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
        self._cards_are_shared = any(other.host == tier.host and name != "parameter_server" for name, other in cluster.tiers.items())
        late_s = (jitter.factors(_LATE * tier.processes).reshape(_LATE, tier.processes) - 1.0) * self._latency_s
        self._late_s = cycle(list(late_s))  # how much later than on average one message to or from each server comes [S]
        self._seen_s: dict[int, float] = {}  # when the servers began to serve each batch's lookup
        self._applied = 0
        self._applied_at_s: list[float] = []  # when they have applied each update, in order
        self._gathered: list[tuple[int, int]] = []  # worker and batch of a step's gradients
        self._gathered_s = np.zeros(tier.processes)
        self._gathered_work_s = np.zeros(tier.processes)

    @property
    def lookups(self) -> float:
        """Return the batches looked up so far."""
        return float(sum(self._lookups_of))

    @property
    def updates(self) -> float:
        """Return the batches applied so far."""
        return float(self._applied)

    @property
    def busy_s(self) -> float:
        """Return the core-seconds used by all servers so far."""
        return self._given_out(1, self._lookups_of) + self._given_out(4, self._updates_of)

    def _given_out(self, row: int, counts: Sequence[int]) -> float:
        """Return the seconds of one kind of work over all draws; no BLAS, whose last bit depends on its threads."""
        return float(np.sum(self._totals[row] * counts))

    def nic_busy_s(self) -> tuple[float, float]:
        """Return the card-seconds used by the servers' messages so far: outgoing, incoming."""
        received_s = self._given_out(0, self._lookups_of) + self._given_out(3, self._updates_of)
        return self._given_out(2, self._lookups_of), received_s

    def lookup(self, worker: int, batch: int) -> None:
        """Ask every server for its part of the batch's rows; the worker hears when the last is here."""
        self._lookups_of[batch % DRAWS] += 1
        self._leave(worker, batch, self._costs.lookup_request_bytes, self._serve)

    def update(self, worker: int, batch: int) -> None:
        """Send every server its part of the batch's gradients; the worker hears when the last has applied it."""
        self._updates_of[batch % DRAWS] += 1
        self._leave(worker, batch, self._costs.update_bytes, self._receive_gradients)

    def _leave(self, worker: int, batch: int, size_bytes: float, then: Callable[[int, int, float], None]) -> None:
        """Send a fan-out; `then` hears when its first byte leaves the worker's card, and of the time at which the last will."""
        now_s, tx = self._engine.now_s, self._nic[worker].tx
        wait_s = tx.busy_until_s - now_s
        sent_s = tx.send(now_s, size_bytes)
        if self._pipes_out:
            sent_s = through(self._pipes_out, sent_s, size_bytes)
        if wait_s > 0.0:
            self._engine.call_later(wait_s, then, worker, batch, sent_s)
        else:
            then(worker, batch, sent_s)

    def _arrivals_s(self, transmission_s: FloatArray, sent_s: float) -> FloatArray:
        """Return when each server has its part [S] of a fan-out that begins to leave now: it cuts through."""
        received_s = self._nics.receive(self._engine.now_s + self._latency_s, transmission_s)
        arrived_s: FloatArray = np.maximum(received_s, sent_s + self._latency_s)
        arrived_s += next(self._late_s)
        return arrived_s

    def _serve(self, worker: int, batch: int, sent_s: float) -> None:
        """Let every server read its rows."""
        request_s, lookup_s, _ = self._lookup_times[batch % DRAWS]
        served_s = self._cores.serve_uncounted(self._arrivals_s(request_s, sent_s), lookup_s)
        self._seen_s[batch] = float(np.add.reduce(served_s)) / len(served_s) - self._mean_lookup_s
        first_s = float(np.minimum.reduce(served_s))
        if self._cards_are_shared:  # what else uses the servers' cards must not wait for answers that are not there yet
            self._engine.call_later(first_s - self._engine.now_s, self._answer, worker, batch, served_s, first_s)
        else:
            self._answer(worker, batch, served_s, first_s)

    def _answer(self, worker: int, batch: int, served_s: FloatArray, first_s: float) -> None:
        """Send the rows, read at `served_s` [S], the first at `first_s`, through the servers' cards and the worker's."""
        now_s, size_bytes = self._engine.now_s, self._costs.lookup_reply_bytes
        reply_s = self._lookup_times[batch % DRAWS][2]
        sent_s = self._nics.send(served_s + next(self._late_s), reply_s)
        if self._pipes_back:
            sent_s = through(self._pipes_back, sent_s, size_bytes)
        received_s = self._nic[worker].rx.book(now_s, first_s + self._latency_s, size_bytes)
        if batch in self._recorder.span_batches:
            self._recorder.span("parameter_server", 0, "lookup", batch, self._seen_s[batch], sent_s)
        end_s = max(received_s, sent_s + self._latency_s)
        self._engine.call_later(end_s - now_s, self._tell, worker, RowsArrived(batch, EVERY_SERVER))

    def _receive_gradients(self, worker: int, batch: int, sent_s: float) -> None:
        """Let every server apply the gradients; those of a step that is gathered when all of them are here."""
        gradients_s, update_s = self._update_times[batch % DRAWS]
        arrived_s = self._arrivals_s(gradients_s, sent_s)
        if self._gather == 1:
            self._apply(self._cores.serve_uncounted(arrived_s, update_s), ((worker, batch),))
            return
        self._gathered.append((worker, batch))
        np.maximum(self._gathered_s, arrived_s, out=self._gathered_s)
        self._gathered_work_s += update_s
        if len(self._gathered) == self._gather:  # the ranks' parts run on as many cores as there are
            self._apply(self._gathered_s + self._gathered_work_s / min(self._cores.cores, self._gather), self._gathered)
            self._gathered.clear()
            self._gathered_work_s[:] = 0.0

    def _apply(self, applied_s: FloatArray, batches: Sequence[tuple[int, int]]) -> None:
        """Let each batch's worker hear that every server has applied it, which they have at `applied_s` [S]."""
        now_s, mean_s = self._engine.now_s, float(np.add.reduce(applied_s)) / len(applied_s)
        for worker, batch in batches:
            insort(self._applied_at_s, mean_s)
            last_s = float(np.maximum.reduce(applied_s + next(self._late_s)))
            if batch in self._recorder.span_batches:
                self._recorder.span("parameter_server", 0, "update", batch, now_s, last_s)
            self._engine.call_later(last_s + self._latency_s - now_s, self._acknowledge, worker, batch, mean_s)

    def _acknowledge(self, worker: int, batch: int, applied_s: float) -> None:
        """Count what was applied between the batch's lookup and its update, all of which is known only now."""
        times_s = self._applied_at_s
        self._recorder.version.append(bisect_left(times_s, applied_s) - bisect_right(times_s, self._seen_s.pop(batch)))
        self._applied += 1
        self._tell(worker, UpdateAcked(batch, EVERY_SERVER))


def through(pipes: Sequence[Link], at_s: float, size_bytes: float) -> float:
    """Return when a fan-out, out of its sender's card at `at_s`, is through what else limits the two tiers."""
    for pipe in pipes:
        at_s = pipe.send(at_s, size_bytes)
    return at_s
