"""`persia replay`: does the core, given a run's events again, decide again what it decided then?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from persia.commands.exits import ExitCode, Failure
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.replaying import LogError, Replayed, difference_json, find_logs, replay_log

SCHEMA_VERSION = 1


def run(*, place: Path, as_json: bool) -> ExitCode:
    """Replay every log of a run; exit 1 where the core would decide otherwise, 2 where there is nothing to replay."""
    try:
        logs = _replayed(find_logs(place))
    except LogError as error:
        raise Failure(ExitCode.USAGE, str(error)) from error
    identical = all(log.difference is None for log in logs)
    entries = sum(log.entries for log in logs)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "logs": [log.to_json() for log in logs], "entries": entries, "identical": identical})
    else:
        print_text("\n".join([*(line for log in logs for line in _lines(log, place)), _verdict(logs, entries)]))
    return ExitCode.OK if identical else ExitCode.GATE_FAILED


def _replayed(paths: Sequence[Path]) -> list[Replayed]:
    """Replay the logs in turn, moving one bar over all of them."""
    sizes = [path.stat().st_size for path in paths]
    whole = max(1, sum(sizes))
    logs: list[Replayed] = []
    with progress_bar("replay") as progress:

        def read(read_bytes: int) -> None:
            progress(min(1.0, (sum(sizes[: len(logs)]) + read_bytes) / whole))

        for path in paths:
            logs.append(replay_log(path, read))
    return logs


def _lines(log: Replayed, place: Path) -> Iterator[str]:
    name = str(log.file.relative_to(place)) if log.file != place else str(place)
    yield f"{name:<44}  {log.entries:>10,} entries  {'identical' if log.difference is None else 'DIFFERENT'}"
    if log.remark:
        yield f"  {log.remark}"
    if log.difference is not None:
        found = difference_json(log.difference)
        heard = f"at {found['time_s']:.6f} s {found['role']} {found['index']} heard {found['event']}"
        yield f"  entry {found['entry']:,} (line {found['line']:,}): {heard}"
        yield f"    logged    {'; '.join(found['logged']) or 'no command'}"
        yield f"    replayed  {'; '.join(found['replayed']) or 'no command'}"


def _verdict(logs: Sequence[Replayed], entries: int) -> str:
    different = sum(log.difference is not None for log in logs)
    count = f"{entries:,} entries in {len(logs)} log{'s' if len(logs) != 1 else ''}"
    if not different:
        return f"{count}: identical."
    return f"{count}: {different} different. The log was changed, or written by a core that decides otherwise than this one."
