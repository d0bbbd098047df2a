"""How quiet the machine is: a fixed piece of work timed before and after, and who used the processors in between.

Linux only, as the runtime: `/proc/stat` tells all processes' processor time and what the hypervisor took.
"""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SLOWDOWN_MOST = 1.10
FOREIGN_MOST = 0.03  # of all cores
_SHOTS = 7
_WORK = Path(__file__).with_name("probe_work.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What disturbed a piece of measurement.

    `one_core_slowdown` and `two_cores_slowdown` are the probe's time over the fastest of the session, the worse of before and
    after; `steal_fraction` and `foreign_fraction` the share of all cores that the hypervisor and other processes took.
    """

    one_core_slowdown: float
    two_cores_slowdown: float
    steal_fraction: float
    foreign_fraction: float

    @property
    def disturbance(self) -> str:
        """Return what was visibly wrong; empty where nothing was."""
        found = []
        slowdown = max(self.one_core_slowdown, self.two_cores_slowdown)
        if slowdown > SLOWDOWN_MOST:
            found.append(f"probe {100 * (slowdown - 1):.0f} % slower")
        if self.steal_fraction > FOREIGN_MOST:
            found.append(f"{100 * self.steal_fraction:.0f} % of the cores stolen")
        if self.foreign_fraction > FOREIGN_MOST:
            found.append(f"other processes took {100 * self.foreign_fraction:.0f} % of the cores")
        return ", ".join(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Seconds so far: `at_s` of the clock; processor time of all processes, stolen, and of this one with its ended children."""

    at_s: float
    busy_s: float
    stolen_s: float
    own_s: float

    @classmethod
    def now(cls) -> Counters:
        """Return the counters as they stand."""
        with Path("/proc/stat").open(encoding="ascii") as lines:
            fields = [int(field) for field in next(lines).split()[1:]]
        tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
        user, nice, system = fields[:3]
        stolen = fields[7] if len(fields) > 7 else 0
        return cls(at_s=time.monotonic(), busy_s=(user + nice + system) * tick_s, stolen_s=stolen * tick_s, own_s=sum(os.times()[:4]))


class NoiseCheck:
    """The probe's two processes, idle between measurements, and the fastest answers of the session; a context manager."""

    def __init__(self, other_own_s: Callable[[], float] = lambda: 0.0) -> None:
        """`other_own_s` tells processor seconds of processes that are ours and no children of this one."""
        self._other_own_s = other_own_s
        self._children: list[subprocess.Popen[str]] = []
        self._fastest_s = (math.inf, math.inf)
        self._last = (1.0, 1.0)
        self._cores = os.cpu_count() or 1

    def __enter__(self) -> NoiseCheck:
        command = [sys.executable, "-I", str(_WORK)]
        pipe = subprocess.PIPE
        self._children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True) for _ in range(2)]
        self.probe()
        self.probe()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self._children:
            with contextlib.suppress(OSError):
                _pipe(child.stdin).close()
            child.kill()
            child.wait()
            _pipe(child.stdout).close()

    def probe(self) -> tuple[float, float]:
        """Time the work on one core, then on two at once; return both over the fastest of the session, at least 1."""
        now = self._probe_once()
        if max(now) > SLOWDOWN_MOST:  # a short blip hits the probe itself and nothing else
            again = self._probe_once()
            now = min(now[0], again[0]), min(now[1], again[1])
        self._last = now
        return now

    def _probe_once(self) -> tuple[float, float]:
        one_s, two_s = max(self._ask(1)), max(self._ask(2))
        self._fastest_s = (min(one_s, self._fastest_s[0]), min(two_s, self._fastest_s[1]))
        return one_s / self._fastest_s[0], two_s / self._fastest_s[1]

    def _ask(self, processes: int) -> list[float]:
        asked = self._children[:processes]
        for child in asked:
            _pipe(child.stdin).write(f"{_SHOTS}\n")
            _pipe(child.stdin).flush()
        return [float(_pipe(child.stdout).readline()) for child in asked]

    @contextlib.contextmanager
    def watch(self) -> Iterator[list[Noise]]:
        """Give a list that holds, after the block, what disturbed it; every child process of the block must have ended."""
        before = self._last
        start, start_other_s = Counters.now(), self._other_own_s()
        found: list[Noise] = []
        yield found
        end, end_other_s = Counters.now(), self._other_own_s()
        after = self.probe()
        room_s = max(1e-9, (end.at_s - start.at_s) * self._cores)
        foreign_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s) - (end_other_s - start_other_s)
        found.append(
            Noise(
                one_core_slowdown=max(before[0], after[0]),
                two_cores_slowdown=max(before[1], after[1]),
                steal_fraction=(end.stolen_s - start.stolen_s) / room_s,
                foreign_fraction=max(0.0, foreign_s / room_s),
            )
        )


def _pipe(file: IO[str] | None) -> IO[str]:
    assert file is not None
    return file
