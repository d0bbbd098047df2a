"""What one process leaves on disk while it runs: its event log, its spans and staleness records; and its running counts."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from persia.runtime.driver import Clock, Taken
from persia.schedule.log import FileLog, Header
from persia.trace import Span, StalenessRecord, TraceWriter

LOGS = "logs"
TRACES = "traces"


def log_path(attempt_folder: Path, role: str, index: int) -> Path:
    """Return where a process writes its event log: one file through all its restarts."""
    return attempt_folder / LOGS / f"{role}-{index}.jsonl"


def open_log(path: Path, header: Header) -> tuple[FileLog, TextIO]:
    """Begin the event log of a process, or go on with that of its predecessor, cut after its last whole line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = cut_after_last_line(path) if path.exists() else 0
    file = path.open("a", encoding="utf-8", newline="\n")
    return FileLog(file, None if end else header), file


def last_lines(path: Path, size_bytes: int) -> list[str]:
    """Return the whole lines in the last `size_bytes` of a file; none where there is no file."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        start = max(0, end - size_bytes)
        file.seek(start)
        lines = file.read(end - start).split(b"\n")
    return [line.decode("utf-8") for line in lines[1 if start else 0 : -1]]


def cut_after_last_line(path: Path) -> int:
    """Cut off the half line that a killed process may have left; return the size of the file."""
    end = _end_of_last_line(path)
    if end < path.stat().st_size:
        os.truncate(path, end)
    return end


def cut_after_last_lines(attempt_folder: Path) -> None:
    """Do so with all logs and traces of an attempt whose processes are gone; files without a line go."""
    for folder in (LOGS, TRACES):
        for path in (attempt_folder / folder).glob("*.jsonl"):
            if not cut_after_last_line(path):
                path.unlink()


def _end_of_last_line(path: Path) -> int:
    """Return where the last whole line of a file ends."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


class Records:
    """Spans and staleness of one process: streamed to its own trace file, and counted.

    `busy_s` sums the seconds of the spans by name; `counts` holds named numbers of the role's own.
    """

    def __init__(self, attempt_folder: Path, *, role: str, index: int, scenario: str, clock: Clock) -> None:
        folder = attempt_folder / TRACES
        folder.mkdir(parents=True, exist_ok=True)
        lives = len(list(folder.glob(f"{role}-{index}-*.jsonl")))
        self._writer = TraceWriter(folder / f"{role}-{index}-{lives}.jsonl", clock="wall", scenario=scenario)
        self._role = role
        self._index = index
        self._clock = clock
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.version: Counter[int] = Counter()
        self.in_flight: Counter[int] = Counter()
        self.more_counts: Callable[[], Mapping[str, float]] = dict  # those that someone else keeps

    @contextmanager
    def span(self, name: str, batch: int) -> Iterator[None]:
        """Record the time of the block."""
        watch = self._clock.watch()
        yield
        self.add_span(name, batch, watch.stop())

    def add_span(self, name: str, batch: int, taken: Taken) -> None:
        """Record a piece of work."""
        self.busy_s[name] += taken.end_s - taken.start_s
        self._writer.write(Span(tier=self._role, index=self._index, name=name, batch=batch, **taken._asdict()))

    def add_staleness(self, batch: int, version: int) -> None:
        """Record the version staleness of a batch on this server, now."""
        self.version[version] += 1
        self._writer.write(StalenessRecord(batch=batch, server=self._index, version=version, applied_s=self._clock.now_s()))

    def to_json(self) -> Mapping[str, Any]:
        """Return all counts since this process began."""
        return {
            "busy_s": dict(self.busy_s),
            "counts": {**self.counts, **self.more_counts()},
            "version": {str(value): count for value, count in self.version.items()},
            "in_flight": {str(value): count for value, count in self.in_flight.items()},
            "cpu_s": sum(os.times()[:2]),
            "resident_bytes": _resident_bytes(),
        }

    def close(self) -> None:
        """Flush and close the trace."""
        self._writer.close()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
