"""The embedding worker: dedups a batch's IDs, asks every server, pools rows for the rank; un-pools gradients on the way back.

Shapes: B samples, F features of a group, D its dim, U unique rows of a batch in a group, N ID occurrences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from persia.embedding.plan import GroupPlan, check_bags, plan_group
from persia.embedding.pooling import gather_raw, pool, scatter_raw, unpool
from persia.embedding.precision import decode, encode, is_encoded
from persia.runtime.driver import Action, Deadlines, Driver, Listener
from persia.runtime.plan import Group, Plan
from persia.runtime.records import Records
from persia.runtime.transport import Kind, Message
from persia.schedule.messages import (
    Command,
    Expire,
    FanOutLookup,
    FanOutUpdate,
    FeaturesArrived,
    GradientsArrived,
    GrantCredit,
    LookupAsked,
    ReplyAck,
    ReplyRows,
    RetryLookup,
    RetryUpdate,
    RowsArrived,
    ServerFailed,
    UpdateAcked,
)
from persia.schedule.worker import WorkerSchedule

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class _Work:
    """What the worker holds of one batch: ID features, the plan made of them, rows and gradients on their way through."""

    bags: list[tuple[Array, Array]] | None = None  # (ids, offsets) a group
    plans: list[GroupPlan] | None = None
    rows: list[Array] = field(default_factory=list)  # [U, D] a group
    gradients: Sequence[Array] | None = None  # from the rank, as they came
    updates: list[Array] | None = None  # [U, D] a group


class Worker:
    """What a WorkerSchedule asks for, and what it hears; and evaluation, which asks the servers without the schedule."""

    def __init__(self, driver: Driver, schedule: WorkerSchedule, plan: Plan, records: Records) -> None:
        self._driver = driver
        self._schedule = schedule
        self._plan = plan
        self._records = records
        self._work: dict[int, _Work] = {}
        self._peeks: dict[int, tuple[_Work, set[int], int]] = {}  # request -> its work, the servers still to answer, samples
        self._asked: Deadlines[tuple[int, int]] = Deadlines(plan.scenario.schedule.request_timeout)
        self._to_servers = plan.scenario.schedule.precision.server_worker
        self._to_rank = plan.scenario.schedule.precision.worker_rank

    def actions(self) -> Mapping[type[Command], Action]:
        """Return what carries out each command."""
        return {
            FanOutLookup: lambda command: self._fan_out_lookup(command.batch),
            FanOutUpdate: lambda command: self._fan_out_update(command.batch),
            RetryLookup: lambda command: self._ask_rows(command.batch, command.server),
            RetryUpdate: lambda command: self._send_update(command.batch, command.server),
            ReplyRows: lambda command: self._reply_rows(command.batch),
            ReplyAck: self._reply_ack,
            GrantCredit: self._grant,
            Expire: self._expire,
        }

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message."""
        return {
            Kind.FEATURES: self._features,
            Kind.LOOKUP: lambda message: self._driver.tell(LookupAsked(message.number)),
            Kind.GRADIENTS: self._gradients,
            Kind.ROWS: self._rows,
            Kind.UPDATED: self._updated,
            Kind.HELLO: self._hello,
            Kind.PEEK_POOLED: self._peek,
            Kind.ROWS_PEEK: self._peeked,
        }

    def posted(self, item: object) -> None:
        """A worker has no other threads."""

    def tick(self, now_s: float) -> float | None:
        """Report requests that no server has answered in time."""
        for batch, server in self._asked.expired(now_s):
            self._records.counts["requests_timed_out"] += 1
            self._driver.tell(ServerFailed(batch, server))
        return self._asked.next_due_s()

    # --- what arrives -----------------------------------------------------------------------------------------

    def _features(self, message: Message) -> None:
        bags = self._read_bags(message, self._plan.batch_size)
        if bags is None:
            return
        work = self._work.setdefault(message.number, _Work())
        if work.bags is None:
            work.bags = bags
        self._driver.tell(FeaturesArrived(message.number))
        self._drop_unless_kept(message.number)

    def _read_bags(self, message: Message, batch_size: int) -> list[tuple[Array, Array]] | None:
        """Return (ids, offsets) of every group, or None where the message does not hold them."""
        arrays = message.arrays
        bags = list(zip(arrays[::2], arrays[1::2], strict=False))
        try:
            if len(arrays) != 2 * len(self._plan.groups):
                raise ValueError(f"{len(arrays)} arrays for {len(self._plan.groups)} feature groups")
            for group, (ids, offsets) in zip(self._plan.groups, bags, strict=True):
                check_bags(ids, offsets, features=group.features, batch=batch_size)
        except ValueError:
            self._records.counts["refused_messages"] += 1
            return None
        return bags

    def _gradients(self, message: Message) -> None:
        work = self._work.setdefault(message.number, _Work())
        if not self._gradients_are_sound(work, message.arrays):
            self._records.counts["refused_messages"] += 1
            self._drop_unless_kept(message.number)
            return
        work.gradients = message.arrays
        self._driver.tell(GradientsArrived(message.number))
        self._drop_unless_kept(message.number)

    def _gradients_are_sound(self, work: _Work, arrays: Sequence[Array]) -> bool:
        """Return whether these are every group's gradients of the batch, as far as its bags are known."""
        each = len(arrays) // len(self._plan.groups)
        for place, group in enumerate(self._plan.groups):
            some = tuple(arrays[place * each : (place + 1) * each])
            if group.pooling != "raw":
                shape: tuple[int, ...] = (self._plan.batch_size, group.features, group.dim)
            elif work.bags is not None:
                shape = (len(work.bags[place][0]), group.dim)
            else:
                shape = (len(some[0]) if some and some[0].ndim else 0, group.dim)
            if not is_encoded(some, self._to_rank, shape):
                return False
        return len(arrays) == each * len(self._plan.groups)

    def _rows(self, message: Message) -> None:
        batch, server = message.number, message.index
        work = self._work.get(batch)
        if work is None or work.plans is None or not work.rows:
            self._asked.stop((batch, server))
        elif self._take_rows(work, server, message.arrays):
            self._asked.stop((batch, server))
            self._driver.tell(RowsArrived(batch, server))

    def _take_rows(self, work: _Work, server: int, arrays: Sequence[Array]) -> bool:
        """Put one server's rows where the plan wants them; every group takes as many arrays as its wire format has.

        Where they are not those that were asked for, count and drop them and return False.
        """
        assert work.plans is not None
        each = len(arrays) // len(work.plans)
        sent = [tuple(arrays[place * each : (place + 1) * each]) for place in range(len(work.plans))]
        parts = [_part(plan, rows, server) for plan, rows in zip(work.plans, work.rows, strict=True)]
        if not all(is_encoded(some, self._to_servers, part.shape) for some, part in zip(sent, parts, strict=True)):
            self._records.counts["refused_messages"] += 1
            return False
        for place, (some, part) in enumerate(zip(sent, parts, strict=True)):
            if self._plan.servers == 1:
                work.rows[place] = decode(some, self._to_servers)  # all rows are here: they need not be copied together
            else:
                decode(some, self._to_servers, part)
        return True

    def _updated(self, message: Message) -> None:
        self._asked.stop((message.number, message.index))
        self._driver.tell(UpdateAcked(message.number, message.index))

    def _hello(self, message: Message) -> None:
        """A server came back: what it was asked is lost."""
        if message.role == "parameter_server":
            for batch, server in self._asked.waiting():
                if server == message.index:
                    self._asked.stop((batch, server))
                    self._driver.tell(ServerFailed(batch, server))

    def _drop_unless_kept(self, batch: int) -> None:
        """Forget data that the schedule has no use for: repeated, or of a batch that is applied."""
        schedule = self._schedule
        if batch not in schedule.buffer and batch not in schedule.waiting:
            self._work.pop(batch, None)

    # --- commands ---------------------------------------------------------------------------------------------

    def _planned(self, work: _Work, batch_size: int) -> list[GroupPlan]:
        if work.plans is None:
            assert work.bags is not None
            work.plans = [
                plan_group(ids, offsets, first_feature=group.first, features=group.features, servers=self._plan.servers)
                for group, (ids, offsets) in zip(self._plan.groups, work.bags, strict=True)
            ]
            counts = self._records.counts
            counts["ids"] += sum(len(plan.inverse) for plan in work.plans)
            counts["unique_ids"] += sum(len(plan.keys) for plan in work.plans)
            counts["batches_planned"] += 1
        return work.plans

    def _fan_out_lookup(self, batch: int) -> None:
        work = self._work[batch]
        with self._records.span("dedup", batch):
            plans = self._planned(work, self._plan.batch_size)
            work.rows = _empty_rows(plans, self._plan.groups)
        for server in range(self._plan.servers):
            self._ask_rows(batch, server)

    def _ask_rows(self, batch: int, server: int) -> None:
        plans = self._work[batch].plans
        assert plans is not None
        self._ask(batch, server, Kind.ASK_ROWS, [_part(plan, plan.keys, server) for plan in plans])

    def _ask(self, batch: int, server: int, kind: Kind, arrays: Sequence[Array]) -> None:
        self._asked.start((batch, server), self._driver.clock.now_s())
        if not self._driver.mailbox.send("parameter_server", server, kind, batch, arrays):
            self._asked.stop((batch, server))
            self._driver.tell(ServerFailed(batch, server))

    def _reply_rows(self, batch: int) -> None:
        work = self._work[batch]
        with self._records.span("pool", batch):
            arrays = self._pooled(work, self._plan.batch_size)
        work.rows = []
        self._driver.mailbox.send("nn_worker", batch % self._plan.ranks, Kind.POOLED, batch, arrays)

    def _pooled(self, work: _Work, batch_size: int) -> list[Array]:
        """Return every group's embeddings in the wire format of the rank: [B, F, D] pooled, or [N, D] raw and its offsets."""
        assert work.bags is not None
        assert work.plans is not None
        arrays: list[Array] = []
        for group, (_, offsets), plan, rows in zip(self._plan.groups, work.bags, work.plans, work.rows, strict=True):
            if group.pooling == "raw":
                arrays += [*encode(gather_raw(rows, plan.inverse), self._to_rank), offsets]
                continue
            out = np.empty((batch_size, group.features, group.dim), np.float32)
            pool(rows, plan.inverse, offsets, features=group.features, batch=batch_size, pooling=group.pooling, out=out)
            arrays += encode(out, self._to_rank)
        return arrays

    def _fan_out_update(self, batch: int) -> None:
        work = self._work[batch]
        with self._records.span("un-pool", batch):
            plans = self._planned(work, self._plan.batch_size)
            work.updates = self._unpooled(work, plans)
        for server in range(self._plan.servers):
            self._send_update(batch, server)

    def _unpooled(self, work: _Work, plans: Sequence[GroupPlan]) -> list[Array]:
        """Return every group's gradients summed per unique row [U, D]."""
        assert work.bags is not None
        assert work.gradients is not None
        each = len(work.gradients) // len(plans)
        updates = []
        for place, (group, (_, offsets), plan) in enumerate(zip(self._plan.groups, work.bags, plans, strict=True)):
            gradients = decode(tuple(work.gradients[place * each : (place + 1) * each]), self._to_rank)
            scale, unique = self._plan.gradient_scale, len(plan.keys)
            if group.pooling == "raw":
                updates.append(scatter_raw(gradients, plan.inverse, scale, unique))
            else:
                updates.append(unpool(gradients, plan.inverse, offsets, pooling=group.pooling, scale=scale, unique=unique))
        return updates

    def _send_update(self, batch: int, server: int) -> None:
        work = self._work[batch]
        assert work.plans is not None
        assert work.updates is not None
        arrays: list[Array] = []
        for plan, update in zip(work.plans, work.updates, strict=True):
            arrays += [_part(plan, plan.keys, server), *encode(_part(plan, update, server), self._to_servers)]
        self._ask(batch, server, Kind.UPDATE, arrays)

    def _reply_ack(self, command: ReplyAck) -> None:
        self._work.pop(command.batch, None)
        self._driver.mailbox.send("nn_worker", command.batch % self._plan.ranks, Kind.PUSHED, command.batch)

    def _grant(self, command: GrantCredit) -> None:
        self._driver.mailbox.send("loader", command.batch % self._plan.loaders, Kind.CREDIT, command.batch)

    def _expire(self, command: Expire) -> None:
        batch = command.batch
        self._work.pop(batch, None)
        self._records.counts["batches_expired"] += 1
        self._driver.mailbox.send("loader", batch % self._plan.loaders, Kind.EXPIRED, batch)
        self._driver.mailbox.send("nn_worker", batch % self._plan.ranks, Kind.LOST, batch)

    # --- evaluation -------------------------------------------------------------------------------------------

    def _peek(self, message: Message) -> None:
        """A rank asks for held-out samples' embeddings; `extra` is their number."""
        bags = self._read_bags(message, message.extra)
        if bags is None:
            return
        work = _Work(bags=bags)
        work.plans = [
            plan_group(ids, offsets, first_feature=group.first, features=group.features, servers=self._plan.servers)
            for group, (ids, offsets) in zip(self._plan.groups, bags, strict=True)
        ]
        work.rows = _empty_rows(work.plans, self._plan.groups)
        self._peeks[message.number] = (work, set(range(self._plan.servers)), message.extra)
        for server in range(self._plan.servers):
            arrays = [_part(plan, plan.keys, server) for plan in work.plans]
            self._driver.mailbox.send("parameter_server", server, Kind.PEEK_ROWS, message.number, arrays, extra=message.extra)

    def _peeked(self, message: Message) -> None:
        work, missing, samples = self._peeks.get(message.number, (None, set(), 0))
        if work is None or message.index not in missing:
            return
        if not self._take_rows(work, message.index, message.arrays):
            return
        missing.remove(message.index)
        if not missing:
            del self._peeks[message.number]
            self._driver.mailbox.send("nn_worker", 0, Kind.POOLED_PEEK, message.number, self._pooled(work, samples))


def _part(plan: GroupPlan, array: Array, server: int) -> Array:
    """Return one server's contiguous part of an array over unique rows."""
    return array[plan.starts[server] : plan.starts[server + 1]]


def _empty_rows(plans: Sequence[GroupPlan], groups: Sequence[Group]) -> list[Array]:
    return [np.empty((len(plan.keys), group.dim), np.float32) for plan, group in zip(plans, groups, strict=True)]
