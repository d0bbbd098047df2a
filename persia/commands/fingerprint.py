"""What machine this is, without its name: enough to say whether two results are of the same kind of machine."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from persia.scenario import Profile

_PACKAGES = ("numpy", "numba", "pyzmq", "torch")
_GIB = 2.0**30


def machine_facts() -> dict[str, Any]:
    """Return processor, cores, memory, kernel and library versions; None for what cannot be known."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gib = None
    with suppress(ValueError, OSError):
        memory_gib = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1)
    return {
        "cpu": _cpu(),
        "cores": cores,
        "ram_gib": memory_gib,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def differences(profile: Profile) -> list[str]:
    """Return in what a calibrated profile's machine and libraries differ from these; nothing for one of literature."""
    if profile.machine is None:
        return []
    here, there = machine_facts(), profile.machine
    pairs = [
        ("processor", there.cpu, str(here["cpu"])),
        ("cores", str(there.cores), str(here["cores"])),
        ("Python", there.python, here["python"]),
    ]
    pairs += [(name, there.packages.get(name, "none"), str(version)) for name, version in here["packages"].items()]
    return [f"{name} {then}, here {now}" for name, then, now in pairs if then != now]


def _cpu() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def core_quota() -> float:
    """Return the cores that this process may use: those it is allowed to run on, or fewer by its control group's quota."""
    cores = float(len(os.sched_getaffinity(0)))
    quotas = [_quota_v2(Path("/sys/fs/cgroup/cpu.max")), _quota_v1(Path("/sys/fs/cgroup/cpu"))]
    return min([cores, *[quota for quota in quotas if quota is not None]])


def _quota_v2(path: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = path.read_text(encoding="ascii").split()
        return None if quota == "max" else float(quota) / float(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota = float((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return None if quota < 0.0 else quota / float((folder / "cpu.cfs_period_us").read_text(encoding="ascii"))
    return None
