"""The embedding parameter server: looks rows up, applies updates once, cuts snapshots; in mode async a slice of the dense vector.

Shapes: U unique keys of a request in a group, D the group's dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from persia.embedding.pooling import scatter_raw
from persia.embedding.precision import decode, encode, is_encoded
from persia.runtime.applied import AppliedLog
from persia.runtime.checkpoint import write_shard
from persia.runtime.driver import Action, Driver, Listener, Taken
from persia.runtime.kept import keep_number, kept_number
from persia.runtime.plan import Plan
from persia.runtime.records import Records
from persia.runtime.tables import Tables
from persia.runtime.transport import Kind, Message
from persia.schedule.messages import (
    Acknowledge,
    ApplyStep,
    ApplyUpdate,
    Command,
    CutSnapshot,
    LookupQueued,
    LookupServed,
    ServeLookup,
    SnapshotAsked,
    SnapshotCut,
    UpdateApplied,
    UpdateQueued,
)
from persia.schedule.server import ServerSchedule
from persia.schedule.staleness import VersionStaleness

Array = np.ndarray[Any, Any]


class Server:
    """What a ServerSchedule asks for, and what it hears.

    With one service slot everything runs on the driver's thread; with more, lookups and updates run on as many threads.
    """

    def __init__(
        self,
        driver: Driver,
        schedule: ServerSchedule,
        plan: Plan,
        records: Records,
        tables: Tables,
        applied: AppliedLog,
        checkpoints: Path,
        cut_file: Path,
    ) -> None:
        self._driver = driver
        self._schedule = schedule
        self._plan = plan
        self._records = records
        self._tables = tables
        self._applied = applied
        records.more_counts = tables.counts
        self._checkpoints = checkpoints
        self._wire = plan.scenario.schedule.precision.server_worker
        self._lookups: dict[int, Message] = {}
        self._updates: dict[int, Message] = {}
        self._cut_file = cut_file
        self._cut = kept_number(cut_file, -1)  # the step of the last snapshot, of a predecessor's too
        self._staleness = VersionStaleness()
        slots = schedule.limits.service_slots
        self._threads = ThreadPoolExecutor(slots, "table") if slots > 1 else None
        self._writer = ThreadPoolExecutor(1, "snapshot")

    def actions(self) -> Mapping[type[Command], Action]:
        """Return what carries out each command."""
        return {
            ServeLookup: self._serve_lookup,
            ApplyUpdate: lambda command: self._apply(command.batch, (command.batch,)),
            ApplyStep: self._apply_step,
            Acknowledge: self._acknowledge,
            CutSnapshot: self._cut_snapshot,
        }

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message."""
        return {
            Kind.ASK_ROWS: self._ask_rows,
            Kind.UPDATE: self._update,
            Kind.ASK_SNAPSHOT: self._ask_snapshot,
            Kind.PEEK_ROWS: self._peek,
            Kind.DENSE_INIT: self._dense_init,
            Kind.DENSE_GRADIENT: self._dense_gradient,
        }

    def posted(self, item: object) -> None:
        """Hear what one of this process's threads has finished.

        Raises:
            Whatever that thread raised.
        """
        assert isinstance(item, Future)
        item.result()()

    def tick(self, now_s: float) -> float | None:
        """A server waits for nothing."""
        return None

    def _run(self, work: Callable[[], Callable[[], None]]) -> None:
        """Do the work here or on a thread; what it returns runs on the driver's thread."""
        if self._threads is None:
            work()()
        else:
            self._threads.submit(work).add_done_callback(self._driver.mailbox.post)

    # --- requests ---------------------------------------------------------------------------------------------

    def _ask_rows(self, message: Message) -> None:
        if self._keys_are_sound(message.arrays, 1):
            self._lookups[message.number] = message
            self._driver.tell(LookupQueued(message.number))

    def _update(self, message: Message) -> None:
        each = len(message.arrays) // max(1, len(self._plan.groups))
        if not (self._keys_are_sound(message.arrays, each) and self._gradients_are_sound(message.arrays, each)):
            return
        batch = message.number
        if batch not in self._schedule.updates_seen:
            self._updates[batch] = message
        self._driver.tell(UpdateQueued(batch))
        if batch not in self._schedule.updates_seen:
            self._updates.pop(batch, None)  # applied before

    def _keys_are_sound(self, arrays: Sequence[Array], each: int) -> bool:
        """Return whether a request holds keys for every table; a hostile one is counted and dropped."""
        sound = each > 0 and len(arrays) == each * len(self._plan.groups)
        sound = sound and all(keys.dtype == np.uint64 and keys.ndim == 1 for keys in arrays[::each])
        if not sound:
            self._records.counts["refused_messages"] += 1
        return sound

    def _gradients_are_sound(self, arrays: Sequence[Array], each: int) -> bool:
        """Return whether every table's keys have their gradients; an update that lacks some is counted and dropped."""
        for place, group in enumerate(self._plan.groups):
            keys, *gradients = arrays[place * each : (place + 1) * each]
            if not is_encoded(tuple(gradients), self._wire, (len(keys), group.dim)):
                self._records.counts["refused_messages"] += 1
                return False
        return True

    # --- lookups ----------------------------------------------------------------------------------------------

    def _serve_lookup(self, command: ServeLookup) -> None:
        batch = command.batch
        message = self._lookups.pop(batch)
        self._staleness.looked_up(batch, self._schedule.version)

        def look_up() -> Callable[[], None]:
            watch = self._driver.clock.watch()
            arrays = self._encoded(self._tables.lookup(message.arrays))
            taken = watch.stop()

            def report() -> None:
                self._records.add_span("lookup", batch, taken)
                self._records.counts["rows_looked_up"] += sum(len(keys) for keys in message.arrays)
                self._driver.tell(LookupServed(batch))
                self._driver.mailbox.send(message.role, message.index, Kind.ROWS, batch, arrays)

            return report

        self._run(look_up)

    def _encoded(self, rows: Sequence[Array]) -> list[Array]:
        return [array for values in rows for array in encode(values, self._wire)]

    def _peek(self, message: Message) -> None:
        """Rows of held-out samples: outside the schedule, nothing changes."""
        if self._keys_are_sound(message.arrays, 1):
            arrays = self._encoded(self._tables.peek(message.arrays))
            self._driver.mailbox.send(message.role, message.index, Kind.ROWS_PEEK, message.number, arrays, extra=message.extra)

    # --- updates ----------------------------------------------------------------------------------------------

    def _apply_step(self, command: ApplyStep) -> None:
        first = command.step * self._schedule.limits.gather
        self._apply(command.step, tuple(range(first, first + self._schedule.limits.gather)))

    def _apply(self, number: int, batches: tuple[int, ...]) -> None:
        """Apply the sum of the batches' updates as one; `number` is what the tables' journals know it by."""
        messages = [self._updates.pop(batch) for batch in batches]

        def apply() -> Callable[[], None]:
            watch = self._driver.clock.watch()
            self._tables.update(number, [self._summed(messages, group) for group in range(len(self._plan.groups))])
            taken = watch.stop()
            return lambda: self._report_applied(number, batches, taken)

        self._run(apply)

    def _summed(self, messages: Sequence[Message], group: int) -> tuple[Array, Array]:
        """Return keys [U] and gradients [U, D] of one group, those of several batches summed per key."""
        parts = []
        for message in messages:
            each = len(message.arrays) // len(self._plan.groups)
            keys, *gradients = message.arrays[group * each : (group + 1) * each]
            parts.append((keys, decode(tuple(gradients), self._wire)))
        if len(parts) == 1:
            return parts[0]
        keys, inverse = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
        every = np.concatenate([part[1] for part in parts])
        return keys, scatter_raw(every, inverse.astype(np.int32), 1.0, len(keys))

    def _report_applied(self, number: int, batches: tuple[int, ...], taken: Taken) -> None:
        for batch in batches:
            self._records.add_span("update", batch, taken)
            staleness = self._staleness.updated(batch, self._schedule.version)
            if staleness is not None:
                self._records.add_staleness(batch, staleness)
        self._driver.tell(*map(UpdateApplied, batches), recorded=lambda: self._commit(number, batches))

    def _commit(self, number: int, batches: tuple[int, ...]) -> None:
        """The log says that the update is applied: note it beside the tables, whose journals may then forget it."""
        for batch in batches:
            self._applied.append(batch)
        self._tables.forget(number)

    def _acknowledge(self, command: Acknowledge) -> None:
        worker = command.batch % self._plan.workers
        self._driver.mailbox.send("embedding_worker", worker, Kind.UPDATED, command.batch)

    # --- snapshots --------------------------------------------------------------------------------------------

    def _ask_snapshot(self, message: Message) -> None:
        """Cut a snapshot, or say again that it is cut: for a rank a step's is cut once, or it could hold later updates.

        The coordinator asks at the end of the run, when nothing changes any more: for it one that died with its server is
        cut again.
        """
        if message.number <= self._cut and message.role != "coordinator":
            self._driver.mailbox.send(message.role, message.index, Kind.SNAPSHOT_CUT, message.number)
        else:
            self._driver.tell(SnapshotAsked(message.number))

    def _cut_snapshot(self, command: CutSnapshot) -> None:
        """Copy the tables, so that training goes on while a thread writes the copy."""
        step = command.step
        with self._records.span("snapshot", step * self._plan.ranks):
            shard = self._tables.export()
        self._cut = step
        keep_number(self._cut_file, step)
        self._driver.tell(SnapshotCut(step))
        for rank in range(self._plan.ranks):
            self._driver.mailbox.send("nn_worker", rank, Kind.SNAPSHOT_CUT, step)

        def write() -> Callable[[], None]:
            write_shard(self._checkpoints, step, self._tables.server, shard)
            return lambda: self._written(step)

        self._writer.submit(write).add_done_callback(self._driver.mailbox.post)

    def _written(self, step: int) -> None:
        self._driver.mailbox.send("coordinator", 0, Kind.SNAPSHOT_WRITTEN, step)

    # --- dense parameters (mode async) ------------------------------------------------------------------------

    def _dense_init(self, message: Message) -> None:
        self._tables.dense.initialise(message.arrays[0])
        self._driver.mailbox.send(message.role, message.index, Kind.DENSE_PARAMETERS, -1, (self._tables.dense.values(),))

    def _dense_gradient(self, message: Message) -> None:
        """Apply a rank's gradients of the slice, unless this is a repetition; answer with fresh parameters either way."""
        with self._records.span("dense update", message.number):
            self._tables.dense.apply(message.index, message.number, message.arrays[0])
        self._driver.mailbox.send(message.role, message.index, Kind.DENSE_PARAMETERS, message.number, (self._tables.dense.values(),))
