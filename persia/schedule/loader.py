"""The schedule of one data loader: which batch is read, where it goes and when, and from where a restart continues."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from persia.schedule.messages import (
    BatchCommitted,
    BatchExpired,
    BatchRead,
    Command,
    CommitOffset,
    CreditGranted,
    Event,
    ReadBatch,
    Restarted,
    SendBatch,
    Timer,
)
from persia.schedule.modes import LoaderLimits


class LoaderSchedule:
    """Facts about one loader's batches, and the rules that send them.

    Loader l of L reads batches l, l + L, ...  Batch b goes to embedding worker b mod workers (its ID features) and to
    rank b mod world_size (the rest).  A rank's input queue holds `input_queue_max` batches of this loader; it trains in
    the order of the numbers, so its batches leave in that order, in whatever order they are read.  A batch is committed
    when its rank says that its update is applied; a restart reads again from the first that is not.
    """

    __slots__ = (
        "_notes",
        "ahead",
        "ahead_count",
        "committed",
        "committed_ahead",
        "ignored",
        "in_queue",
        "limits",
        "read",
        "reading",
        "reported",
        "resending",
        "sent",
        "to_read",
        "to_read_again",
        "to_send",
    )

    def __init__(self, limits: LoaderLimits) -> None:
        self.limits = limits
        first = limits.first_batch + (limits.loader - limits.first_batch) % limits.loaders
        self.to_read = first  # the next batch to be read
        self.to_read_again: list[int] = []  # batches that a worker forgot
        self.reading: set[int] = set()
        self.resending: set[int] = set()  # forgotten by a worker and not sent again yet; their ranks still hold their part
        self.read: set[int] = set()  # ready to leave, not sent
        self.ahead: dict[int, deque[int]] = {}  # rank -> its batches that are being read or ready, in order
        self.ahead_count = 0
        self.in_queue: dict[int, set[int]] = {}  # rank -> batches sent and not yet taken
        self.to_send: list[int] = []  # a resent batch, or one that has room in its rank's queue
        self.sent: set[int] = set()  # sent, not committed
        self.committed = first  # every batch of this loader before it is committed
        self.committed_ahead: set[int] = set()
        self.reported = first
        self.ignored = 0
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            BatchRead: self._note_read,
            CreditGranted: self._note_credit,
            BatchCommitted: self._note_committed,
            BatchExpired: self._note_expired,
            Restarted: self._note_nothing,
            Timer: self._note_nothing,
        }

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Note one fact, then take every decision it allows, the most urgent first.

        Raises:
            KeyError: the event is not one that a loader can hear.
        """
        self._notes[type(event)](event)
        commands: list[Command] = []
        if self.to_send:
            self._send(commands)
        if self.to_read_again or self.ahead_count < self.limits.read_ahead_max:
            self._read(commands)
        if self.committed > self.reported:
            self._commit(commands)
        return commands

    def next_timer_s(self) -> float | None:
        """Return None: a loader waits for nothing but its reads and credits."""
        return None

    def is_committed(self, batch: int) -> bool:
        """Return whether this loader's batch need not be replayed."""
        return batch < self.committed or batch in self.committed_ahead

    # --- facts ------------------------------------------------------------------------------------------------

    def _note_read(self, event: BatchRead) -> None:
        batch = event.batch
        if batch not in self.reading:
            self.ignored += 1
            return
        self.reading.remove(batch)
        if batch in self.resending:  # takes no room: its rank holds its part, or is done with it
            self.resending.remove(batch)
            self.to_send.append(batch)
        elif not self.is_committed(batch):
            self.read.add(batch)
            self._fill(batch % self.limits.world_size)

    def _note_credit(self, event: CreditGranted) -> None:
        if not self._take(event.batch):  # granted twice, or before this loader was restarted
            self.ignored += 1

    def _note_committed(self, event: BatchCommitted) -> None:
        batch = event.batch
        if batch not in self.sent and batch not in self.resending:
            self.ignored += 1
            return
        self.sent.discard(batch)
        self.resending.discard(batch)
        self.committed_ahead.add(batch)
        while self.committed in self.committed_ahead:
            self.committed_ahead.remove(self.committed)
            self.committed += self.limits.loaders
        self._take(batch)  # where the credit was lost

    def _note_expired(self, event: BatchExpired) -> None:
        if event.batch not in self.sent:
            self.ignored += 1
            return
        self.sent.remove(event.batch)
        self.resending.add(event.batch)
        self.to_read_again.append(event.batch)

    def _note_nothing(self, event: Event) -> None:
        pass  # a run begins

    def _take(self, batch: int) -> bool:
        """Take the batch out of its rank's queue; return whether it was there."""
        rank = batch % self.limits.world_size
        if batch not in self.in_queue.get(rank, ()):
            return False
        self.in_queue[rank].remove(batch)
        self._fill(rank)
        return True

    def _fill(self, rank: int) -> None:
        """Let the rank's next batches into its queue while it has room; a full queue holds back no other rank's batches."""
        ahead = self.ahead.setdefault(rank, deque())
        queue = self.in_queue.setdefault(rank, set())
        while ahead and ahead[0] in self.read and len(queue) < self.limits.input_queue_max:
            batch = ahead.popleft()
            self.ahead_count -= 1
            self.read.remove(batch)
            queue.add(batch)
            self.to_send.append(batch)

    # --- rules, in the order in which they are asked ----------------------------------------------------------

    def _send(self, commands: list[Command]) -> None:
        """A batch leaves as soon as it is its turn and its rank's input queue has room."""
        for batch in self.to_send:
            self.sent.add(batch)
            commands.append(SendBatch(batch, batch % self.limits.workers, batch % self.limits.world_size))
        self.to_send.clear()

    def _read(self, commands: list[Command]) -> None:
        """Batches are read ahead of the credits, so that none waits for the disk; those that a worker forgot at once and first."""
        limits = self.limits
        batches = self.to_read_again
        while self.ahead_count < limits.read_ahead_max and (limits.stop_batch is None or self.to_read < limits.stop_batch):
            batches.append(self.to_read)
            self.ahead.setdefault(self.to_read % limits.world_size, deque()).append(self.to_read)
            self.ahead_count += 1
            self.to_read += limits.loaders
        if batches:
            self.reading.update(batches)
            commands.extend(map(ReadBatch, batches))
            batches.clear()

    def _commit(self, commands: list[Command]) -> None:
        """The offset is reported each time `commit_every` more batches in a row are trained."""
        if self.committed - self.reported >= self.limits.commit_every * self.limits.loaders:
            self.reported = self.committed
            commands.append(CommitOffset(self.committed))
