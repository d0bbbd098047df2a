"""How quiet the machine is while something is measured: what the hypervisor and other processes took of its cores.

Linux only, as the runtime: `/proc/stat` tells all processes' processor time and what the hypervisor took.  How fast the memory
is meanwhile, persia.runtime.probe tells.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

STEAL_MOST, FOREIGN_MOST = 0.01, 0.03  # of all cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """What disturbed a piece of measurement: the share of all cores that the hypervisor and other processes took."""

    steal_fraction: float
    foreign_fraction: float

    @property
    def disturbance(self) -> str:
        """Return what was visibly wrong; empty where nothing was."""
        found = []
        if self.steal_fraction > STEAL_MOST:
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


@contextlib.contextmanager
def watch_noise(other_own_s: Callable[[], float] = lambda: 0.0) -> Iterator[list[Noise]]:
    """Give a list that holds, after the block, what disturbed it; every child process of the block must have ended.

    `other_own_s` tells processor seconds of processes that are ours and no children of this one.
    """
    start, start_other_s = Counters.now(), other_own_s()
    found: list[Noise] = []
    yield found
    end, end_other_s = Counters.now(), other_own_s()
    room_s = max(1e-9, (end.at_s - start.at_s) * (os.cpu_count() or 1))
    foreign_s = (end.busy_s - start.busy_s) - (end.own_s - start.own_s) - (end_other_s - start_other_s)
    found.append(Noise(steal_fraction=(end.stolen_s - start.stolen_s) / room_s, foreign_fraction=max(0.0, foreign_s / room_s)))
