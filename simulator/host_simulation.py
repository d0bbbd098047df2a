"""One run on a machine that runs every role for real: processes of threads that share its cores.

The schedules decide, as in `simulation`; here each process is what the runtime's is: a thread that hears messages one
after another and carries out what the schedule says of each, a thread that moves bytes, and in a rank one that trains.
A message takes processor time at both ends, then the receiver's attention.  Costs come from a profile that `persia
calibrate` has measured on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from persia.scenario import Catalog, Profile, Scenario
from persia.schedule import messages as m
from persia.schedule.loader import LoaderSchedule
from persia.schedule.log import Header, Log, loader_limits
from persia.schedule.modes import Reduction
from persia.schedule.rank import RankSchedule
from persia.schedule.server import ServerSchedule
from persia.schedule.staleness import VersionStaleness
from persia.schedule.worker import WorkerSchedule
from simulator.core import Job, Thread
from simulator.costs import batch_costs, dense_costs
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.host_emulated import EmulatedRanks
from simulator.host_jobs import JobCosts, job_costs
from simulator.host_process import HostDriving, HostProcess, Then, ends_there, limited_links
from simulator.host_ring import Ring
from simulator.processor import Processor
from simulator.recorder import Recorder
from simulator.server_side import DRAWS, spread
from simulator.streams import Noise, stream

_SPAN_RANKS = 2


class HostSimulation(HostDriving):
    """The schedules, the threads and the recorder of one run on one machine."""

    servers_weight = 1

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
        super().__init__(engine, log, ranks=header.rank.world_size, checked=checked)
        self.cluster = cluster
        self.batch = batch_costs(scenario, profile)
        self.dense = dense_costs(scenario, catalog, profile)
        self.costs: JobCosts = job_costs(scenario, profile)
        self._noise = Noise(stream(seed, "cpu"), self.costs.noise_cv)
        self._reduction = header.rank.reduction
        c = self.costs
        self._processor = Processor(engine, c.cores, wake_s=c.wake_s, moves_on_wake=c.moves_on_wake)
        counts = {name: cluster.tiers[name].processes for name in ("loader", "embedding_worker", "parameter_server", "nn_worker")}
        self._loaders = self._processes(
            "loader", [LoaderSchedule(loader_limits(header.loader, i)) for i in range(counts["loader"])], scenario
        )
        self._workers = self._processes(
            "embedding_worker", [WorkerSchedule(header.worker) for _ in range(counts["embedding_worker"])], scenario
        )
        self._servers = self._processes(
            "parameter_server", [ServerSchedule(header.server) for _ in range(counts["parameter_server"])], scenario
        )
        self.ranks = [RankSchedule(header.rank, rank) for rank in range(counts["nn_worker"])]
        self._ranks = self._processes("nn_worker", self.ranks, scenario)
        self.recorder = Recorder(len(self._ranks), self._busy, span_steps, _SPAN_RANKS)
        self._share = (spread(stream(seed, "shares"), self.batch.unique, len(self._servers), DRAWS) * len(self._servers)).tolist()
        self._staleness = [VersionStaleness() for _ in self._servers]
        self._gather = header.server.gather
        self._links = limited_links(scenario)
        reduces = self._reduction is not Reduction.NONE and len(self._ranks) > 1
        self._ring = Ring(self, self._ranks, c.reduce_s, self._finish_training) if reduces else None
        self._at_barrier = 0
        self._exchanged: dict[int, int] = {}  # batch -> servers that have answered
        self._emulated = self._emulated_ranks()
        self._last_done_s = [0.0] * len(self._ranks)
        self._since_s: dict[tuple[str, int], float] = {}
        self._updates = 0
        self._made: list[Job] = []
        self._hands = self._all_hands()
        self.on_step: Callable[[int], None] = lambda steps: None

    def _processes(self, role: str, schedules: Sequence[Any], scenario: Scenario) -> list[HostProcess]:
        quota = scenario.tier(role).cpu_quota
        made = []
        for index, schedule in enumerate(schedules):
            group = self._processor.group() if quota is None else self._processor.group(quota)
            made.append(HostProcess(role, index, schedule, group, self.costs))
        return made

    def _emulated_ranks(self) -> EmulatedRanks | None:
        if self.dense.emulated is None:
            return None
        step_s = self.dense.step_s(self._reduction, len(self._ranks))
        return EmulatedRanks(self, self._ranks, step_s, meets=self._reduction is not Reduction.NONE, done=self._trained)

    def start(self) -> None:
        """Wake every loader: the first batches are read."""
        for loader in self._loaders:
            self._tell(loader, m.Timer())

    # --- commands out of the schedules ------------------------------------------------------------------------

    def _all_hands(self) -> dict[type[m.Word], Callable[[int, Any], None]]:
        return {
            m.ReadBatch: self._read_batch,
            m.SendBatch: self._send_batch,
            m.CommitOffset: self._nothing,
            m.Lookup: self._lookup,
            m.TrainDense: self._train,
            m.ExchangeDense: self._exchange,
            m.Push: self._push,
            m.EnterBarrier: self._enter_barrier,
            m.SaveCheckpoint: self._save_checkpoint,
            m.CommitBatch: lambda rank, command: self._commit(self._ranks[rank], command.batch),
            m.FanOutLookup: self._fan_out_lookup,
            m.ReplyRows: self._reply_rows,
            m.FanOutUpdate: self._fan_out_update,
            m.ReplyAck: self._reply_ack,
            m.GrantCredit: self._grant_credit,
            m.ServeLookup: self._serve_lookup,
            m.ApplyUpdate: lambda server, command: self._apply(server, (command.batch,)),
            m.ApplyStep: lambda server, command: self._apply(
                server, tuple(range(command.step * self._gather, (command.step + 1) * self._gather))
            ),
            m.Acknowledge: self._acknowledge,
        }

    def _nothing(self, index: int, command: m.Command) -> None:
        """A committed offset is part of what a loader does for a batch."""

    # --- loader -----------------------------------------------------------------------------------------------

    def _read_batch(self, index: int, command: m.ReadBatch) -> None:
        loader = self._loaders[index]
        self._do(loader, self.costs.read_s, self._tell, loader, m.BatchRead(command.batch))

    def _send_batch(self, index: int, command: m.SendBatch) -> None:
        c, loader, batch = self.costs, self._loaders[index], command.batch
        worker, rank = self._workers[command.worker], self._ranks[command.rank]
        self.send(loader, worker, c.features_bytes, c.send_features_s, c.take_features_s, self._tell, worker, m.FeaturesArrived(batch))
        self.send(loader, rank, c.samples_bytes, c.send_samples_s, c.take_samples_s, self._tell, rank, m.BatchArrived(batch))

    # --- embedding worker -------------------------------------------------------------------------------------

    def _fan_out_lookup(self, index: int, command: m.FanOutLookup) -> None:
        c, worker, batch = self.costs, self._workers[index], command.batch
        self._do_stage(worker, "dedup", batch, c.dedup_s, ends_there)
        for server in self._servers:
            self.send(worker, server, c.keys_bytes, c.ask_s, c.request_s, self._tell, server, m.LookupQueued(batch))

    def _reply_rows(self, index: int, command: m.ReplyRows) -> None:
        c, worker, batch = self.costs, self._workers[index], command.batch
        rank = self._ranks[batch % len(self._ranks)]
        self._do_stage(worker, "pool", batch, c.pool_s, ends_there)
        self.send(worker, rank, c.pooled_bytes, c.send_pooled_s, c.take_pooled_s, self._looked_up, rank, batch)

    def _fan_out_update(self, index: int, command: m.FanOutUpdate) -> None:
        c, worker, batch = self.costs, self._workers[index], command.batch
        self._do_stage(worker, "un-pool", batch, c.unpool_s, ends_there)
        for server in self._servers:
            self.send(
                worker, server, c.keys_bytes + c.rows_bytes, c.send_update_s, c.request_update_s, self._tell, server, m.UpdateQueued(batch)
            )

    def _reply_ack(self, index: int, command: m.ReplyAck) -> None:
        c, worker, batch = self.costs, self._workers[index], command.batch
        rank = self._ranks[batch % len(self._ranks)]
        self.send(worker, rank, 0.0, c.worker_message_s, c.rank_message_s, self._pushed, rank, batch)

    def _grant_credit(self, index: int, command: m.GrantCredit) -> None:
        c, loader = self.costs, self._loaders[command.batch % len(self._loaders)]
        self.send(
            self._workers[index], loader, 0.0, c.worker_message_s, c.loader_message_s, self._tell, loader, m.CreditGranted(command.batch)
        )

    # --- parameter server -------------------------------------------------------------------------------------

    def _serve_lookup(self, index: int, command: m.ServeLookup) -> None:
        server, batch = self._servers[index], command.batch
        self._staleness[index].looked_up(batch, server.schedule.version)
        self._serve(server, "lookup", batch, self.costs.lookup_s * self._share[batch % DRAWS][index], self._served, index, batch)

    def _serve(self, server: HostProcess, name: str, batch: int, work_s: float, then: Then, *args: Any) -> None:
        """Work on the tables: on the process's own thread, or with more service slots on one beside it."""
        if server.schedule.limits.service_slots == 1:
            self._do_stage(server, name, batch, work_s, then, *args)
        else:
            self.run(Thread(server.main.group, server.main.slowdown), work_s, self.report, server, then, args)

    def _do_stage(self, process: HostProcess, name: str, batch: int, work_s: float, then: Then, *args: Any) -> None:
        """Let the process's own thread do a stage of a batch, and keep its span where spans are kept."""
        slowdown = self.costs.slowdown.get(name)
        if batch not in self.recorder.span_batches:
            self._do(process, work_s, then, *args, slowdown=slowdown)
            return
        began_s: list[float] = []

        def over() -> None:
            self.recorder.span(process.role, process.index, name, batch, began_s[0], self._engine.now_s)
            then(*args)

        self._do(process, 0.0, lambda: began_s.append(self._engine.now_s))
        self._do(process, work_s, over, slowdown=slowdown)

    def _served(self, index: int, batch: int) -> None:
        c, server = self.costs, self._servers[index]
        worker = self._workers[batch % len(self._workers)]
        self._tell(server, m.LookupServed(batch))
        job = self._work(
            c.reply_s,
            self._transfer,
            server,
            worker,
            c.rows_bytes,
            c.take_rows_s,
            self._tell,
            (worker, m.RowsArrived(batch, index)),
        )
        self._processor.run_next(server.main, [job])

    def _apply(self, index: int, batches: tuple[int, ...]) -> None:
        server = self._servers[index]
        work_s = sum(self.costs.update_s * self._share[batch % DRAWS][index] for batch in batches)
        if len(batches) > 1:
            work_s = work_s / len(batches) * self.costs.distinct_in_step + self.costs.gather_s * len(batches)
        self._serve(server, "update", batches[0], work_s, self._applied, index, batches)

    def _applied(self, index: int, batches: tuple[int, ...]) -> None:
        server = self._servers[index]
        for batch in batches:
            version = self._staleness[index].updated(batch, server.schedule.version)
            assert version is not None  # no simulated server forgets a lookup
            self.recorder.version.append(version)
            self._updates += 1
        for batch in batches:
            self._tell(server, m.UpdateApplied(batch))

    def _acknowledge(self, index: int, command: m.Acknowledge) -> None:
        c, worker = self.costs, self._workers[command.batch % len(self._workers)]
        self.send(
            self._servers[index], worker, 0.0, c.reply_update_s, c.take_ack_s, self._tell, worker, m.UpdateAcked(command.batch, index)
        )

    # --- NN worker --------------------------------------------------------------------------------------------

    def _lookup(self, index: int, command: m.Lookup) -> None:
        c, rank, batch = self.costs, self._ranks[index], command.batch
        self.recorder.in_flight.append(len(self.ranks[index].permits))
        self._since_s["lookup", batch] = self._engine.now_s
        worker = self._workers[batch % len(self._workers)]
        self.send(rank, worker, 0.0, c.rank_message_s, c.worker_message_s, self._tell, worker, m.LookupAsked(batch))

    def _looked_up(self, rank: HostProcess, batch: int) -> None:
        self._end_span("lookup", 0, rank, batch)
        self._tell(rank, m.LookedUp(batch))

    def _end_span(self, name: str, place: int, rank: HostProcess, batch: int) -> None:
        now_s = self._engine.now_s
        since_s = self._since_s.pop((name, batch), now_s)
        sums = self.recorder.latency_sums
        sums[place] += now_s - since_s
        sums[place + 1] += 1.0
        if batch in self.recorder.span_batches:
            self.recorder.span("nn_worker", rank.index, name, batch, since_s, now_s)

    def _train(self, index: int, command: m.TrainDense) -> None:
        rank, now_s = self._ranks[index], self._engine.now_s
        self.recorder.parts[0] += now_s - self._last_done_s[index]
        if self._emulated is not None:
            self._emulated.begin(index, command.batch, now_s)
            return
        then = self._finish_training if self._ring is None else self._ring.join
        self.run(rank.beside, self.costs.train_s, then, index, command.batch, now_s)

    def _finish_training(self, index: int, batch: int, since_s: float) -> None:
        rank = self._ranks[index]
        job = self._work(self.costs.optimizer_s, self.report, rank, self._trained, (index, batch, since_s))
        self._processor.run_next(rank.beside, [job])

    def _trained(self, index: int, batch: int, since_s: float) -> None:
        rank, now_s = self._ranks[index], self._engine.now_s
        self.recorder.parts[2] += now_s - since_s
        self._last_done_s[index] = now_s
        if batch in self.recorder.span_batches:
            self.recorder.span("nn_worker", index, "train", batch, since_s, now_s)
        if self.recorder.batch_trained(now_s):
            self.on_step(len(self.recorder.step_end_s))
        self._tell(rank, m.DenseDone(batch))

    def _push(self, index: int, command: m.Push) -> None:
        c, rank, batch = self.costs, self._ranks[index], command.batch
        self._since_s["push", batch] = self._engine.now_s
        worker = self._workers[batch % len(self._workers)]
        self.send(rank, worker, c.pooled_bytes, c.send_gradients_s, c.take_gradients_s, self._tell, worker, m.GradientsArrived(batch))

    def _pushed(self, rank: HostProcess, batch: int) -> None:
        self._end_span("push", 2, rank, batch)
        self._tell(rank, m.Pushed(batch))
        outer, self._made = self._made, []
        self._commit(rank, batch)
        made, self._made = self._made, outer
        self._processor.run_next(rank.main, made)

    def _commit(self, rank: HostProcess, batch: int) -> None:
        c, loader = self.costs, self._loaders[batch % len(self._loaders)]
        self.send(rank, loader, 0.0, c.rank_message_s, c.loader_message_s, self._tell, loader, m.BatchCommitted(batch))

    def _exchange(self, index: int, command: m.ExchangeDense) -> None:
        """Send every server its slice of the dense gradient; each applies it at once and answers with fresh parameters."""
        c, rank, batch = self.costs, self._ranks[index], command.batch
        self._exchanged[batch] = 0
        for server in self._servers:
            self.send(rank, server, c.slice_bytes, c.exchange_s, c.dense_update_s, self._dense_updated, index, server, batch)

    def _dense_updated(self, index: int, server: HostProcess, batch: int) -> None:
        c, rank = self.costs, self._ranks[index]
        self._transfer(server, rank, c.slice_bytes, c.exchange_s, self._parameters_here, (index, batch))

    def _parameters_here(self, index: int, batch: int) -> None:
        self._exchanged[batch] += 1
        if self._exchanged[batch] == len(self._servers):
            del self._exchanged[batch]
            self._tell(self._ranks[index], m.DenseExchanged(batch))

    def _enter_barrier(self, index: int, command: m.EnterBarrier) -> None:
        """Rank 0 counts; the last one lets all go on."""
        c, first, step = self.costs, self._ranks[0], command.step
        if index == 0:
            self._do(first, 0.0, self._entered, step)
        else:
            self.send(self._ranks[index], first, 0.0, c.meeting_message_s, c.meeting_message_s, self._entered, step)

    def _entered(self, step: int) -> None:
        self._at_barrier += 1
        if self._at_barrier < len(self._ranks):
            return
        self._at_barrier = 0
        first, message_s = self._ranks[0], self.costs.meeting_message_s
        jobs = [
            self._work(message_s, self._transfer, first, rank, 0.0, message_s, self._tell, (rank, m.BarrierPassed(step)))
            for rank in self._ranks[1:]
        ]
        self._processor.run_next(first.main, [*jobs, self._work(0.0, self._tell, first, m.BarrierPassed(step))])

    def _save_checkpoint(self, index: int, command: m.SaveCheckpoint) -> None:
        self._engine.call_later(self.costs.snapshot_s, self._tell, self._ranks[index], m.CheckpointSaved(command.step))

    # --- measuring --------------------------------------------------------------------------------------------

    def _busy(self) -> list[float]:
        """Return the processor seconds used so far, in the order in which `utilisation` reads them."""
        used = [sum(p.main.busy_s + p.io.busy_s + p.beside.busy_s for p in tier) for tier in (self._loaders, self._workers, self._servers)]
        dense = sum(rank.beside.busy_s for rank in self._ranks)
        return [*used, dense, 0.0, 0.0, float(self._updates), *[0.0] * (2 * len(self.cluster.nics))]

    def beside(self) -> dict[str, float]:
        """Return for each stage which part of its work was done beside busy cores, 0..1."""
        tiers = {"loader": self._loaders, "worker rest": self._workers, "server": self._servers, "rank rest": self._ranks}
        threads = {stage: [process.main for process in processes] for stage, processes in tiers.items()}
        threads |= dict.fromkeys(("dedup", "pool", "un-pool"), threads["worker rest"])
        threads |= {"train": [rank.beside for rank in self._ranks], "io": [each.io for processes in tiers.values() for each in processes]}
        return {stage: sum(each.beside_s for each in of) / max(1e-300, sum(each.busy_s for each in of)) for stage, of in threads.items()}

    def sleeps(self) -> dict[str, float]:
        """Return for each role how often a batch's own threads of its processes slept."""
        batches = max(1, len(self.recorder.step_end_s) * len(self._ranks))
        tiers = (self._loaders, self._workers, self._servers, self._ranks)
        return {tier[0].role: sum(process.sleeps for process in tier) / batches for tier in tiers}
