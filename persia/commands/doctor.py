"""`persia doctor`: what this machine has of what persia needs."""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata, resources
from pathlib import Path

from persia import __version__
from persia.commands.exits import ExitCode
from persia.commands.output import print_json, print_text

SCHEMA_VERSION = 1
DISTRIBUTION = "persia-planner"
PYTHON_MIN = (3, 11)
BYTES_PER_GIB = 2**30
# For a checkout that is not installed, so that the doctor can still say what is missing.
CORE_PACKAGES = ("jinja2", "markupsafe", "matplotlib", "networkx", "numpy", "pydantic", "PyYAML", "rich", "simpy", "typer")
# What a simulation never needs, and a real run does.
RUNTIME_PACKAGES = ("torch", "numba", "pyzmq", "lz4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at: what was found, whether that is good, and whether persia cannot do without it."""

    name: str
    found: str
    good: bool
    essential: bool


def run(*, as_json: bool) -> ExitCode:
    """Print every finding; exit 4 where something essential is missing."""
    findings = examine()
    healthy = all(finding.good for finding in findings if finding.essential)
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "persia": __version__, "healthy": healthy, "findings": [asdict(f) for f in findings]})
    else:
        print_text("\n".join(_line(finding) for finding in findings))
        print_text("Everything a simulation needs is here." if healthy else "Something essential is missing: see the lines marked FAIL.")
    return ExitCode.OK if healthy else ExitCode.ENVIRONMENT


def examine() -> list[Finding]:
    """Look at the interpreter, the packages, the machine, the packaged data and the current folder."""
    return [
        _python(),
        *(_package(name, essential=True) for name in core_packages()),
        *(_package(name, essential=False) for name in RUNTIME_PACKAGES),
        _cores(),
        _memory(),
        _packaged_data(),
        _write_permission(Path.cwd()),
    ]


def core_packages() -> tuple[str, ...]:
    """Return the names that the installed distribution requires, extras left out."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return CORE_PACKAGES
    return tuple(re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requirements if "extra ==" not in line)


def _line(finding: Finding) -> str:
    mark = "ok  " if finding.good else "FAIL" if finding.essential else "-   "
    return f"{mark} {finding.name:<16} {finding.found}"


def _python() -> Finding:
    good = sys.version_info >= PYTHON_MIN
    wanted = "" if good else f"; {'.'.join(map(str, PYTHON_MIN))} or newer is needed"
    return Finding(
        name="python", found=f"{platform.python_version()} ({platform.system()} {platform.machine()}){wanted}", good=good, essential=True
    )


def _package(name: str, *, essential: bool) -> Finding:
    try:
        return Finding(name=name, found=metadata.version(name), good=True, essential=essential)
    except metadata.PackageNotFoundError:
        remedy = f"pip install {name}" if essential else "only a real run needs it: the extra 'runtime'"
        return Finding(name=name, found=f"not installed ({remedy})", good=False, essential=essential)


def _cores() -> Finding:
    return Finding(name="cores", found=str(len(os.sched_getaffinity(0))), good=True, essential=False)


def _memory() -> Finding:
    total_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / BYTES_PER_GIB
    good = total_gib >= 1
    return Finding(name="memory", found=f"{total_gib:.1f} GiB{'' if good else '; a simulation wants 1 GiB'}", good=good, essential=False)


def _packaged_data() -> Finding:
    try:
        names = sorted(entry.name for entry in resources.files("scenarios").iterdir() if entry.name.endswith(".yaml"))
    except ModuleNotFoundError:
        names = []
    found = f"{len(names)} packaged" if names else "none found: the installation is not complete"
    return Finding(name="scenarios", found=found, good=bool(names), essential=True)


def _write_permission(folder: Path) -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".persia-doctor-"):
            return Finding(name="write", found="the current folder can be written to", good=True, essential=True)
    except OSError as error:
        return Finding(name="write", found=f"the current folder cannot be written to: {error.strerror}", good=False, essential=True)
