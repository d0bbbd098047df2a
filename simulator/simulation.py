"""One run: the four schedules of every process, driven by events whose times the physics gives.

The schedules decide, this module carries out: each command becomes work on the cluster's resources and, when that is
done, an event for a schedule.  Which server side it drives (phase or message fidelity) is a parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from persia.scenario import Catalog, Profile, Scenario
from persia.schedule import messages as m
from persia.schedule.loader import LoaderSchedule
from persia.schedule.log import Header, Log, loader_limits
from persia.schedule.rank import RankSchedule
from persia.schedule.server import ServerSchedule
from persia.schedule.worker import WorkerSchedule
from simulator.costs import batch_costs, dense_costs
from simulator.dense import DensePhysics
from simulator.driving import Driving, Hand, Process
from simulator.engine import Callback, Engine
from simulator.hardware import Cluster
from simulator.message_servers import MessageServers
from simulator.phase_servers import PhaseServers
from simulator.queues import Link
from simulator.recorder import Recorder
from simulator.server_side import ServerSide
from simulator.streams import Noise, stream
from simulator.wire import FifoWire, FlowWire, Wire

_SPAN_RANKS = 2


class Simulation(Driving):
    """The schedules, the physics and the recorder of one run."""

    def __init__(
        self,
        *,
        scenario: Scenario,
        catalog: Catalog,
        profile: Profile,
        engine: Engine,
        log: Log,
        cluster: Cluster,
        header: Header,
        seed: int,
        span_steps: range,
        checked: bool = False,
    ) -> None:
        super().__init__(engine, log, ranks=cluster.tiers["nn_worker"].processes, checked=checked)
        self.cluster = cluster
        self.batch = batch_costs(scenario, profile)
        self.dense = dense_costs(scenario, catalog, profile)
        self._message_s = profile["worker.s_per_message"] * cluster.tiers["parameter_server"].processes
        self._snapshot_s = profile["server.snapshot_pause_s"]
        self._cpu_noise = Noise(stream(seed, "cpu"), scenario.simulation.step_noise_cv)
        self._jitter = Noise(stream(seed, "latency"), scenario.simulation.latency_jitter_sigma)
        ranks = cluster.tiers["nn_worker"].processes
        self._ranks_count = ranks
        self._loaders_count = cluster.tiers["loader"].processes
        self._workers_count = cluster.tiers["embedding_worker"].processes
        self.recorder = Recorder(ranks, self._busy, span_steps, _SPAN_RANKS)
        self.ranks = [RankSchedule(header.rank, rank) for rank in range(ranks)]
        self.workers = [WorkerSchedule(header.worker) for _ in range(self._workers_count)]
        self.loaders = [LoaderSchedule(loader_limits(header.loader, index)) for index in range(self._loaders_count)]
        self._wire: Wire = FifoWire(engine, cluster) if scenario.simulation.fidelity == "phase" else FlowWire(engine, cluster)
        self._physics = DensePhysics(
            engine=engine,
            cluster=cluster,
            wire=self._wire,
            costs=self.dense,
            reduction=header.rank.reduction,
            recorder=self.recorder,
            noise=Noise(stream(seed, "step"), scenario.simulation.step_noise_cv),
            tell=self._tell_rank,
        )
        self.servers: list[ServerSchedule] = []
        self._servers, server_hands = self._server_side(scenario, header, seed)
        self._lookup_since: dict[int, float] = {}
        self._push_since: dict[int, float] = {}
        rate = float("inf") if self.dense.host_link_s_per_byte == 0.0 else 1.0 / self.dense.host_link_s_per_byte
        self._to_device = [Link(rate) for _ in range(ranks)]
        self._from_device = [Link(rate) for _ in range(ranks)]
        self._wire_cache()
        self._hands = {**self._all_hands(), **server_hands}
        self._rank_processes = [Process("nn_worker", index, schedule) for index, schedule in enumerate(self.ranks)]
        self._worker_processes = [Process("embedding_worker", index, schedule) for index, schedule in enumerate(self.workers)]
        self._server_processes = [Process("parameter_server", index, schedule) for index, schedule in enumerate(self.servers)]
        self._loader_processes = [Process("loader", index, schedule) for index, schedule in enumerate(self.loaders)]
        self.on_step: Callable[[int], None] = lambda steps: None

    def _server_side(self, scenario: Scenario, header: Header, seed: int) -> tuple[ServerSide, dict[type[m.Word], Hand]]:
        """Return what carries out fan-outs at the scenario's fidelity, and the hands of the servers' own commands."""
        shares, engine, cluster = stream(seed, "shares"), self._engine, self.cluster
        if scenario.simulation.fidelity == "phase":
            self.servers_weight = cluster.tiers["parameter_server"].processes  # one recorded version stands for all servers
            phase = PhaseServers(
                engine=engine,
                cluster=cluster,
                costs=self.batch,
                gather=header.server.gather,
                recorder=self.recorder,
                shares=shares,
                jitter=self._jitter,
                tell=self._tell_worker,
            )
            if isinstance(self._wire, FifoWire):
                self._wire.fan_out_busy_s = phase.nic_busy_s
            return phase, {}
        self.servers_weight = 1
        self.servers = [ServerSchedule(header.server) for _ in range(cluster.tiers["parameter_server"].processes)]
        each = MessageServers(
            engine=engine,
            cluster=cluster,
            costs=self.batch,
            schedules=self.servers,
            wire=self._wire,
            recorder=self.recorder,
            shares=shares,
            jitter=self._jitter,
            losses=stream(seed, "losses"),
            loss=scenario.simulation.message_loss,
            timeout_s=scenario.schedule.request_timeout,
            tell_worker=self._tell_worker,
            tell_server=self._tell_server,
        )
        retries: dict[type[m.Word], Hand] = {
            m.RetryLookup: lambda worker, command: each.retry_lookup(worker, command.batch, command.server),
            m.RetryUpdate: lambda worker, command: each.retry_update(worker, command.batch, command.server),
        }
        return each, {**each.hands(), **retries}

    def _wire_cache(self) -> None:
        """Look latencies and factors up once: they are asked for at every message."""
        latency_s = self.cluster.latency_s
        self._loader_worker_s = latency_s("loader", "embedding_worker")
        self._loader_rank_s = latency_s("loader", "nn_worker")
        self._worker_rank_s = latency_s("embedding_worker", "nn_worker")
        worker, loader = self.cluster.tiers["embedding_worker"], self.cluster.tiers["loader"]
        self._worker_cpu = (self.cluster.slow["embedding_worker"] * worker.cpu_factor).tolist()
        self._loader_cpu = (self.cluster.slow["loader"] * loader.cpu_factor).tolist()

    def start(self) -> None:
        """Wake every loader: the first batches are read."""
        for loader in range(self._loaders_count):
            self._tell_loader(loader, m.Timer())

    # --- events into the schedules ----------------------------------------------------------------------------

    def _tell_loader(self, index: int, event: m.Event) -> None:
        self._tell(self._loader_processes[index], event)

    def _tell_worker(self, index: int, event: m.Event) -> None:
        self._tell(self._worker_processes[index], event)

    def _tell_server(self, index: int, event: m.Event) -> None:
        self._tell(self._server_processes[index], event)

    def _tell_rank(self, index: int, event: m.Event) -> None:
        if type(event) is m.DenseDone and self.recorder.batch_trained(self._engine.now_s):
            self.on_step(len(self.recorder.step_end_s))
        self._tell(self._rank_processes[index], event)

    # --- commands out of the schedules ------------------------------------------------------------------------

    def _all_hands(self) -> dict[type[m.Word], Hand]:
        return {
            m.ReadBatch: self._read_batch,
            m.SendBatch: self._send_batch,
            m.CommitOffset: self._nothing,
            m.Lookup: self._lookup,
            m.TrainDense: lambda rank, command: self._physics.train(rank, command.batch),
            m.ExchangeDense: lambda rank, command: self._physics.exchange(rank, command.batch),
            m.Push: self._push,
            m.EnterBarrier: self._enter_barrier,
            m.SaveCheckpoint: self._save_checkpoint,
            m.FanOutLookup: self._fan_out_lookup,
            m.ReplyRows: self._reply_rows,
            m.FanOutUpdate: self._fan_out_update,
            m.ReplyAck: self._reply_ack,
            m.GrantCredit: self._grant_credit,
            m.Expire: self._expire,
            m.CommitBatch: self._commit_batch,
        }

    def _nothing(self, index: int, command: m.Command) -> None:
        """A committed offset costs no simulated time."""

    def _read_batch(self, loader: int, command: m.ReadBatch) -> None:
        now_s = self._engine.now_s
        end_s = self.cluster.loader_cores[loader].serve(now_s, self.batch.loader_read_s * self._loader_cpu[loader])
        if command.batch in self.recorder.span_batches:
            self.recorder.span("loader", loader, "read", command.batch, end_s - self.batch.loader_read_s, end_s)
        self._engine.call_later(end_s - now_s, self._tell, self._loader_processes[loader], m.BatchRead(command.batch))

    def _send_batch(self, loader: int, command: m.SendBatch) -> None:
        now_s, batch = self._engine.now_s, self.batch
        features = m.FeaturesArrived(command.batch)
        self._send(
            ("loader", loader),
            ("embedding_worker", command.worker),
            now_s,
            batch.loader_worker_bytes,
            self._loader_worker_s,
            self._tell_worker,
            (command.worker, features),
        )
        rank, arrived = command.rank, m.BatchArrived(command.batch)
        if self.cluster.same_machine("loader", loader, "nn_worker", rank):
            self._engine.call_later(self.cluster.local_s(batch.loader_rank_bytes), self._tell_rank, rank, arrived)
            return
        size_bytes = batch.loader_rank_bytes
        self._send(("loader", loader), ("nn_worker", rank), now_s, size_bytes, self._loader_rank_s, self._tell_rank, (rank, arrived))

    def _send(
        self,
        source: tuple[str, int],
        target: tuple[str, int],
        at_s: float,
        size_bytes: float,
        latency_s: float,
        then: Callback,
        args: tuple[Any, ...],
    ) -> None:
        self._wire.send(source, target, at_s=at_s, size_bytes=size_bytes, latency_s=latency_s, then=then, args=args)

    def _lookup(self, rank: int, command: m.Lookup) -> None:
        batch = command.batch
        self.recorder.in_flight.append(len(self.ranks[rank].permits))
        self._lookup_since[batch] = self._engine.now_s
        delay_s = self.dense.command_s + self._worker_rank_s * self._jitter.factor()
        self._engine.call_later(delay_s, self._tell, self._worker_processes[batch % self._workers_count], m.LookupAsked(batch))

    def _fan_out_lookup(self, worker: int, command: m.FanOutLookup) -> None:
        self._on_worker(worker, command.batch, "dedup", self.batch.worker_dedup_s + self._message_s, self._servers.lookup)

    def _reply_rows(self, worker: int, command: m.ReplyRows) -> None:
        self._on_worker(worker, command.batch, "pool", self.batch.worker_pool_s + self._message_s, self._send_rows)

    def _fan_out_update(self, worker: int, command: m.FanOutUpdate) -> None:
        self._on_worker(worker, command.batch, "un-pool", self.batch.worker_unpool_s + 2.0 * self._message_s, self._servers.update)

    def _on_worker(self, worker: int, batch: int, name: str, service_s: float, then: Callable[[int, int], None]) -> None:
        """Hold one core of the worker, then go on with `then`."""
        now_s = self._engine.now_s
        service_s *= self._worker_cpu[worker] * self._cpu_noise.factor()
        end_s = self.cluster.worker_cores[worker].serve(now_s, service_s)
        if batch in self.recorder.span_batches:
            self.recorder.span("embedding_worker", worker, name, batch, end_s - service_s, end_s)
        self._engine.call_later(end_s - now_s, then, worker, batch)

    def _send_rows(self, worker: int, batch: int) -> None:
        rank = batch % self._ranks_count
        latency_s = self._worker_rank_s * self._jitter.factor()
        size_bytes = self.batch.worker_rank_bytes
        now_s = self._engine.now_s
        self._send(("embedding_worker", worker), ("nn_worker", rank), now_s, size_bytes, latency_s, self._rows_here, (rank, batch))

    def _rows_here(self, rank: int, batch: int) -> None:
        """The rows are in the rank's host memory: copy them to its device."""
        now_s = self._engine.now_s
        copied_s = self._to_device[rank].send(now_s, self.batch.worker_rank_bytes)
        self._engine.call_later(copied_s - now_s, self._looked_up, rank, batch)

    def _looked_up(self, rank: int, batch: int) -> None:
        sums, since_s = self.recorder.latency_sums, self._lookup_since.pop(batch, self._engine.now_s)
        sums[0] += self._engine.now_s - since_s
        sums[1] += 1.0
        if batch in self.recorder.span_batches:
            self.recorder.span("nn_worker", rank, "lookup", batch, since_s, self._engine.now_s)
        self._tell_rank(rank, m.LookedUp(batch))

    def _push(self, rank: int, command: m.Push) -> None:
        now_s, size_bytes, batch = self._engine.now_s, self.batch.worker_rank_bytes, command.batch
        worker = batch % self._workers_count
        self._push_since[batch] = now_s
        copied_s = self._from_device[rank].send(now_s + self.dense.command_s, size_bytes)
        latency_s = self._worker_rank_s * self._jitter.factor()
        arrived = m.GradientsArrived(batch)
        target = ("embedding_worker", worker)
        self._send(("nn_worker", rank), target, copied_s, size_bytes, latency_s, self._tell_worker, (worker, arrived))

    def _reply_ack(self, worker: int, command: m.ReplyAck) -> None:
        batch = command.batch
        self._engine.call_later(self._worker_rank_s * self._jitter.factor(), self._pushed, batch % self._ranks_count, batch)

    def _pushed(self, rank: int, batch: int) -> None:
        sums, since_s = self.recorder.latency_sums, self._push_since.pop(batch, self._engine.now_s)
        sums[2] += self._engine.now_s - since_s
        sums[3] += 1.0
        if batch in self.recorder.span_batches:
            self.recorder.span("nn_worker", rank, "push", batch, since_s, self._engine.now_s)
        self._tell_rank(rank, m.Pushed(batch))
        self._tell_loader(batch % self._loaders_count, m.BatchCommitted(batch))  # heard of at the same time, and never in a hurry

    def _enter_barrier(self, rank: int, command: m.EnterBarrier) -> None:
        self._physics.enter_barrier(command.step)

    def _save_checkpoint(self, rank: int, command: m.SaveCheckpoint) -> None:
        self._engine.call_later(self._snapshot_s, self._tell_rank, rank, m.CheckpointSaved(command.step))

    def _grant_credit(self, worker: int, command: m.GrantCredit) -> None:
        loader = command.batch % self._loaders_count
        self._engine.call_later(self._loader_worker_s, self._tell, self._loader_processes[loader], m.CreditGranted(command.batch))

    def _commit_batch(self, rank: int, command: m.CommitBatch) -> None:
        loader = command.batch % self._loaders_count
        self._engine.call_later(self._loader_rank_s, self._tell_loader, loader, m.BatchCommitted(command.batch))

    def _expire(self, worker: int, command: m.Expire) -> None:
        batch = command.batch
        self._engine.call_later(self._loader_worker_s, self._tell_loader, batch % self._loaders_count, m.BatchExpired(batch))
        for failed in (m.LookupFailed(batch), m.PushFailed(batch)):
            self._engine.call_later(self._worker_rank_s, self._tell_rank, batch % self._ranks_count, failed)

    # --- measuring --------------------------------------------------------------------------------------------

    def _busy(self) -> list[float]:
        """Return the busy seconds given out so far, in the order in which `utilisation` reads them."""
        cluster = self.cluster
        sums = [
            sum(cores.busy_s for cores in cluster.loader_cores),
            sum(cores.busy_s for cores in cluster.worker_cores),
            self._servers.busy_s,
            self._physics.busy_s,
            sum(link.busy_s for link in self._to_device),
            sum(link.busy_s for link in self._from_device),
            self._servers.lookups + self._servers.updates,
        ]
        for host in cluster.nics:
            sums += self._wire.busy_s(host)
        return sums
