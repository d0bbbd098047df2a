"""The parameter servers at message fidelity: every request is an event of its own, through ServerSchedule.

Needed where servers differ, fail or lose messages; where nothing does, it agrees with phase fidelity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from persia.schedule import messages as m
from persia.schedule.server import ServerSchedule
from persia.schedule.staleness import VersionStaleness
from simulator.costs import BatchCosts
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.recorder import Recorder
from simulator.server_side import DRAWS, Tell, spread
from simulator.streams import Noise
from simulator.wire import Wire

_ACK_BYTES = 64.0


class MessageServers:
    """Carries out a worker's fan-outs request by request, and each server's commands.

    With `loss` > 0 that fraction of requests and answers is lost; the worker hears of it after `timeout_s`.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        cluster: Cluster,
        costs: BatchCosts,
        schedules: Sequence[ServerSchedule],
        wire: Wire,
        recorder: Recorder,
        shares: np.random.Generator,
        jitter: Noise,
        losses: np.random.Generator,
        loss: float,
        timeout_s: float,
        tell_worker: Tell,
        tell_server: Tell,
    ) -> None:
        self._engine = engine
        self._costs = costs
        self._schedules = schedules
        self._wire = wire
        self._recorder = recorder
        self._jitter = jitter
        self._losses = losses
        self._loss = loss
        self._timeout_s = timeout_s
        self._tell_worker = tell_worker
        self._tell_server = tell_server
        tier = cluster.tiers["parameter_server"]
        self._servers = tier.processes
        self._workers = cluster.tiers["embedding_worker"].processes
        self._slots = tier.threads_per_process
        self._gather = schedules[0].limits.gather
        self._latency_s = cluster.latency_s("embedding_worker", "parameter_server")
        share = spread(shares, costs.unique, tier.processes, DRAWS)
        cpu = cluster.slow["parameter_server"] * tier.cpu_factor
        self._share = share.tolist()
        self._lookup_s = ((share * costs.server_lookup_s + costs.server_request_s) * cpu).tolist()
        self._update_s = ((share * costs.server_update_s + costs.server_request_s) * cpu).tolist()
        self._staleness = [VersionStaleness() for _ in schedules]
        self.busy_s = 0.0
        self._lookups = 0
        self._updates = 0

    @property
    def lookups(self) -> float:
        """Return the batches looked up so far, parts counted as parts."""
        return self._lookups / self._servers

    @property
    def updates(self) -> float:
        """Return the batches applied so far, parts counted as parts."""
        return self._updates / self._servers

    # --- a worker's commands ----------------------------------------------------------------------------------

    def lookup(self, worker: int, batch: int) -> None:
        """Ask every server for its part of the batch's rows."""
        for server in range(self._servers):
            self.retry_lookup(worker, batch, server)

    def update(self, worker: int, batch: int) -> None:
        """Send every server its part of the batch's gradients."""
        for server in range(self._servers):
            self.retry_update(worker, batch, server)

    def retry_lookup(self, worker: int, batch: int, server: int) -> None:
        """Ask one server for its part."""
        self._ask(worker, batch, server, self._costs.lookup_request_bytes, m.LookupQueued(batch))

    def retry_update(self, worker: int, batch: int, server: int) -> None:
        """Send one server its part."""
        self._ask(worker, batch, server, self._costs.update_bytes, m.UpdateQueued(batch))

    def _ask(self, worker: int, batch: int, server: int, whole_bytes: float, event: m.Event) -> None:
        if self._lost():
            self._engine.call_later(self._timeout_s, self._tell_worker, worker, m.ServerFailed(batch, server))
            return
        self._wire.send(
            ("embedding_worker", worker),
            ("parameter_server", server),
            at_s=self._engine.now_s,
            size_bytes=whole_bytes * self._share[batch % DRAWS][server],
            latency_s=self._latency_s * self._jitter.factor(),
            then=self._tell_server,
            args=(server, event),
        )

    def _lost(self) -> bool:
        return self._loss > 0.0 and float(self._losses.random()) < self._loss

    # --- a server's commands ----------------------------------------------------------------------------------

    def hands(self) -> dict[type[m.Word], Callable[[int, Any], None]]:
        """Return what carries out each command of a server."""
        return {
            m.ServeLookup: self._serve_lookup,
            m.ApplyUpdate: self._apply_update,
            m.ApplyStep: self._apply_step,
            m.Acknowledge: self._acknowledge,
        }

    def _serve_lookup(self, server: int, command: m.ServeLookup) -> None:
        batch = command.batch
        self._staleness[server].looked_up(batch, self._schedules[server].version)
        service_s = self._lookup_s[batch % DRAWS][server]
        self.busy_s += service_s
        self._lookups += 1
        if server == 0 and batch in self._recorder.span_batches:
            now_s = self._engine.now_s
            self._recorder.span("parameter_server", 0, "lookup", batch, now_s, now_s + service_s)
        self._engine.call_later(service_s, self._lookup_served, server, batch)

    def _lookup_served(self, server: int, batch: int) -> None:
        self._tell_server(server, m.LookupServed(batch))
        size_bytes = self._costs.lookup_reply_bytes * self._share[batch % DRAWS][server]
        self._answer(server, batch, size_bytes, m.RowsArrived(batch, server))

    def _apply_update(self, server: int, command: m.ApplyUpdate) -> None:
        service_s = self._update_s[command.batch % DRAWS][server]
        self.busy_s += service_s
        if server == 0 and command.batch in self._recorder.span_batches:
            now_s = self._engine.now_s
            self._recorder.span("parameter_server", 0, "update", command.batch, now_s, now_s + service_s)
        self._engine.call_later(service_s, self._update_applied, server, (command.batch,))

    def _apply_step(self, server: int, command: m.ApplyStep) -> None:
        """Sum the step's gradients and apply them once: the ranks' parts run on as many cores as there are."""
        first = command.step * self._gather
        batches = tuple(range(first, first + self._gather))
        work_s = sum(self._update_s[batch % DRAWS][server] for batch in batches)
        self.busy_s += work_s
        self._engine.call_later(work_s / min(self._slots, self._gather), self._update_applied, server, batches)

    def _update_applied(self, server: int, batches: tuple[int, ...]) -> None:
        for batch in batches:
            version = self._staleness[server].updated(batch, self._schedules[server].version)
            assert version is not None  # no simulated server forgets a lookup
            self._recorder.version.append(version)
            self._updates += 1
        for batch in batches:
            self._tell_server(server, m.UpdateApplied(batch))

    def _acknowledge(self, server: int, command: m.Acknowledge) -> None:
        self._answer(server, command.batch, _ACK_BYTES, m.UpdateAcked(command.batch, server))

    def _answer(self, server: int, batch: int, size_bytes: float, event: m.Event) -> None:
        worker = batch % self._workers
        if self._lost():
            self._engine.call_later(self._timeout_s, self._tell_worker, worker, m.ServerFailed(batch, server))
            return
        self._wire.send(
            ("parameter_server", server),
            ("embedding_worker", worker),
            at_s=self._engine.now_s,
            size_bytes=size_bytes,
            latency_s=self._latency_s * self._jitter.factor(),
            then=self._tell_worker,
            args=(worker, event),
        )
