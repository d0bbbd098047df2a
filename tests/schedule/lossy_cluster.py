"""A small cluster of all four schedules in plain Python, over a network that loses, repeats, delays and reorders.

Deterministic: one seed gives one run.  What the schedules cannot know is kept here and checked as it happens: the tables
of the servers (which batch is applied how often), the versions, the steps of the collectives, the barriers.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from persia.schedule import messages as m
from persia.schedule.invariants import CollectiveOrder, broken_laws
from persia.schedule.log import Entry, Header, Schedule, new_schedule, restarted
from persia.schedule.modes import LoaderLimits, Mode, Reduction, ServerLimits, WorkerLimits, rank_limits, server_gather

RANKS = 2
WORKERS = 2
REQUEST_TIMEOUT_S = 2.0
EXPIRY_S = 20.0
EVENTS_MAX = 20_000

RANK, WORKER, SERVER, LOADER = "nn_worker", "embedding_worker", "parameter_server", "loader"


def header_of(mode: Mode, *, servers: int, loaders: int, permits: int, checkpoint_every: int, steps: int) -> Header:
    """Return the limits of every role: narrow, so that every limit is reached."""
    return Header(
        rank=rank_limits(
            mode,
            world_size=RANKS,
            staleness_permits=permits,
            lookups_max=2,
            prefetch_max=2,
            pushes_max=2,
            checkpoint_every_steps=checkpoint_every,
            retry_s=0.05,
        ),
        worker=WorkerLimits(servers=servers, buffer_max=3, fan_outs_max=1, expiry_s=EXPIRY_S, remember_max=50, retry_s=0.05),
        server=ServerLimits(world_size=RANKS, service_slots=2, gather=server_gather(mode, RANKS), remember_max=50),
        loader=LoaderLimits(
            loader=0,
            loaders=loaders,
            world_size=RANKS,
            workers=WORKERS,
            read_ahead_max=2,
            input_queue_max=2,
            stop_batch=steps * RANKS,
            commit_every=2,
        ),
    )


class LossyCluster:
    """Every process of the cluster, the messages between them, and what must be true of the whole."""

    def __init__(self, header: Header, mode: Mode, seed: int) -> None:
        self.header = header
        self.mode = mode
        self.now_s = 0.0
        self.loss = 0.0  # share of the messages that are lost
        self.double = 0.0  # share of those that arrive twice
        self.slow: set[int] = set()  # servers that take seconds
        self.dead: set[int] = set()
        self.log: list[Entry] = []
        self.servers = header.worker.servers
        self.batches = range(header.loader.stop_batch or 0)
        self.tables: list[Counter[int]] = [Counter() for _ in range(self.servers)]
        self.trained: dict[int, list[int]] = defaultdict(list)
        self.steps_applied: Counter[tuple[int, int]] = Counter()
        self.saved: dict[int, list[int]] = defaultdict(list)
        self.exchanged = [-1] * RANKS
        self._versions = [0] * self.servers
        self._version_at: dict[tuple[int, int], int] = {}
        self._random = Random(seed)
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = count()
        self._lives: Counter[tuple[str, int]] = Counter()
        self._wakes: dict[tuple[str, int], float] = {}
        self._tries: Counter[Any] = Counter()
        self._answered: dict[Any, int] = {}
        self._started: dict[int, set[int]] = defaultdict(set)
        self._order = CollectiveOrder(RANKS)
        self._joined: list[int] = []
        self._exchanging: dict[int, int] = {}
        self._at_barrier: dict[int, set[int]] = defaultdict(set)
        self._saving: dict[int, set[int]] = defaultdict(set)
        self._cut: dict[int, set[int]] = defaultdict(set)
        self._offsets: dict[int, int] = {}
        self._hands: dict[type[m.Word], Callable[[int, Any], None]] = self._all_hands()
        counts = {LOADER: header.loader.loaders, WORKER: WORKERS, SERVER: self.servers, RANK: RANKS}
        self.schedules: dict[tuple[str, int], Schedule] = {
            (role, index): new_schedule(header, role, index) for role, number in counts.items() for index in range(number)
        }
        for loader in range(header.loader.loaders):
            self.tell(LOADER, loader, m.Timer())

    # --- the engine and the network ---------------------------------------------------------------------------

    def run(self, events_max: int) -> bool:
        """Run so many events at most; return whether nothing is left to happen."""
        for _ in range(events_max):
            if not self._heap:
                return True
            self.now_s, _, act, arguments = heapq.heappop(self._heap)
            act(*arguments)
        return not self._heap

    def _later(self, delay_s: float, act: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._serial), act, arguments))

    def _send(self, role: str, index: int, event: m.Event, *, can_be_lost: bool = True) -> bool:
        """Put a message on the wire; return whether it will arrive."""
        if can_be_lost and self._random.random() < self.loss:
            return False
        for _ in range(1 + (self._random.random() < self.double)):
            self._later(self._random.expovariate(20.0), self._deliver, role, index, event)
        return True

    def _deliver(self, role: str, index: int, event: m.Event) -> None:
        if role == SERVER and index in self.dead:
            return
        match event:
            case m.LookedUp(batch) | m.Pushed(batch):
                self._answered[type(event), batch] = self._tries[type(event), batch]
            case m.RowsArrived(batch, server) | m.UpdateAcked(batch, server):
                self._answered[type(event), batch, server] = self._tries[type(event), batch, server]
        self.tell(role, index, event)
        if isinstance(event, m.Pushed):
            self._commit(index, event)

    def tell(self, role: str, index: int, event: m.Event) -> None:
        """Give one event to a schedule, check it, carry out what it decides, and wake it when it wants to be."""
        schedule = self.schedules[role, index]
        commands = schedule.handle(event, self.now_s)
        self.log.append(Entry(time_s=self.now_s, role=role, index=index, event=event, commands=tuple(commands)))
        assert broken_laws(schedule) == []
        if role == RANK:
            assert self._order.broken_laws(index, commands) == []
        for command in commands:
            self._hands[type(command)](index, command)
        due_s = schedule.next_timer_s()
        if due_s is not None and due_s < self._wakes.get((role, index), float("inf")):
            assert due_s > self.now_s, "what is due is done at once"
            self._wakes[role, index] = due_s
            self._later(due_s - self.now_s, self._wake, role, index)

    def _wake(self, role: str, index: int) -> None:
        if self.now_s >= self._wakes.get((role, index), float("inf")):
            del self._wakes[role, index]
            self.tell(role, index, m.Timer())

    def _ask(self, answer: tuple[Any, ...], failed: m.Event, role: str, index: int, *send: Any) -> None:
        """Send a request; where its answer is late, declare it lost (the answer may still come)."""
        self._tries[answer] += 1
        self._send(*send)
        self._later(REQUEST_TIMEOUT_S, self._time_out, answer, self._tries[answer], failed, role, index)

    def _time_out(self, answer: tuple[Any, ...], attempt: int, failed: m.Event, role: str, index: int) -> None:
        if self._answered.get(answer, 0) < attempt == self._tries[answer]:
            self.tell(role, index, failed)

    def _while_alive(self, role: str, index: int, delay_s: float, act: Callable[..., None], *arguments: Any) -> None:
        """Do something inside a process later, unless it dies before."""
        life = self._lives[role, index]
        self._later(delay_s, lambda: act(*arguments) if self._lives[role, index] == life else None)

    # --- weather ----------------------------------------------------------------------------------------------

    def kill_server(self, server: int) -> None:
        """The server dies: what it was doing is not done, and requests to it are lost until it is revived."""
        self.dead.add(server)
        self._lives[SERVER, server] += 1

    def revive_server(self, server: int) -> None:
        """The server comes back with its table; snapshots that it still owes are asked for again."""
        if server not in self.dead:
            return
        self.dead.remove(server)
        self._restart(SERVER, server, 0)
        for step in sorted(self._saving):
            if self._saving[step] and server not in self._cut[step]:
                self._send(SERVER, server, m.SnapshotAsked(step), can_be_lost=False)

    def restart_worker(self, worker: int) -> None:
        """The worker comes back empty; sooner or later each loader hears of it."""
        self._restart(WORKER, worker, 0)
        for loader in range(self.header.loader.loaders):
            self._later(self._random.uniform(0.0, 5.0), self._tell_worker_restarted, loader, worker)

    def _tell_worker_restarted(self, loader: int, worker: int) -> None:
        for batch in sorted(self.schedules[LOADER, loader].sent):  # type: ignore[attr-defined]
            if batch % WORKERS == worker:
                self.tell(LOADER, loader, m.BatchExpired(batch))

    def restart_loader(self, loader: int) -> None:
        """The loader comes back and continues from the last offset that it committed."""
        self._lives[LOADER, loader] += 1
        self._restart(LOADER, loader, self._offsets.get(loader, 0))

    def _restart(self, role: str, index: int, batch: int) -> None:
        event = m.Restarted(batch)
        self._wakes.pop((role, index), None)
        self.schedules[role, index] = restarted(self.header, role, index, event, self.schedules[role, index])
        self.tell(role, index, event)

    def calm(self) -> None:
        """From now on nothing is lost, dead or slow."""
        self.loss = self.double = 0.0
        self.slow.clear()
        for server in sorted(self.dead):
            self.revive_server(server)

    # --- ranks ------------------------------------------------------------------------------------------------

    def _all_hands(self) -> dict[type[m.Word], Callable[[int, Any], None]]:
        return {
            m.Lookup: self._lookup,
            m.TrainDense: self._train,
            m.Push: self._push,
            m.ExchangeDense: self._exchange,
            m.EnterBarrier: self._enter_barrier,
            m.SaveCheckpoint: self._save,
            m.CommitBatch: self._commit,
            m.FanOutLookup: lambda w, c: [self._ask_server(w, c.batch, s, is_update=False) for s in range(self.servers)],
            m.FanOutUpdate: lambda w, c: [self._ask_server(w, c.batch, s, is_update=True) for s in range(self.servers)],
            m.RetryLookup: lambda w, c: self._ask_server(w, c.batch, c.server, is_update=False),
            m.RetryUpdate: lambda w, c: self._ask_server(w, c.batch, c.server, is_update=True),
            m.ReplyRows: lambda w, c: self._send(RANK, c.batch % RANKS, m.LookedUp(c.batch)),
            m.ReplyAck: self._reply_ack,
            m.GrantCredit: lambda w, c: self._send(LOADER, self._loader_of(c.batch), m.CreditGranted(c.batch)),
            m.Expire: self._expire,
            m.ServeLookup: self._serve_lookup,
            m.ApplyUpdate: lambda s, c: self._while_alive(SERVER, s, self._service_s(s), self._applied, s, [c.batch]),
            m.ApplyStep: self._apply_step,
            m.Acknowledge: lambda s, c: self._send(WORKER, c.batch % WORKERS, m.UpdateAcked(c.batch, s)),
            m.CutSnapshot: self._cut_snapshot,
            m.ReadBatch: lambda i, c: self._while_alive(LOADER, i, self._random.random(), self.tell, LOADER, i, m.BatchRead(c.batch)),
            m.SendBatch: self._send_batch,
            m.CommitOffset: self._commit_offset,
        }

    def _loader_of(self, batch: int) -> int:
        return batch % self.header.loader.loaders

    def _is_applied(self, batch: int) -> bool:
        return all(table[batch] for table in self.tables)

    def _lookup(self, rank: int, command: m.Lookup) -> None:
        batch = command.batch
        self._started[rank].add(batch)
        in_flight = [other for other in self._started[rank] if not self._is_applied(other)]
        assert len(in_flight) <= self.header.rank.staleness_permits, "permits bound what is in flight"
        self._ask((m.LookedUp, batch), m.LookupFailed(batch), RANK, rank, WORKER, batch % WORKERS, m.LookupAsked(batch))

    def _push(self, rank: int, command: m.Push) -> None:
        batch = command.batch
        assert batch in self.trained[rank]
        self._ask((m.Pushed, batch), m.PushFailed(batch), RANK, rank, WORKER, batch % WORKERS, m.GradientsArrived(batch))

    def _train(self, rank: int, command: m.TrainDense) -> None:
        """A reduction ends when the last rank has joined it; without one a rank trains alone."""
        self.trained[rank].append(command.batch)
        self._joined.append(command.batch)
        if self.header.rank.reduction is not Reduction.NONE:
            assert len({batch // RANKS for batch in self._joined}) == 1, "one collective at a time"
            if len(self._joined) < RANKS:
                return
        for batch in self._joined:
            self._later(self._random.random(), self.tell, RANK, batch % RANKS, m.DenseDone(batch))
        self._joined = []

    def _exchange(self, rank: int, command: m.ExchangeDense) -> None:
        assert self.mode is Mode.ASYNC
        assert rank not in self._exchanging, "one exchange at a time"
        self._exchanging[rank] = command.batch
        self._later(self._random.random() * 3.0, self._dense_exchanged, rank, command.batch)

    def _dense_exchanged(self, rank: int, batch: int) -> None:
        del self._exchanging[rank]
        self.exchanged[rank] = batch
        for _ in range(2):
            self.tell(RANK, rank, m.DenseExchanged(batch))

    def _enter_barrier(self, rank: int, command: m.EnterBarrier) -> None:
        step = command.step
        own = range(rank, (step + 1) * RANKS, RANKS)
        assert all(self._is_applied(batch) for batch in own), "all before the barrier is applied"
        assert self._started[rank] == set(own), "nothing behind the barrier has begun"
        assert rank not in self._at_barrier[step], "entered once"
        self._at_barrier[step].add(rank)
        if len(self._at_barrier[step]) == RANKS:
            for other in range(RANKS):
                self._send(RANK, other, m.BarrierPassed(step), can_be_lost=False)

    def _save(self, rank: int, command: m.SaveCheckpoint) -> None:
        """Every rank asks every server that has not cut this step yet."""
        step = command.step
        assert len(self._at_barrier[step]) == RANKS, "behind its barrier"
        self._saving[step].add(rank)
        for server in range(self.servers):
            if server not in self._cut[step] and server not in self.dead:
                self._send(SERVER, server, m.SnapshotAsked(step), can_be_lost=False)
        self._end_save(step)

    def _end_save(self, step: int) -> None:
        if len(self._cut[step]) == self.servers:
            for rank in sorted(self._saving[step]):
                self.saved[rank].append(step)
                self._send(RANK, rank, m.CheckpointSaved(step), can_be_lost=False)
            self._saving[step].clear()

    # --- workers, servers, loaders ----------------------------------------------------------------------------

    def _ask_server(self, worker: int, batch: int, server: int, *, is_update: bool) -> None:
        answer = (m.UpdateAcked if is_update else m.RowsArrived, batch, server)
        request = m.UpdateQueued(batch) if is_update else m.LookupQueued(batch)
        self._ask(answer, m.ServerFailed(batch, server), WORKER, worker, SERVER, server, request)

    def _reply_ack(self, worker: int, command: m.ReplyAck) -> None:
        assert self._is_applied(command.batch), "acknowledged once every server has applied it"
        self._send(RANK, command.batch % RANKS, m.Pushed(command.batch))

    def _expire(self, worker: int, command: m.Expire) -> None:
        batch = command.batch
        self._send(LOADER, self._loader_of(batch), m.BatchExpired(batch), can_be_lost=False)
        self._send(RANK, batch % RANKS, m.LookupFailed(batch))
        self._send(RANK, batch % RANKS, m.PushFailed(batch))

    def _service_s(self, server: int) -> float:
        return self._random.random() * (8.0 if server in self.slow else 0.2)

    def _serve_lookup(self, server: int, command: m.ServeLookup) -> None:
        self._version_at[command.batch, server] = self._versions[server]
        self._while_alive(SERVER, server, self._service_s(server), self._served, server, command.batch)

    def _served(self, server: int, batch: int) -> None:
        self._send(WORKER, batch % WORKERS, m.RowsArrived(batch, server))
        self.tell(SERVER, server, m.LookupServed(batch))

    def _apply_step(self, server: int, command: m.ApplyStep) -> None:
        assert self.mode is Mode.SYNC
        group = [command.step * RANKS + rank for rank in range(RANKS)]
        assert all(batch in self.trained[batch % RANKS] for batch in group), "with the gradients of every rank"
        self.steps_applied[server, command.step] += 1
        self._while_alive(SERVER, server, self._service_s(server), self._applied, server, group)

    def _applied(self, server: int, batches: list[int]) -> None:
        """The optimizer has run: the table holds the batches, whatever happens to the process from now on."""
        for batch in batches:
            self.tables[server][batch] += 1
            assert self.tables[server][batch] == 1, "an update is applied once"
            if self.mode is Mode.SYNC:
                assert self._version_at[batch, server] == self._versions[server], "version staleness is 0"
        self._versions[server] += 1
        for batch in batches:
            self.tell(SERVER, server, m.UpdateApplied(batch))

    def _cut_snapshot(self, server: int, command: m.CutSnapshot) -> None:
        whole = set(range((command.step + 1) * RANKS))
        assert set(self.tables[server]) == whole, "a snapshot holds every batch up to its step and no other"
        self._while_alive(SERVER, server, self._service_s(server), self._snapshot_cut, server, command.step)

    def _snapshot_cut(self, server: int, step: int) -> None:
        self._cut[step].add(server)
        self._end_save(step)
        self.tell(SERVER, server, m.SnapshotCut(step))

    def _send_batch(self, loader: int, command: m.SendBatch) -> None:
        """Features may be lost without a sound; that the rank did not take its part, the loader is told sooner or later."""
        self._send(WORKER, command.worker, m.FeaturesArrived(command.batch))
        if not self._send(RANK, command.rank, m.BatchArrived(command.batch)):
            self._while_alive(LOADER, loader, 5.0 * self._random.random(), self.tell, LOADER, loader, m.BatchExpired(command.batch))

    def _commit(self, rank: int, event: m.Pushed | m.CommitBatch) -> None:
        self._send(LOADER, self._loader_of(event.batch), m.BatchCommitted(event.batch), can_be_lost=False)

    def _commit_offset(self, loader: int, command: m.CommitOffset) -> None:
        own = range(loader, command.batch, self.header.loader.loaders)
        assert all(self._is_applied(batch) for batch in own), "a restart from here loses nothing"
        self._offsets[loader] = command.batch
