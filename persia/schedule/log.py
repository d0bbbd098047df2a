"""The event log: every event a schedule heard and every command it gave, its digest, and the replay that checks it.

The digest is the SHA-256 of little-endian doubles: for each entry time_s, role, index, then for each word its code (its
place in `lines.WORDS`) and its fields, then -1.  Every integer below 2**53 is exact in a double.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from typing import Any, Protocol, TextIO, cast

from persia.schedule.lines import WORDS, from_line, to_line
from persia.schedule.loader import LoaderSchedule
from persia.schedule.memory import Done
from persia.schedule.messages import Command, Event, Restarted, Word
from persia.schedule.modes import Limits, LoaderLimits, Reduction, ServerLimits, WorkerLimits
from persia.schedule.rank import RankSchedule
from persia.schedule.server import ServerSchedule
from persia.schedule.worker import WorkerSchedule

LOG_VERSION = 1
ROLES = ("loader", "embedding_worker", "parameter_server", "nn_worker")
_ROLE_CODES = {role: float(code) for code, role in enumerate(ROLES)}
_FOLD_EVERY = 1 << 11  # numbers: few enough to stay in the processor's cache


class Schedule(Protocol):
    """What the four schedules have in common: one door, and the time of the next wish to be woken."""

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Note one fact, then take every decision it allows."""
        ...

    def next_timer_s(self) -> float | None:
        """Return when a Timer event is wanted, or None."""
        ...


def _reader_of(kind: type[Word]) -> tuple[Callable[[Word], float] | None, Callable[[Word], tuple[float, ...]]]:
    """Return what reads a word's only field, or None, and what reads all of its fields."""
    names = [f.name for f in fields(kind)]
    if len(names) == 1:
        return attrgetter(names[0]), lambda word: ()
    return None, attrgetter(*names) if names else lambda word: ()


_READERS = {kind: (float(code), *_reader_of(kind)) for code, kind in enumerate(WORDS.values())}


class Log(Protocol):
    """Where a driver writes what its schedules heard and said."""

    def record(self, time_s: float, role: str, index: int, event: Event, commands: Sequence[Command]) -> None:
        """Append one entry."""
        ...


class DigestLog:
    """Folds every entry into a digest and keeps none: an event log in memory would slow a simulation down."""

    __slots__ = ("_hash", "_numbers", "entries")

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._numbers: list[float] = []
        self.entries = 0

    def record(self, time_s: float, role: str, index: int, event: Event, commands: Sequence[Command]) -> None:
        """Fold one entry into the digest."""
        numbers = self._numbers
        code, read_one, read_all = _READERS[type(event)]
        if read_one is not None:
            numbers += (time_s, _ROLE_CODES[role], index, code, read_one(event))
        else:
            numbers += (time_s, _ROLE_CODES[role], index, code, *read_all(event))
        for command in commands:
            code, read_one, read_all = _READERS[type(command)]
            if read_one is not None:
                numbers += (code, read_one(command))
            else:
                numbers += (code, *read_all(command))
        numbers.append(-1.0)
        self.entries += 1
        if len(numbers) > _FOLD_EVERY:
            self._fold()

    def _fold(self) -> None:
        folded = array("d", self._numbers)
        if sys.byteorder == "big":
            folded.byteswap()
        self._hash.update(folded.tobytes())
        self._numbers.clear()

    def hexdigest(self) -> str:
        """Return the digest of all entries so far, in hexadecimal."""
        self._fold()
        return self._hash.hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a log: who heard what when, and what it decided."""

    time_s: float
    role: str
    index: int
    event: Event
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a replay needs to build the schedules: the limits of each role, and the step the run began before.

    `loader` holds the limits of loader 0.
    """

    rank: Limits
    worker: WorkerLimits
    server: ServerLimits
    loader: LoaderLimits
    first_step: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the header's object, as the first line of a log holds it."""
        return {"log_version": LOG_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Header:
        """Return the header that `to_json` wrote.

        Raises:
            ValueError: it is no header, or the log was written by another version.
        """
        if not isinstance(data, Mapping) or data.get("log_version") != LOG_VERSION:
            raise ValueError(f"the log does not begin with a header of log version {LOG_VERSION}")
        try:
            return cls(
                rank=Limits(**{**data["rank"], "reduction": Reduction(data["rank"]["reduction"])}),
                worker=WorkerLimits(**data["worker"]),
                server=ServerLimits(**data["server"]),
                loader=LoaderLimits(**data["loader"]),
                first_step=data["first_step"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"the header of the log lacks or does not know {error}") from error


class FileLog:
    """Streams every entry to a file as one line of JSON, and keeps the digest beside it."""

    __slots__ = ("_digest", "_file")

    def __init__(self, file: TextIO, header: Header | None) -> None:
        """Begin a file with `header`, or go on with one that has it already (None)."""
        self._file = file
        self._digest = DigestLog()
        if header is not None:
            file.write(json.dumps(header.to_json()) + "\n")

    def record(self, time_s: float, role: str, index: int, event: Event, commands: Sequence[Command]) -> None:
        """Write one entry; the time is written so that it reads back exactly."""
        self._digest.record(time_s, role, index, event, commands)
        line = [time_s, role, index, to_line(event), *map(to_line, commands)]
        self._file.write(json.dumps(line) + "\n")

    def hexdigest(self) -> str:
        """Return the digest of all entries so far, in hexadecimal."""
        return self._digest.hexdigest()


def read_log(lines: Iterable[str]) -> tuple[Header, Iterator[Entry]]:
    """Return the header and the entries of a log that FileLog wrote; the entries are read as they are asked for.

    Raises:
        ValueError: a line is not an entry (the message says which).
    """
    rest = iter(lines)
    first = next(rest, None)
    if first is None:
        raise ValueError("the log is empty")
    return Header.from_json(json.loads(first)), _entries(rest)


def _entries(lines: Iterator[str]) -> Iterator[Entry]:
    for number, line in enumerate(lines, start=2):
        try:
            yield _entry(*json.loads(line))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"line {number} of the log is no entry: {error}") from error


def _entry(time_s: float, role: str, index: int, event: str, *commands: str) -> Entry:
    words = [from_line(event), *map(from_line, commands)]
    if not isinstance(words[0], Event) or not all(isinstance(word, Command) for word in words[1:]):
        raise ValueError("an entry is one event, then commands")
    return Entry(time_s=float(time_s), role=role, index=index, event=words[0], commands=tuple(cast("list[Command]", words[1:])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first entry whose commands the core would not give: its place from 0, and both answers."""

    entry: int
    logged: Entry
    replayed: tuple[Command, ...]


def replay(header: Header, entries: Iterable[Entry]) -> Difference | None:
    """Feed a log's events to fresh schedules; return the first difference between their commands and the log's.

    Raises:
        ValueError: an entry's role is unknown.
        KeyError: an entry's event is not one that its role can hear.
    """
    schedules: dict[tuple[str, int], Schedule] = {}
    for number, entry in enumerate(entries):
        key = (entry.role, entry.index)
        if isinstance(entry.event, Restarted):
            schedules[key] = restarted(header, entry.role, entry.index, entry.event, schedules.get(key))
        elif key not in schedules:
            schedules[key] = new_schedule(header, entry.role, entry.index)
        replayed = tuple(schedules[key].handle(entry.event, entry.time_s))
        if replayed != entry.commands:
            return Difference(entry=number, logged=entry, replayed=replayed)
    return None


def new_schedule(header: Header, role: str, index: int) -> Schedule:
    """Return the schedule of process `index` of `role`, as a run with this header begins it.

    Raises:
        ValueError: the role is unknown.
    """
    match role:
        case "nn_worker":
            return RankSchedule(header.rank, index, header.first_step)
        case "embedding_worker":
            return WorkerSchedule(header.worker)
        case "parameter_server":
            return ServerSchedule(header.server, Done(header.server.world_size, header.first_step))
        case "loader":
            return LoaderSchedule(loader_limits(header.loader, index))
    raise ValueError(f"unknown role {role!r}: one of {', '.join(ROLES)}")


def restarted(header: Header, role: str, index: int, event: Restarted, before: Schedule | None) -> Schedule:
    """Return the schedule of a process that came back: `before`, its last one, leaves behind what is in the table only."""
    if isinstance(before, ServerSchedule):
        return ServerSchedule(header.server, before.applied)
    if role == "loader":
        return LoaderSchedule(replace(loader_limits(header.loader, index), first_batch=event.batch))
    return new_schedule(header, role, index)


def loader_limits(limits: LoaderLimits, index: int) -> LoaderLimits:
    """Return the limits of loader `index`, given those of another."""
    return replace(limits, loader=index)
