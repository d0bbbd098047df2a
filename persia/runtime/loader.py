"""The data loader: reads batches, sends ID features to an embedding worker, the rest to the batch's rank."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from persia.data import Batch, DataSet
from persia.runtime.driver import Action, Driver, Listener
from persia.runtime.kept import keep_number
from persia.runtime.records import Records
from persia.runtime.transport import Kind, Message
from persia.schedule.loader import LoaderSchedule
from persia.schedule.messages import (
    BatchCommitted,
    BatchExpired,
    BatchRead,
    Command,
    CommitOffset,
    CreditGranted,
    ReadBatch,
    SendBatch,
)

_RESEND_S = 0.2  # a peer whose queue is full is tried again so much later


class Loader:
    """What a LoaderSchedule asks for, and what it hears."""

    def __init__(self, driver: Driver, schedule: LoaderSchedule, data: DataSet, records: Records, offset_file: Path) -> None:
        self._driver = driver
        self._schedule = schedule
        self._data = data
        self._records = records
        self._offset_file = offset_file
        self._ready: dict[int, Batch] = {}
        self._unsent: list[tuple[float, int]] = []  # (when to say that it must be sent again, batch)

    def actions(self) -> Mapping[type[Command], Action]:
        """Return what carries out each command."""
        return {ReadBatch: self._read, SendBatch: self._send, CommitOffset: self._commit}

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message."""
        tell = self._driver.tell
        return {
            Kind.CREDIT: lambda message: tell(CreditGranted(message.number)),
            Kind.COMMITTED: lambda message: tell(BatchCommitted(message.number)),
            Kind.EXPIRED: lambda message: tell(BatchExpired(message.number)),
            Kind.HELLO: self._hello,
        }

    def posted(self, item: object) -> None:
        """A loader has no other threads."""

    def tick(self, now_s: float) -> float | None:
        """Give up on what could not be sent, so that it is sent again."""
        while self._unsent and self._unsent[0][0] <= now_s:
            self._driver.tell(BatchExpired(self._unsent.pop(0)[1]))
        return self._unsent[0][0] if self._unsent else None

    def _read(self, command: ReadBatch) -> None:
        with self._records.span("read", command.batch):
            self._ready[command.batch] = self._data.batch(command.batch)
        self._driver.tell(BatchRead(command.batch))

    def _send(self, command: SendBatch) -> None:
        batch = self._ready.pop(command.batch)
        features = [array for bags in batch.groups for array in (bags.ids, bags.offsets)]
        mailbox = self._driver.mailbox
        sent = mailbox.send("embedding_worker", command.worker, Kind.FEATURES, command.batch, features)
        sent &= mailbox.send("nn_worker", command.rank, Kind.SAMPLES, command.batch, (batch.labels, batch.dense))
        self._records.counts["samples_sent"] += len(batch.labels)
        self._records.counts["bad_rows"] = self._data.bad_rows
        if not sent:
            self._unsent.append((self._driver.clock.now_s() + _RESEND_S, command.batch))

    def _commit(self, command: CommitOffset) -> None:
        keep_number(self._offset_file, command.batch)

    def _hello(self, message: Message) -> None:
        """An embedding worker came back with an empty buffer."""
        if message.role == "embedding_worker":
            workers = self._schedule.limits.workers
            for batch in sorted(batch for batch in self._schedule.sent if batch % workers == message.index):
                self._driver.tell(BatchExpired(batch))
