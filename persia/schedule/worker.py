"""The schedule of one embedding worker: when a batch fans out to the servers, what is retried, kept, forgotten."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from persia.schedule.memory import Recent
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
from persia.schedule.retries import Retries


class _FanOut:
    """One fan-out under way: which servers have answered, which have failed (None: none yet)."""

    __slots__ = ("answered", "failed", "is_update")

    def __init__(self, is_update: bool) -> None:
        self.is_update = is_update
        self.answered: set[int] | None = None
        self.failed: list[int] | None = None


class WorkerSchedule:
    """Facts about the batches that one embedding worker buffers, and the rules that move them.

    Work on a batch starts when its ID features are in the buffer, whichever of features, lookup and gradients comes
    first; a repeated lookup is fanned out again, a repeated push of an applied batch is acknowledged again, and a
    server that fails is asked again after a back-off with the same request number, the others not.
    """

    __slots__ = (
        "_due_s",
        "_expiries",
        "_notes",
        "applied",
        "buffer",
        "done",
        "fan_outs",
        "ignored",
        "limits",
        "lookups",
        "retries",
        "taken",
        "to_look_up",
        "to_reply_ack",
        "to_reply_rows",
        "to_update",
        "ungranted",
        "waiting",
        "work",
    )

    def __init__(self, limits: WorkerLimits) -> None:
        self.limits = limits
        self.buffer: set[int] = set()  # batches whose ID features are here
        self.waiting: dict[int, bool] = {}  # asked for before the features came: whether gradients are here already
        self.work: dict[int, bool] = {}  # batches queued or fanned out: whether it is the update
        self.to_look_up: deque[int] = deque()
        self.to_update: list[int] = []
        self.fan_outs: dict[int, _FanOut] = {}
        self.lookups = 0  # fan-outs that are lookups
        self.retries: Retries[tuple[int, int]] = Retries(limits.retry_s)  # (batch, server)
        self.to_reply_rows: list[int] = []
        self.to_reply_ack: list[int] = []
        self.applied = Recent(limits.remember_max)
        self.taken: set[int] = set()  # batches whose credit went back (or waits in `ungranted`)
        self.ungranted: deque[int] = deque()  # batches taken by their rank whose credit waits for room
        self.done = 0
        self.ignored = 0
        self._due_s: dict[int, float] = {}  # when a batch that is buffered or waiting is forgotten
        self._expiries: deque[tuple[float, int]] = deque()  # the same, the earliest first; stale where they disagree
        self._notes: dict[type[Event], Callable[[Any, float], None]] = {
            FeaturesArrived: self._note_features,
            LookupAsked: self._note_lookup_asked,
            RowsArrived: self._note_rows,
            GradientsArrived: self._note_gradients,
            UpdateAcked: self._note_acked,
            ServerFailed: self._note_failed,
            Restarted: self._note_nothing,
            Timer: self._note_nothing,
        }

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Note one fact, then take every decision it allows, the most urgent first.

        Raises:
            KeyError: the event is not one that a worker can hear.
        """
        self._notes[type(event)](event, now_s)
        commands: list[Command] = []
        if self.to_reply_ack or self.to_reply_rows:
            self._reply(commands)
        if self.retries:
            self._retry(commands, now_s)
        if self.to_update:
            self._update(commands)
        if self.to_look_up:
            self._look_up(commands)
        if self.ungranted:
            self._grant(commands)
        if self._expiries and (now_s >= self._expiries[0][0] or self._due_s.get(self._expiries[0][1]) != self._expiries[0][0]):
            self._expire(commands, now_s)
        return commands

    def next_timer_s(self) -> float | None:
        """Return when a Timer event is wanted: the next retry, or the next expiry of a batch."""
        retry_s = self.retries.next_due_s() if self.retries else None
        if not self._expiries:
            return retry_s
        expiry_s = self._expiries[0][0]
        return expiry_s if retry_s is None else min(expiry_s, retry_s)

    @property
    def timed(self) -> int:
        """Return how many batches are forgotten some day unless they move on."""
        return len(self._due_s)

    # --- facts ------------------------------------------------------------------------------------------------

    def _note_features(self, event: FeaturesArrived, now_s: float) -> None:
        batch = event.batch
        if batch in self.buffer or batch in self.applied:  # sent again by a restarted loader
            self.ignored += 1
            return
        self.buffer.add(batch)
        self._keep_until(batch, now_s + self.limits.expiry_s)
        if batch in self.waiting:
            self._begin(batch, is_update=self.waiting.pop(batch))

    def _note_lookup_asked(self, event: LookupAsked, now_s: float) -> None:
        batch = event.batch
        if batch in self.work or batch in self.waiting or batch in self.applied:
            self.ignored += 1  # the answer is on its way, or no longer wanted
            return
        if batch not in self.taken:
            self.taken.add(batch)
            self.ungranted.append(batch)
        self._want(batch, now_s, is_update=False)

    def _note_gradients(self, event: GradientsArrived, now_s: float) -> None:
        batch = event.batch
        if batch in self.applied:
            self.to_reply_ack.append(batch)
        elif self.work.get(batch) or self.waiting.get(batch):
            self.ignored += 1
        else:
            if batch in self.work:
                self._drop_lookup(batch)
            self._want(batch, now_s, is_update=True)

    def _want(self, batch: int, now_s: float, *, is_update: bool) -> None:
        """Begin the batch's lookup or update, or wait for its features."""
        if batch in self.buffer:
            self._begin(batch, is_update=is_update)
            return
        if batch not in self.waiting:
            self._keep_until(batch, now_s + self.limits.expiry_s)
        self.waiting[batch] = is_update

    def _begin(self, batch: int, *, is_update: bool) -> None:
        self.work[batch] = is_update
        if is_update:
            self.to_update.append(batch)
        else:
            self.to_look_up.append(batch)

    def _keep_until(self, batch: int, due_s: float) -> None:
        self._due_s[batch] = due_s
        self._expiries.append((due_s, batch))

    def _drop_lookup(self, batch: int) -> None:
        """Forget a repeated lookup of a batch that its rank has trained meanwhile."""
        if batch in self.fan_outs:
            self._end_fan_out(batch)
        else:
            self.to_look_up.remove(batch)

    def _note_rows(self, event: RowsArrived, now_s: float) -> None:
        if self._answered(event.batch, event.server, is_update=False):
            self.to_reply_rows.append(event.batch)

    def _note_acked(self, event: UpdateAcked, now_s: float) -> None:
        batch = event.batch
        if not self._answered(batch, event.server, is_update=True):
            return
        self.to_reply_ack.append(batch)
        self.buffer.remove(batch)
        del self._due_s[batch]
        self.taken.discard(batch)
        self.done += 1
        self.applied.add(batch)

    def _answered(self, batch: int, server: int, *, is_update: bool) -> bool:
        """Note a server's answer; return whether it was the last one of the fan-out."""
        fan_out = self.fan_outs.get(batch)
        if fan_out is None or fan_out.is_update is not is_update:
            self.ignored += 1
            return False
        if server != EVERY_SERVER:
            if fan_out.failed is not None:
                self.retries.forget((batch, server))
            if fan_out.answered is None:
                fan_out.answered = set()
            fan_out.answered.add(server)
            if len(fan_out.answered) < self.limits.servers:
                return False
        self._end_fan_out(batch)
        return True

    def _end_fan_out(self, batch: int) -> None:
        fan_out = self.fan_outs.pop(batch)
        del self.work[batch]
        if not fan_out.is_update:
            self.lookups -= 1
        for server in fan_out.failed or ():
            self.retries.forget((batch, server))

    def _note_failed(self, event: ServerFailed, now_s: float) -> None:
        fan_out = self.fan_outs.get(event.batch)
        answered = fan_out is not None and fan_out.answered is not None and event.server in fan_out.answered
        if fan_out is None or answered or (event.batch, event.server) in self.retries:
            self.ignored += 1
            return
        self.retries.lost((event.batch, event.server), now_s)
        if fan_out.failed is None:
            fan_out.failed = []
        if event.server not in fan_out.failed:
            fan_out.failed.append(event.server)

    def _note_nothing(self, event: Event, now_s: float) -> None:
        pass  # that time has passed is all the news

    # --- rules, in the order in which they are asked ----------------------------------------------------------

    def _reply(self, commands: list[Command]) -> None:
        """A rank hears of its batch as soon as every server has answered; acknowledgements free permits, so they go first."""
        commands.extend(map(ReplyAck, self.to_reply_ack))
        self.to_reply_ack.clear()
        commands.extend(map(ReplyRows, self.to_reply_rows))
        self.to_reply_rows.clear()

    def _retry(self, commands: list[Command], now_s: float) -> None:
        """A server that failed is asked again for its part when the back-off is over."""
        while self.retries:
            due = self.retries.take_due(now_s)
            if due is None:
                return
            batch, server = due
            commands.append((RetryUpdate if self.fan_outs[batch].is_update else RetryLookup)(batch, server))

    def _update(self, commands: list[Command]) -> None:
        """Gradients fan out at once: they hold permits, and a server that gathers a step waits for every rank's."""
        for batch in self.to_update:
            self.fan_outs[batch] = _FanOut(is_update=True)
            commands.append(FanOutUpdate(batch))
        self.to_update.clear()

    def _look_up(self, commands: list[Command]) -> None:
        """Lookups fan out in the order in which they were asked, while there is a fan-out slot."""
        while self.to_look_up and self.lookups < self.limits.fan_outs_max:
            batch = self.to_look_up.popleft()
            self.lookups += 1
            self.fan_outs[batch] = _FanOut(is_update=False)
            commands.append(FanOutLookup(batch))

    def _grant(self, commands: list[Command]) -> None:
        """A loader may send one more batch for each that its rank has taken, while the buffer has room."""
        while self.ungranted and len(self.buffer) < self.limits.buffer_max:
            commands.append(GrantCredit(self.ungranted.popleft()))

    def _expire(self, commands: list[Command], now_s: float) -> None:
        """A batch that nobody came for, or whose features never came, is forgotten in time; one with work under way is kept."""
        while self._expiries:
            due_s, batch = self._expiries[0]
            if self._due_s.get(batch) == due_s:
                if now_s < due_s:
                    return
                if batch in self.work:
                    self._keep_until(batch, now_s + self.limits.expiry_s)
                else:
                    self._forget(batch)
                    commands.append(Expire(batch))
            self._expiries.popleft()

    def _forget(self, batch: int) -> None:
        del self._due_s[batch]
        self.buffer.discard(batch)
        self.waiting.pop(batch, None)
        self.taken.discard(batch)
        if batch in self.ungranted:  # its commit gives the credit back
            self.ungranted.remove(batch)
