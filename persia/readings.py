"""What a probe reads of a machine that others share: by that it is known how fast the machine is at a time."""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log
from typing import NamedTuple


class Readings(NamedTuple):
    """Processor seconds of a look: `memory_s` of reads at random from memory, `core_s` of messages within a core's own caches."""

    memory_s: float
    core_s: float

    def slower_than(self, usual: Readings) -> tuple[float, float]:
        """Return how many times longer either took than usual, as logarithms."""
        return log(self.memory_s / usual.memory_s), log(self.core_s / usual.core_s)


def mean_readings(weighed: Iterable[tuple[Readings, float]]) -> Readings:
    """Return the geometric means of readings (at least one), each with its weight."""
    readings, weights = zip(*weighed, strict=True)
    memory_s, core_s = (
        exp(sum(weight * log(each_s) for each_s, weight in zip(of_kind, weights, strict=True)) / sum(weights))
        for of_kind in zip(*readings, strict=True)
    )
    return Readings(memory_s, core_s)
