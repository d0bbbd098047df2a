"""Spans and staleness records: what happened when, in one schema for the simulated and the real cluster.

A trace is a JSONL file: one header line, then one record a line, in the order in which the writer got them.  Times are
seconds since the start of the run, on the clock that the header names (`simulated` or `wall`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TextIO

SCHEMA_VERSION: Final = 1
MICROSECONDS_PER_S: Final = 1e6

Clock = Literal["simulated", "wall"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One piece of work of one batch on one lane (`tier`, `index`), from `start_s` to `end_s` in seconds.

    `cpu_s` is the processor time that its thread used meanwhile; None where nobody has measured it.
    """

    tier: str
    index: int
    name: str
    batch: int
    start_s: float
    end_s: float
    cpu_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessRecord:
    """Version staleness of one batch on one server, known at `applied_s`.

    `version` is the number of gradient updates of other batches that `server` applied between serving the batch's lookup
    and applying the batch's own update.
    """

    batch: int
    server: int
    version: int
    applied_s: float


Record = Span | StalenessRecord

_KINDS: Final[dict[str, type[Span] | type[StalenessRecord]]] = {"span": Span, "staleness": StalenessRecord}
_NAMES: Final[dict[type, str]] = {kind: name for name, kind in _KINDS.items()}


class TraceError(ValueError):
    """A trace file that is no trace: the message names the file and the line."""


class TraceWriter:
    """Writes a trace as a stream: memory does not grow with its length.

    Every record leaves as one whole line; closing flushes.  A context manager.
    """

    def __init__(self, path: Path, *, clock: Clock, scenario: str) -> None:
        self._file: TextIO = path.open("x", encoding="utf-8", newline="\n")
        self._put({"kind": "trace", "schema_version": SCHEMA_VERSION, "clock": clock, "scenario": scenario})

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def write(self, record: Record) -> None:
        """Append one record."""
        self._put({"kind": _NAMES[type(record)], **{name: value for name, value in asdict(record).items() if value is not None}})

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        self._file.close()

    def _put(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row, separators=(",", ":"), allow_nan=False) + "\n")


def write_trace(path: Path, records: Iterable[Record], *, clock: Clock, scenario: str) -> None:
    """Write a new trace file; an existing one is refused with FileExistsError."""
    with TraceWriter(path, clock=clock, scenario=scenario) as writer:
        for record in records:
            writer.write(record)


def read_trace(path: Path) -> Iterator[Record]:
    """Yield a trace file's records in file order, one line in memory at a time.

    Raises:
        TraceError: the header is missing or of another version, or a line is not a record.
    """
    with path.open(encoding="utf-8") as lines:
        _check_header(path, next(lines, ""))
        for number, line in enumerate(lines, start=2):
            yield _parse(path, number, line)


def _check_header(path: Path, line: str) -> None:
    header = _load(path, 1, line)
    if header.get("kind") != "trace":
        raise TraceError(f"{path}:1: not a trace: the first line must be its header")
    if header.get("schema_version") != SCHEMA_VERSION:
        raise TraceError(f"{path}:1: schema_version {header.get('schema_version')!r}; this program reads {SCHEMA_VERSION}")


def _parse(path: Path, number: int, line: str) -> Record:
    row = _load(path, number, line)
    kind = _KINDS.get(str(row.pop("kind", None)))
    if kind is None or not {f.name for f in fields(kind) if f.default is MISSING} <= row.keys() <= {f.name for f in fields(kind)}:
        raise TraceError(f"{path}:{number}: not a span or staleness record of schema {SCHEMA_VERSION}")
    return kind(**row)


def _load(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"{path}:{number}: not JSON: {error.msg}") from error
    if not isinstance(row, dict):
        raise TraceError(f"{path}:{number}: not a JSON object")
    return row


def to_chrome(records: Iterable[Record]) -> dict[str, Any]:
    """Return the records as a Chrome trace-event object, which Perfetto and chrome://tracing open.

    A tier is a process and a machine's piece of work a thread.  Work of several batches may overlap on one machine, which
    a thread of the viewer cannot show, so overlapping spans are spread over as many threads as they need.  Staleness
    becomes a counter track a server.  Times are microseconds, as the format wants; `tdur` is a span's processor time.
    """
    spans, staleness = _split(records)
    tiers = {tier: number for number, tier in enumerate(sorted({span.tier for span in spans}), start=1)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": tier}} for tier, number in tiers.items()
    ]
    events += _threads(spans, tiers)
    counters = len(tiers) + 1
    if staleness:
        events.append({"ph": "M", "name": "process_name", "pid": counters, "tid": 0, "args": {"name": "version staleness"}})
    events += [
        {"ph": "C", "name": f"server {record.server}", "pid": counters, "tid": 0, "ts": record.applied_s * MICROSECONDS_PER_S,
         "args": {"updates": record.version}}
        for record in staleness
    ]  # fmt: skip
    return {"displayTimeUnit": "ms", "traceEvents": events}


def _split(records: Iterable[Record]) -> tuple[list[Span], list[StalenessRecord]]:
    """Return spans by start, longer first, and staleness by time."""
    spans: list[Span] = []
    staleness: list[StalenessRecord] = []
    for record in records:
        if isinstance(record, Span):
            spans.append(record)
        else:
            staleness.append(record)
    spans.sort(key=lambda span: (span.start_s, -span.end_s))
    staleness.sort(key=lambda record: record.applied_s)
    return spans, staleness


def _threads(spans: list[Span], tiers: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield a complete event a span, and a name for each thread at its first use."""
    free_s: dict[tuple[str, int, str], list[float]] = {}  # lane -> when each of its threads is free
    threads: dict[tuple[str, int, str, int], int] = {}
    for span in spans:
        lane = (span.tier, span.index, span.name)
        busy = free_s.setdefault(lane, [])
        slot = next((number for number, until_s in enumerate(busy) if until_s <= span.start_s), len(busy))
        busy[slot : slot + 1] = [span.end_s]
        pid = tiers[span.tier]
        if (*lane, slot) not in threads:
            threads[*lane, slot] = len(threads) + 1
            label = f"{span.tier} {span.index} {span.name}" + (f" ({slot + 1})" if slot else "")
            yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": threads[*lane, slot], "args": {"name": label}}
        used = {} if span.cpu_s is None else {"tdur": span.cpu_s * MICROSECONDS_PER_S}
        yield {
            "ph": "X", "name": f"{span.name} {span.batch}", "pid": pid, "tid": threads[*lane, slot],
            "ts": span.start_s * MICROSECONDS_PER_S, "dur": (span.end_s - span.start_s) * MICROSECONDS_PER_S, "args": {"batch": span.batch},
            **used,
        }  # fmt: skip
