"""The schedule of one embedding parameter server: what is served next, what was applied already, when a snapshot is cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from persia.schedule.memory import Done
from persia.schedule.messages import (
    Acknowledge,
    ApplyStep,
    ApplyUpdate,
    Command,
    CutSnapshot,
    Event,
    LookupQueued,
    LookupServed,
    Restarted,
    ServeLookup,
    SnapshotAsked,
    SnapshotCut,
    UpdateApplied,
    UpdateQueued,
)
from persia.schedule.modes import ServerLimits


class ServerSchedule:
    """Facts about one server's queue, and the rules that serve it, first come first served.

    An update is applied once, however often it is sent: a repeated one is acknowledged again.  Where `gather` is more
    than one, the updates of a step wait until all are here and are applied as one (sync mode).  What is applied is
    part of the table: a server that comes back with its table is given `applied` back as well.
    """

    __slots__ = (
        "_notes",
        "applied",
        "applying",
        "busy",
        "cutting",
        "gathering",
        "ignored",
        "left_of_step",
        "limits",
        "queue",
        "queued_lookups",
        "serving",
        "snapshot_asked",
        "snapshots",
        "to_acknowledge",
        "updates_seen",
        "version",
    )

    def __init__(self, limits: ServerLimits, applied: Done | None = None) -> None:
        """Start with an empty queue; `applied` (nothing by default) is known to be in the table already."""
        self.limits = limits
        self.busy = 0  # service slots in use: a gathered step takes one
        self.queue: deque[tuple[bool, int]] = deque()  # (is an update, batch; or the step, where updates are gathered)
        self.queued_lookups: set[int] = set()
        self.serving: set[int] = set()  # lookups being served
        self.updates_seen: set[int] = set()  # gathered, queued or being applied
        self.gathering: dict[int, list[int]] = {}  # step -> batches whose update is here
        self.applying: set[int] = set()
        self.left_of_step: dict[int, int] = {}  # gathered step being applied -> its batches not reported yet
        self.applied = Done(limits.world_size) if applied is None else applied
        self.to_acknowledge: list[int] = []
        self.snapshot_asked = -1  # the last step for which one was asked
        self.snapshots: deque[int] = deque()
        self.cutting: int | None = None
        self.version = 0  # times that the optimizer has run; a gathered step is one
        self.ignored = 0
        self._notes: dict[type[Event], Callable[[Any], None]] = {
            LookupQueued: self._note_lookup,
            UpdateQueued: self._note_update,
            LookupServed: self._note_served,
            UpdateApplied: self._note_applied,
            SnapshotAsked: self._note_snapshot_asked,
            SnapshotCut: self._note_snapshot_cut,
            Restarted: self._note_nothing,
        }

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Note one fact, then take every decision it allows, the most urgent first.

        Raises:
            KeyError: the event is not one that a server can hear.
        """
        self._notes[type(event)](event)
        commands: list[Command] = []
        self._acknowledge(commands)
        self._snapshot(commands)
        self._serve(commands)
        return commands

    def next_timer_s(self) -> float | None:
        """Return None: a server waits for nothing but requests."""
        return None

    # --- facts ------------------------------------------------------------------------------------------------

    def _note_lookup(self, event: LookupQueued) -> None:
        if event.batch in self.queued_lookups or event.batch in self.serving:
            self.ignored += 1  # its answer is on the way
            return
        self.queued_lookups.add(event.batch)
        self.queue.append((False, event.batch))

    def _note_update(self, event: UpdateQueued) -> None:
        batch = event.batch
        if batch in self.applied:
            self.to_acknowledge.append(batch)
        elif batch in self.updates_seen:
            self.ignored += 1
        else:
            self.updates_seen.add(batch)
            self._enqueue_update(batch)

    def _enqueue_update(self, batch: int) -> None:
        if self.limits.gather == 1:
            self.queue.append((True, batch))
            return
        step = batch // self.limits.world_size  # complete with one batch of every rank
        group = self.gathering.setdefault(step, [])
        group.append(batch)
        if len(group) == self.limits.gather:
            self.queue.append((True, step))

    def _note_served(self, event: LookupServed) -> None:
        if event.batch not in self.serving:
            self.ignored += 1
            return
        self.serving.remove(event.batch)
        self.busy -= 1

    def _note_applied(self, event: UpdateApplied) -> None:
        batch = event.batch
        if batch not in self.applying:
            self.ignored += 1
            return
        self.applying.remove(batch)
        self.updates_seen.remove(batch)
        self.applied.add(batch)
        self.to_acknowledge.append(batch)
        if self._ends_application(batch):
            self.version += 1
            self.busy -= 1

    def _ends_application(self, batch: int) -> bool:
        """Return whether one run of the optimizer ends with this batch; a gathered step ends with its last."""
        if self.limits.gather == 1:
            return True
        step = batch // self.limits.world_size
        self.left_of_step[step] -= 1
        if self.left_of_step[step]:
            return False
        del self.left_of_step[step]
        return True

    def _note_snapshot_asked(self, event: SnapshotAsked) -> None:
        if event.step <= self.snapshot_asked:  # every rank asks
            self.ignored += 1
            return
        self.snapshot_asked = event.step
        self.snapshots.append(event.step)

    def _note_snapshot_cut(self, event: SnapshotCut) -> None:
        if event.step == self.cutting:
            self.cutting = None
        else:
            self.ignored += 1

    def _note_nothing(self, event: Restarted) -> None:
        pass  # a fresh schedule is all there is

    # --- rules, in the order in which they are asked ----------------------------------------------------------

    def _acknowledge(self, commands: list[Command]) -> None:
        """An update is acknowledged when it is applied, and again whenever it is sent again."""
        if self.to_acknowledge:
            commands.extend(map(Acknowledge, self.to_acknowledge))
            self.to_acknowledge.clear()

    def _snapshot(self, commands: list[Command]) -> None:
        """A snapshot is cut when nothing is in service, for lookups insert rows too; nothing new starts before it is."""
        if self.snapshots and self.cutting is None and not self.busy:
            self.cutting = self.snapshots.popleft()
            commands.append(CutSnapshot(self.cutting))

    def _serve(self, commands: list[Command]) -> None:
        """Requests are served in the order of arrival while there is a slot and no snapshot to cut."""
        while self.queue and not self.snapshots and self.cutting is None and self.busy < self.limits.service_slots:
            is_update, number = self.queue.popleft()
            self.busy += 1
            if not is_update:
                self.queued_lookups.remove(number)
                self.serving.add(number)
                commands.append(ServeLookup(number))
            elif self.limits.gather == 1:
                self.applying.add(number)
                commands.append(ApplyUpdate(number))
            else:
                self.applying.update(self.gathering.pop(number))
                self.left_of_step[number] = self.limits.gather
                commands.append(ApplyStep(number))
