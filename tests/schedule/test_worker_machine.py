"""WorkerSchedule against a model of ranks, loaders and servers that lose, repeat, delay, die and come back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from persia.schedule.messages import (
    EVERY_SERVER,
    Command,
    Event,
    Expire,
    FanOutLookup,
    FanOutUpdate,
    FeaturesArrived,
    GradientsArrived,
    GrantCredit,
    LookupAsked,
    ReplyAck,
    ReplyRows,
    Restarted,
    RetryLookup,
    RetryUpdate,
    RowsArrived,
    ServerFailed,
    Timer,
    UpdateAcked,
)
from persia.schedule.modes import WorkerLimits
from persia.schedule.worker import WorkerSchedule
from tests.schedule.telling import MACHINE, tell

BATCHES = 4
BATCH = st.integers(0, BATCHES - 1)
PICKS = st.lists(st.integers(0, 99), max_size=6)
EXPIRY_S = 100.0
RETRY_S = 1.0

Request = tuple[int, int, bool]  # batch, server, is an update


class WorkerMachine(RuleBasedStateMachine):
    """One worker; `pending` are its requests to servers, `current` the fan-out of each batch with the servers that answered."""

    @initialize(servers=st.integers(1, 3), whole=st.booleans(), fan_outs=st.integers(1, 3), buffer=st.integers(1, 5))
    def begin(self, servers: int, whole: bool, fan_outs: int, buffer: int) -> None:
        self.limits = WorkerLimits(
            servers=servers, buffer_max=buffer, fan_outs_max=fan_outs, expiry_s=EXPIRY_S, remember_max=BATCHES, retry_s=RETRY_S
        )
        self.targets = [EVERY_SERVER] if whole else list(range(servers))
        self.now_s = 0.0
        self.dead: set[int] = set()
        self.pending: list[Request] = []
        self.late: list[Request] = []  # declared lost, but the server did its part
        self.trained: set[int] = set()
        self.rows: set[int] = set()
        self.on_server: set[tuple[int, int]] = set()  # (batch, server) whose update is applied
        self.finished: set[int] = set()
        self.restarted = False
        self.start_empty()

    def start_empty(self) -> None:
        self.schedule = WorkerSchedule(self.limits)
        self.buffered_at: dict[int, float] = {}
        self.waiting_since: dict[int, float] = {}
        self.lookup_asked: set[int] = set()  # not answered
        self.gradients: set[int] = set()  # here or waiting, not acknowledged
        self.current: dict[int, tuple[bool, set[int]]] = {}  # batch -> (is an update, who has answered)
        self.failed_at: dict[Request, float] = {}
        self.granted: set[int] = set()
        self.asked_once: set[int] = set()
        self.acknowledged: set[int] = set()

    def tell(self, *events: Event) -> None:
        for event in events:
            repeated = isinstance(event, GradientsArrived) and event.batch in self.acknowledged
            commands = tell(self.schedule, event, now_s=self.now_s)
            for command in commands:
                self.check(command)
            assert not repeated or ReplyAck(event.batch) in commands, "a repeated push is acknowledged again"

    # --- what each command must respect ---------------------------------------------------------------------------

    def check(self, command: Command) -> None:
        match command:
            case FanOutLookup(batch):
                assert batch in self.lookup_asked
                assert batch in self.buffered_at
                assert batch not in self.current
                assert sum(not is_update for is_update, _ in self.current.values()) < self.limits.fan_outs_max
                self.send_all(batch, is_update=False)
            case FanOutUpdate(batch):
                assert batch in self.gradients
                assert batch in self.buffered_at
                assert self.current.get(batch, (False,))[0] is False
                self.send_all(batch, is_update=True)
            case RetryLookup(batch, server):
                self.check_retry((batch, server, False))
            case RetryUpdate(batch, server):
                self.check_retry((batch, server, True))
            case ReplyRows(batch):
                assert self.current.pop(batch) == (False, set(self.targets)), "every server has answered"
                self.lookup_asked.discard(batch)
                self.rows.add(batch)
            case ReplyAck(batch):
                assert all((batch, server) in self.on_server for server in self.targets), "applied everywhere"
                if batch not in self.acknowledged:
                    assert self.current.pop(batch)[0], "acknowledged by its update"
                    del self.buffered_at[batch]
                self.acknowledged.add(batch)
                self.gradients.discard(batch)
                self.lookup_asked.discard(batch)
                self.finished.add(batch)
            case GrantCredit(batch):
                assert batch in self.asked_once
                assert batch not in self.granted, "one credit for each that is taken"
                assert len(self.buffered_at) < self.limits.buffer_max, "while the buffer has room"
                self.granted.add(batch)
            case Expire(batch):
                self.check_expire(batch)
            case _:
                raise AssertionError(command)

    def send_all(self, batch: int, *, is_update: bool) -> None:
        self.current[batch] = (is_update, set())
        self.pending += [(batch, server, is_update) for server in self.targets]

    def check_retry(self, request: Request) -> None:
        batch, server, is_update = request
        assert self.current[batch][0] is is_update, "the kind that is under way"
        assert server not in self.current[batch][1], "it has not answered"
        assert self.failed_at.pop(request) + RETRY_S <= self.now_s, "after its back-off"
        self.pending.append(request)

    def check_expire(self, batch: int) -> None:
        assert batch not in self.current
        since_s = self.buffered_at.pop(batch, None)
        if since_s is None:
            since_s = self.waiting_since.pop(batch)
        assert self.now_s >= since_s + EXPIRY_S
        self.lookup_asked.discard(batch)  # its rank asks again when it has waited long enough
        self.gradients.discard(batch)
        self.granted.discard(batch)

    # --- what happens around it -----------------------------------------------------------------------------------

    @rule(batch=BATCH, picks=PICKS)
    def work(self, batch: int, picks: list[int]) -> None:
        """A batch makes its next step and some servers answer, as on a good day."""
        if batch not in self.buffered_at and batch not in self.acknowledged:
            self.features(batch)
        if batch not in self.rows:
            self.ask_lookup(batch)
        else:
            self.push(sorted(self.rows).index(batch))
        self.servers_answer(picks)

    @rule(batch=BATCH)
    def features(self, batch: int) -> None:
        if batch not in self.acknowledged and batch not in self.buffered_at:
            self.buffered_at[batch] = self.now_s
            self.waiting_since.pop(batch, None)
        self.tell(FeaturesArrived(batch))

    @rule(batch=BATCH)
    def ask_lookup(self, batch: int) -> None:
        """The rank asks, or the network repeats an old question."""
        self.asked_once.add(batch)
        if batch not in self.acknowledged and batch not in self.gradients:
            self.lookup_asked.add(batch)
            if batch not in self.buffered_at:
                self.waiting_since.setdefault(batch, self.now_s)
        self.tell(LookupAsked(batch))

    @precondition(lambda self: self.rows)
    @rule(pick=st.integers(0, 99))
    def push(self, pick: int) -> None:
        """The rank has trained a batch, or pushes it once more."""
        batch = sorted(self.rows)[pick % len(self.rows)]
        if batch not in self.acknowledged:
            self.gradients.add(batch)
            self.lookup_asked.discard(batch)
            if batch not in self.buffered_at:
                self.waiting_since.setdefault(batch, self.now_s)
        self.tell(GradientsArrived(batch))

    @precondition(lambda self: self.pending)
    @rule(picks=PICKS)
    def servers_answer(self, picks: list[int]) -> None:
        for pick in picks:
            if self.pending:
                self.one_server_hears(pick, "answer")

    @precondition(lambda self: self.pending)
    @rule(pick=st.integers(0, 99), how=st.sampled_from(["twice", "lose", "lose the answer"]))
    def server_hears(self, pick: int, how: str) -> None:
        self.one_server_hears(pick, how)

    def one_server_hears(self, pick: int, how: str) -> None:
        request = self.pending.pop(pick % len(self.pending))
        if how == "lose" or request[1] in self.dead:
            self.fail(request)
            return
        self.carry_out(request)
        if how == "lose the answer":
            self.late.append(request)
            self.fail(request)
        else:
            self.answer(request, 1 + (how == "twice"))

    def carry_out(self, request: Request) -> None:
        if request[2]:
            self.on_server.add(request[:2])

    def answer(self, request: Request, times: int = 1) -> None:
        batch, server, is_update = request
        if self.current.get(batch, (None,))[0] is is_update:
            self.current[batch][1].add(server)
            self.failed_at.pop(request, None)
        event = UpdateAcked(batch, server) if is_update else RowsArrived(batch, server)
        self.tell(*[event] * times)

    def fail(self, request: Request) -> None:
        batch, server, _ = request
        current = self.current.get(batch)
        if current is not None and server not in current[1]:
            self.failed_at.setdefault((batch, server, current[0]), self.now_s)  # a failure does not say of what
        self.tell(ServerFailed(batch, server))

    @precondition(lambda self: self.late)
    @rule(pick=st.integers(0, 99))
    def answer_late(self, pick: int) -> None:
        self.answer(self.late[pick % len(self.late)])

    @rule(server=st.integers(0, 2), dies=st.booleans())
    def die_or_revive(self, server: int, dies: bool) -> None:
        (self.dead.add if dies else self.dead.discard)(self.targets[server % len(self.targets)])

    @rule(wait_s=st.sampled_from([0.5, 1.0, 5.0, 60.0, 100.0]))
    def wait(self, wait_s: float) -> None:
        """Time passes; the worker is woken whenever it wants to be."""
        end_s = self.now_s + wait_s
        while (due_s := self.schedule.next_timer_s()) is not None and due_s <= end_s:
            self.now_s = due_s
            self.tell(Timer())
        self.now_s = end_s
        self.tell(Timer())

    @precondition(lambda self: not self.restarted)
    @rule()
    def restart(self) -> None:
        """The worker comes back empty, once; its requests are forgotten, their answers come all the same."""
        self.restarted = True
        self.late += self.pending
        for request in self.pending:
            self.carry_out(request)
        self.pending.clear()
        self.start_empty()
        self.tell(Restarted(0))

    def teardown(self) -> None:
        """From now on nothing is lost: every batch is looked up, updated and acknowledged, and nothing is kept."""
        if not hasattr(self, "schedule"):
            return
        self.dead.clear()
        for batch in range(BATCHES):
            if batch not in self.finished:
                self.finish(batch)
        while (due_s := self.schedule.next_timer_s()) is not None:
            self.now_s = due_s
            self.tell(Timer())
            self.answer_all()
        assert self.finished == set(range(BATCHES))
        assert not self.schedule.buffer
        assert not self.schedule.waiting
        assert not self.schedule.work
        assert not self.schedule.ungranted, "every credit is back"
        assert self.schedule.retries.remembered == 0

    def finish(self, batch: int) -> None:
        self.features(batch)
        for done, act in ((self.rows, self.ask_lookup), (self.finished, lambda batch: self.push(sorted(self.rows).index(batch)))):
            for _ in range(100):  # longer than the longest back-off
                if batch in done:
                    break
                act(batch)
                self.answer_all()
                self.wait(RETRY_S)
                self.answer_all()
            assert batch in done

    def answer_all(self) -> None:
        while self.pending:
            self.one_server_hears(0, "answer")


TestWorkerMachine = WorkerMachine.TestCase
TestWorkerMachine.settings = MACHINE
