"""`persia trace`: the timeline of a simulated or a real run, as one file for Perfetto."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.output import print_text
from persia.trace import Record, Span, StalenessRecord, TraceError, read_trace, to_chrome

_REMEDY = "Run again to get a whole trace."


def run(*, place: Path, out: Path, attempt: int | None) -> ExitCode:
    """Write the run's spans and staleness records for Perfetto; a file that exists is left alone."""
    _refuse_existing(out)
    traces = _traces(place, attempt)
    try:
        records = [record for path in traces for record in _records(path)]
    except TraceError as error:
        raise Failure(ExitCode.USAGE, f"{error}. {_REMEDY}") from error
    if not records:
        raise Failure(ExitCode.USAGE, f"{traces[0].parent}: nothing has been traced there yet. Let the run train a few batches first.")
    _write(out, json.dumps(to_chrome(records), separators=(",", ":"), allow_nan=False) + "\n")
    counts = Counter(type(record) for record in records)
    tiers = {record.tier for record in records if isinstance(record, Span)}
    print_text(
        f"Wrote {out}: {counts[Span]:,} spans of {', '.join(sorted(tiers)) or 'no tier'}, {counts[StalenessRecord]:,} staleness records. "
        "Open it in https://ui.perfetto.dev."
    )
    return ExitCode.OK


def _traces(place: Path, attempt: int | None) -> list[Path]:
    """Return the trace files of a run: a simulated one has one, an attempt of a real one has one a process."""
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise Failure(ExitCode.USAGE, f"{place}: no such run. Name the directory of a run (`--out`, or runs/NAME-001).")
    attempts = {int(path.name): path for path in place.glob("attempts/*") if path.name.isdecimal() and path.is_dir()}
    if attempts:
        number = max(attempts) if attempt is None else attempt
        if number not in attempts:
            raise Failure(ExitCode.USAGE, f"{place} has no attempt {number}. It has {', '.join(map(str, sorted(attempts)))}.")
        return _found(attempts[number] / "traces", "*.jsonl", "Its processes ended before they wrote any; try another --attempt.")
    if attempt is not None:
        raise Failure(ExitCode.USAGE, f"{place} holds no attempts of a real run. Leave --attempt out for a simulated one.")
    if (place / "traces").is_dir():
        return _found(place / "traces", "*.jsonl", "The processes of this attempt ended before they wrote any.")
    return _found(place, "trace.jsonl", "A simulation writes it when it ends; name the directory of one that did, or of a real run.")


def _found(folder: Path, pattern: str, remedy: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise Failure(ExitCode.USAGE, f"{folder} holds no trace ({pattern}). {remedy}")
    return found


def _records(path: Path) -> Iterator[Record]:
    """Yield a file's records, each with values that a timeline can show; without the half line that a killed process leaves.

    Raises:
        TraceError: a line is damaged.
    """
    number = 1
    try:
        for record in read_trace(path):
            number += 1
            if not _is_sound(record):
                raise TraceError(f"{path}:{number}: not a span or staleness record: a value is of the wrong kind")
            yield record
    except TraceError as error:
        half = _half_line(path)
        if half is None or not str(error).startswith(f"{path}:{half}:"):
            raise
        note(f"{path}:{half}: half a line, as a process that is killed leaves it, was left out.")
    except (RecursionError, UnicodeDecodeError) as error:
        line = _first_line_not_text(path) if isinstance(error, UnicodeDecodeError) else number + 1
        raise TraceError(f"{path}:{line}: not a line of a trace") from error


def _is_sound(record: Record) -> bool:
    for field in fields(record):
        value = getattr(record, field.name)
        if value is None and field.default is None:
            continue
        if field.name in ("tier", "name"):
            sound = isinstance(value, str)
        elif field.name.endswith("_s"):
            sound = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        else:
            sound = type(value) is int
        if not sound:
            return False
    return True


def _half_line(path: Path) -> int | None:
    """Return the number of the last line where it has no end, else None."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            last = block[-1:]
    return lines + 1 if last != b"\n" or lines == 0 else None


def _first_line_not_text(path: Path) -> int:
    """Return the number of the line that no text file has: what is read as text is read in blocks, which know of no lines."""
    with path.open("rb") as file:
        return next((number for number, line in enumerate(file, start=1) if not _is_text(line)), 1)


def _is_text(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _refuse_existing(out: Path) -> None:
    if os.path.lexists(out):
        raise Failure(ExitCode.USAGE, f"{out} exists already and is left as it is. Give another name: -o FILE.")


def _write(out: Path, text: str) -> None:
    """Write a new file that is either absent or whole."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        _refuse_existing(out)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
