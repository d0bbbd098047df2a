"""Replays event logs from disk: the logs of a simulated or a real run, streamed through the core that wrote them.

A simulated run has one log, `events.jsonl`; a real one has a log a process, `attempts/NNN/logs/ROLE-INDEX.jsonl`, each with
a header of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from persia.schedule.lines import to_line
from persia.schedule.log import ROLES, Difference, Entry, Header, read_log, replay

HALF_LINE = "its last line is half written, as a process that is killed leaves it, and was left out"
NOTHING = "nothing was written before its process ended"

_LONGEST_LINE_BYTES = 1 << 20
_REPORT_EVERY_LINES = 1000
# What senseless events and limits make the core raise.
_SENSELESS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class LogError(ValueError):
    """What cannot be replayed: the message names the file and the line, and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One log, replayed up to its end or its first difference.

    `entries` counts those replayed, the different one included; `remark` says what of the file was left out.
    """

    file: Path
    entries: int
    difference: Difference | None
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return this log's object in `persia replay --json`."""
        return {
            "file": str(self.file),
            "entries": self.entries,
            "difference": None if self.difference is None else difference_json(self.difference),
            "remark": self.remark or None,
        }


def difference_json(difference: Difference) -> dict[str, Any]:
    """Return a difference's object: where it is, what was heard, both answers; `line` counts from 1, `entry` from 0."""
    logged = difference.logged
    return {
        "entry": difference.entry,
        "line": difference.entry + 2,
        "time_s": logged.time_s,
        "role": logged.role,
        "index": logged.index,
        "event": to_line(logged.event),
        "logged": [to_line(command) for command in logged.commands],
        "replayed": [to_line(command) for command in difference.replayed],
    }


def find_logs(place: Path) -> list[Path]:
    """Return the event logs of a run directory, of one of its attempts, or of a folder of logs; or the one file itself.

    Raises:
        LogError: there are none.
    """
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise LogError(f"{place}: no such file or folder. Name the directory of a run (`--out`, or runs/NAME-001), or a log in it.")
    found = [path for path in (place / "events.jsonl",) if path.is_file()] + _sorted(place, "attempts/*/logs/*.jsonl")
    found = found or _sorted(place, "logs/*.jsonl") or _sorted(place, "*.jsonl")
    if not found:
        raise LogError(
            f"{place} holds no event log: neither events.jsonl of a simulated run, nor attempts/NNN/logs/*.jsonl of a real one, "
            "nor any *.jsonl. Name the directory of a run."
        )
    return found


def _sorted(place: Path, pattern: str) -> list[Path]:
    """Return the files of a pattern, `server-2` before `server-10`."""
    parts = re.compile(r"(\d+)")
    return sorted(
        (path for path in place.glob(pattern) if path.is_file()),
        key=lambda path: [int(part) if part.isdigit() else part for part in parts.split(str(path))],
    )


def replay_log(path: Path, progress: Callable[[int], None] = lambda read_bytes: None) -> Replayed:
    """Feed one log to fresh schedules, line by line; `progress` hears now and then how many bytes are read.

    Raises:
        LogError: the file is no event log, or one of its lines is damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        lines = _Lines(path, file, progress)
        try:
            header, entries = read_log(lines)
        except LogError:
            raise
        except (RecursionError, ValueError) as error:
            if lines.whole:
                raise lines.error(f"not the first line of an event log: {error}") from error
            return Replayed(file=path, entries=0, difference=None, remark=NOTHING)
        heard = _Entries(lines, entries)
        difference = heard.replay(header)
    return Replayed(file=path, entries=heard.count, difference=difference, remark=lines.remark)


@dataclass(slots=True)
class _Lines:
    """The whole lines of a file, counted."""

    path: Path
    file: BinaryIO
    progress: Callable[[int], None]
    whole: int = 0
    remark: str = ""

    def __iter__(self) -> Iterator[str]:
        while raw := self.file.readline(_LONGEST_LINE_BYTES):
            if not raw.endswith(b"\n") and len(raw) < _LONGEST_LINE_BYTES:
                self.remark = HALF_LINE
                break
            self.whole += 1
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise self.error(f"not text: {error.reason}") from error
            if self.whole % _REPORT_EVERY_LINES == 0:
                self.progress(self.file.tell())
            yield line
        self.progress(self.file.tell())

    def error(self, what: str) -> LogError:
        """Return the error about the line that was read last."""
        remedy = "It was damaged, or written by another version of persia; run again to get a log that this one reads."
        if self.whole == 1:
            remedy = "Name an event log, or a folder of nothing else."
        return LogError(f"{self.path}:{self.whole}: {what}. {remedy}")


@dataclass(slots=True)
class _Entries:
    """The entries of a log, each checked before the core hears of it."""

    lines: _Lines
    entries: Iterator[Entry]
    count: int = 0
    _last: Entry | None = field(default=None, init=False)

    def replay(self, header: Header) -> Difference | None:
        """Return the first difference."""
        try:
            return replay(header, self)
        except LogError:
            raise
        except _SENSELESS as error:
            assert self._last is not None  # what comes before the core has heard of an entry is a LogError
            heard = f"{self._last.role} {self._last.index} cannot hear {to_line(self._last.event)!r} here"
            raise self.lines.error(f"{heard} ({type(error).__name__}: {error})") from error

    def __iter__(self) -> Iterator[Entry]:
        try:
            for entry in self.entries:
                self._check(entry)
                self.count += 1
                self._last = entry
                yield entry
        except LogError:
            raise
        except (RecursionError, ValueError) as error:
            raise self.lines.error(f"not an entry: {error.__cause__ or error}") from error

    def _check(self, entry: Entry) -> None:
        if entry.role not in ROLES:
            raise self.lines.error(f"unknown role {str(entry.role)[:60]!r}; one of {', '.join(ROLES)}")
        if type(entry.index) is not int or entry.index < 0 or not math.isfinite(entry.time_s):
            raise self.lines.error(f"process {str(entry.index)[:60]!r} at {entry.time_s} s; expected a number from 0 at a finite time")
