"""From an exception to an exit code and a message without a traceback."""

from __future__ import annotations

import errno
import traceback
from dataclasses import asdict

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.output import print_json
from persia.scenario import ScenarioError
from simulator.excuse import Excuse, Infeasible

SCHEMA_VERSION = 1
ISSUE_HINT = "This is a mistake in persia, not in your scenario; the lines above are what a report of it needs."


def report_failure(error: Exception) -> ExitCode:
    """Print what went wrong on stderr and return the exit code it stands for."""
    match error:
        case Failure():
            note(f"persia: {error}")
            return error.code
        case ScenarioError():
            note(str(error))
            return ExitCode.USAGE
        case Infeasible():
            return refuse(error, as_json=False)
        case ModuleNotFoundError():
            note(f"persia: the package {error.name!r} is not installed. `persia doctor` lists what is missing.")
            return ExitCode.ENVIRONMENT
        case OSError():
            note(f"persia: {_os_error(error)}")
            return ExitCode.ENVIRONMENT
        case MemoryError():
            note("persia: out of memory. Fewer steps, a smaller cluster, or `--fidelity phase` needs less.")
            return ExitCode.ENVIRONMENT
    note("".join(traceback.format_exception(error)).rstrip())
    note(ISSUE_HINT)
    return ExitCode.INTERNAL


def refuse(refusal: Infeasible, *, as_json: bool) -> ExitCode:
    """Print why a scenario cannot run: as one object on stdout, or as lines on stderr."""
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "fits": False, "excuses": [asdict(excuse) for excuse in refusal.excuses]})
    else:
        for line in excuse_lines(refusal.excuses):
            note(line)
    return ExitCode.INFEASIBLE


def excuse_lines(excuses: tuple[Excuse, ...]) -> list[str]:
    """Return each reason with what is missing, and its remedies below it."""
    lines: list[str] = []
    for excuse in excuses:
        lines.append(f"infeasible: {excuse.reason} [{excuse.bottleneck}]")
        lines += [f"  would make it fit: {remedy}" for remedy in excuse.remedies]
    return lines


def _os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    remedy = {
        errno.EACCES: " Choose a folder that you may write to, with --out.",
        errno.EROFS: " Choose a folder that can be written to, with --out.",
        errno.ENOSPC: " Free some space, or choose another disk with --out.",
    }.get(error.errno or 0, "")
    return f"{where}{error.strerror or error}.{remedy}"
