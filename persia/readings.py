"""What a probe reads of a machine that others share, and what it takes there: by that its pace is known at any time."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from typing import NamedTuple


class Readings(NamedTuple):
    """Processor seconds: of reads at random from `memory_s`, and of what a `core_s` has in its own caches."""

    memory_s: float
    core_s: float

    def slower_than(self, usual: Readings) -> tuple[float, float]:
        """Return how many times longer each took than usual, as logarithms."""
        return log(self.memory_s / usual.memory_s), log(self.core_s / usual.core_s)


def mean_readings(weighed: Iterable[tuple[Readings, float]]) -> Readings:
    """Return the geometric means of readings with weights; there is at least one."""
    readings, weights = zip(*weighed, strict=True)
    memory_s, core_s = (
        exp(sum(weight * log(each_s) for each_s, weight in zip(of_kind, weights, strict=True)) / sum(weights))
        for of_kind in zip(*readings, strict=True)
    )
    return Readings(memory_s, core_s)
