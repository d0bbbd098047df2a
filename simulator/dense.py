"""The dense part as physics: forward, backward, bucketed all-reduce, optimizer; barriers; dense exchange with servers.

A collective begins when its last rank arrives, so one event stands for a step of all ranks.  Shapes: R ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from persia.schedule.messages import BarrierPassed, DenseDone, DenseExchanged, Event
from persia.schedule.modes import Reduction
from simulator.allreduce import overlapped_end_s
from simulator.arrays import FloatArray
from simulator.costs import DenseCosts
from simulator.engine import Callback, Engine
from simulator.hardware import Cluster
from simulator.recorder import Recorder
from simulator.streams import Noise, stream
from simulator.wire import Wire

_CHUNK_BYTES = 4.0e6  # a dense exchange moves in chunks, so that a lookup waits for a chunk at most

Tell = Callable[[int, Event], None]


class DensePhysics:
    """Carries out TrainDense, ExchangeDense and EnterBarrier for all ranks; tells them when each is done."""

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: Cluster,
        wire: Wire,
        costs: DenseCosts,
        reduction: Reduction,
        recorder: Recorder,
        noise: Noise,
        tell: Tell,
    ) -> None:
        ranks = cluster.tiers["nn_worker"].processes
        self._engine = engine
        self._wire = wire
        self._servers = cluster.tiers["parameter_server"].processes
        self._latency_s = cluster.latency_s("nn_worker", "parameter_server")
        self._costs = costs
        self._reduction = reduction
        self._recorder = recorder
        self._noise = noise if costs.emulated is None else Noise(stream(0, "steady"), 0.0)  # a wait is always as long
        self._tell = tell
        self._ranks = ranks
        self._slow = cluster.slow["nn_worker"]
        self._start_s = np.zeros(ranks)  # when each rank's host began the batch of this step
        self._joined = 0
        self._step_factors = self._noise.factors(ranks) * self._slow
        self._last_done_s = np.zeros(ranks)
        self._at_barrier = 0
        self._fractions = [bucket.ready_fraction for bucket in costs.buckets]
        self.busy_s = 0.0  # accelerator-seconds of forward, backward and optimizer

    def train(self, rank: int, batch: int) -> None:
        """Queue forward and backward of a batch; with a reduction, as this rank's part of the step's collective."""
        now_s = self._engine.now_s
        self._recorder.parts[0] += now_s - float(self._last_done_s[rank])
        if self._reduction is Reduction.NONE:
            self._train_alone(rank, batch, now_s)
            return
        self._start_s[rank] = now_s
        self._joined += 1
        if self._joined == self._ranks:
            self._joined = 0
            self._run_step(batch // self._ranks, now_s)

    def _train_alone(self, rank: int, batch: int, now_s: float) -> None:
        """Run one batch without any reduction (async mode)."""
        costs = self._costs
        factor = self._noise.factor() * float(self._slow[rank])
        host_s = costs.host_s * factor
        compute_s = (costs.forward_s + costs.backward_s) * factor
        total_s = host_s + compute_s + costs.optimizer_s
        parts = self._recorder.parts
        parts[1] += host_s
        parts[2] += costs.forward_s * factor
        parts[3] += costs.backward_s * factor
        parts[6] += costs.optimizer_s
        self.busy_s += compute_s + costs.optimizer_s
        if batch in self._recorder.span_batches:
            self._record(rank, batch, now_s, now_s + host_s, now_s + host_s + compute_s, now_s + host_s + compute_s, now_s + total_s)
        self._engine.call_later(total_s, self._done_alone, rank, batch)

    def _done_alone(self, rank: int, batch: int) -> None:
        self._last_done_s[rank] = self._engine.now_s
        self._tell(rank, DenseDone(batch))

    def _run_step(self, step: int, now_s: float) -> None:
        """Every rank has joined: lay out forward, backward and the buckets of all ranks, and end the step with one event."""
        costs, factors = self._costs, self._step_factors
        host_s = costs.host_s * factors
        forward_s = costs.forward_s * factors
        backward_s = costs.backward_s * factors
        backward_start_s = self._start_s + host_s + forward_s
        computed_s = backward_start_s + backward_s
        slowest_s = float(computed_s.max())
        if self._ranks == 1:
            reduced_s = slowest_s
        elif self._reduction is Reduction.OVERLAPPED:
            reduced_s = overlapped_end_s(backward_start_s, backward_s, self._fractions, costs.bucket_s)
        else:
            reduced_s = slowest_s + costs.all_reduce_s
        end_s = max(reduced_s, slowest_s) + costs.optimizer_s
        self._account(host_s, forward_s, backward_s, slowest_s, end_s)
        self._engine.call_later(end_s - now_s, self._end_step, step)
        if costs.nic_bytes > 0.0:
            begin_s = max(now_s, reduced_s - costs.all_reduce_s)
            self._engine.call_later(begin_s - now_s, self._load_nics)
        if step in self._recorder.span_steps:
            for rank in range(min(self._ranks, self._recorder.span_ranks)):
                times = (self._start_s[rank], (self._start_s + host_s)[rank], computed_s[rank], end_s - costs.optimizer_s, end_s)
                self._record(rank, rank + step * self._ranks, *map(float, times))
        self._step_factors = self._noise.factors(self._ranks) * self._slow

    def _account(
        self,
        host_s: FloatArray,
        forward_s: FloatArray,
        backward_s: FloatArray,
        slowest_s: float,
        end_s: float,
    ) -> None:
        """Add the step's parts, in rank-seconds.

        A rank waits for the slowest for as long as that one computes longer than it does; what it waits beyond that is for
        another rank's embeddings, without which the collective cannot end either.
        """
        ranks, optimizer_s = self._ranks, self._costs.optimizer_s
        parts = self._recorder.parts
        forward, backward = float(forward_s.sum()), float(backward_s.sum())
        work_s = host_s + forward_s + backward_s
        wait_s = slowest_s - self._start_s - work_s
        straggling = float(np.minimum(wait_s, work_s.max() - work_s).sum())
        parts[0] += float(wait_s.sum()) - straggling
        parts[1] += float(host_s.sum())
        parts[2] += forward
        parts[3] += backward
        parts[4] += straggling
        parts[5] += ranks * (end_s - optimizer_s - slowest_s)
        parts[6] += ranks * optimizer_s
        self.busy_s += forward + backward + ranks * optimizer_s

    def _load_nics(self) -> None:
        """The all-reduce's bytes pass every rank machine's card, where lookups and pushes meet them."""
        self._wire.load("nn_worker", self._costs.nic_bytes)

    def _end_step(self, step: int) -> None:
        self._last_done_s[:] = self._engine.now_s
        first = step * self._ranks
        for rank in range(self._ranks):
            self._tell(rank, DenseDone(first + rank))

    def _record(self, rank: int, batch: int, start_s: float, host_s: float, computed_s: float, reduced_s: float, end_s: float) -> None:
        """Keep the spans of one batch's dense part."""
        span = self._recorder.span
        span("nn_worker", rank, "host work", batch, start_s, host_s)
        span("nn_worker", rank, "forward + backward", batch, host_s, computed_s)
        if reduced_s > computed_s:
            span("nn_worker", rank, "all-reduce", batch, computed_s, reduced_s)
        span("nn_worker", rank, "optimizer", batch, reduced_s, end_s)

    # --- dense parameters through the servers (async mode) ----------------------------------------------------

    def exchange(self, rank: int, batch: int) -> None:
        """Send the rank's accumulated dense gradient to the servers and fetch fresh parameters, chunk by chunk.

        Chunk c goes to server c mod S, which holds that part of the dense parameters, and comes back fresh; the next
        chunk leaves when the one before has arrived, while that one's answer is on its way.
        """
        self._exchange_chunk(rank, batch, rank, self._costs.exchange_bytes)

    def _exchange_chunk(self, rank: int, batch: int, chunk: int, left_bytes: float) -> None:
        size_bytes = min(left_bytes, _CHUNK_BYTES)
        args = (rank, batch, chunk, left_bytes - size_bytes, size_bytes)
        self._send_chunk(("nn_worker", rank), ("parameter_server", chunk % self._servers), size_bytes, self._chunk_arrived, args)

    def _chunk_arrived(self, rank: int, batch: int, chunk: int, left_bytes: float, size_bytes: float) -> None:
        done: tuple[Callback, tuple[Any, ...]] = (_nothing, ()) if left_bytes > 0.0 else (self._tell, (rank, DenseExchanged(batch)))
        self._send_chunk(("parameter_server", chunk % self._servers), ("nn_worker", rank), size_bytes, *done)
        if left_bytes > 0.0:
            self._exchange_chunk(rank, batch, chunk + 1, left_bytes)

    def _send_chunk(
        self, source: tuple[str, int], target: tuple[str, int], size_bytes: float, then: Callback, args: tuple[Any, ...]
    ) -> None:
        self._wire.send_bulk(source, target, size_bytes=size_bytes, latency_s=self._latency_s, then=then, args=args)

    # --- barriers ---------------------------------------------------------------------------------------------

    def enter_barrier(self, step: int) -> None:
        """Count one rank in; when all are, tell all after the barrier's round of messages."""
        self._at_barrier += 1
        if self._at_barrier == self._ranks:
            self._at_barrier = 0
            self._engine.call_later(self._costs.barrier_s, self._pass_barrier, step)

    def _pass_barrier(self, step: int) -> None:
        for rank in range(self._ranks):
            self._tell(rank, BarrierPassed(step))


def _nothing() -> None:
    """A chunk that is not the last comes back unheard."""
