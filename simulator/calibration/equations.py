"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

The worker's stages are taken from its trace; what its thread used besides is its `rest`.  A server is one stage: its spans
only tell how its time divides into lookups and updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, log
from statistics import fmean, geometric_mean
from typing import NamedTuple

from simulator.host_costs import Constants, Quantities, Terms, crowd_terms, footprint, reduction_terms, stage_seconds, stage_terms

_WORKER = ("dedup", "pool", "un-pool")

_Pace = tuple[float, float]


class Equation(NamedTuple):
    """Seconds that were measured = the sum of terms times unknown constants + seconds that are known."""

    terms: Terms
    seconds: float
    known_s: float = 0.0


Equations = Mapping[str, Sequence[Equation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTimes:
    """One point: a batch's quantities, processor seconds by (role, thread) and of each stage's spans, seconds from batch to batch.

    `memory_s` is what the memory probe's reads took meanwhile.  At a crowded point several batches are under way at once.
    """

    quantities: Quantities
    thread_s: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float
    memory_s: float
    crowded: bool = False
    reduction: str = ""  # the kind of all-reduce that its ranks take part in

    def stages(self) -> dict[str, float]:
        """Return the processor seconds of each stage, as `host_costs.stage_terms` names them."""
        thread, of_worker = self.thread_s, {stage: self.span_s.get(stage, 0.0) for stage in _WORKER}
        return {
            "loader": thread["loader", "main"],
            **of_worker,
            "worker rest": max(0.0, thread["embedding_worker", "main"] - sum(of_worker.values())),
            "server": thread["parameter_server", "main"],
            "train": thread["nn_worker", "other"],
            "rank rest": thread["nn_worker", "main"],
            "io": sum(spent for (role, kind), spent in thread.items() if kind == "io" or (kind == "other" and role != "nn_worker")),
        }

    @property
    def total_s(self) -> float:
        """Return the processor seconds of a batch."""
        return fsum(self.stages().values())


def equations(points: Sequence[PointTimes]) -> Equations:
    """Return every stage's equations, of points at which one batch after another passes."""
    found: dict[str, list[Equation]] = defaultdict(list)
    for point in points:
        terms = stage_terms(point.quantities)
        for stage, spent_s in point.stages().items():
            found[stage].append(Equation(terms[stage], spent_s))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual conditions, of which all constants are: the memory probe's seconds and a batch's footprint, means over the points."""

    memory_s: float
    footprint: float

    @classmethod
    def of(cls, points: Sequence[PointTimes]) -> Usual:
        """Return the means over the points, of the seconds the geometric one."""
        return cls(
            memory_s=geometric_mean(point.memory_s for point in points),
            footprint=fmean(footprint(point.quantities) for point in points),
        )

    def condition(self, point: PointTimes) -> tuple[float, float]:
        """Return how far a point is from usual: the logarithm of its memory's slowness, and the difference of its footprint."""
        return log(point.memory_s / self.memory_s), footprint(point.quantities) - self.footprint


def crowd_equations(points: Sequence[PointTimes], constants: Constants, paces: Sequence[float], cores: float) -> Equations:
    """Return every stage's equations at crowded points, given what its work takes alone.

    `paces` is how many times longer all work would take at each point, were it not crowded.  Where only a part of the other
    cores is busy on average, only that part of the work is crowded; the rest is known.  An equation that says nothing of a
    stage has zero seconds.
    """
    found: dict[str, list[Equation]] = defaultdict(list)
    for point, pace in zip(points, paces, strict=True):
        stages, busy = point.stages(), others_busy(point, cores)
        for stage, terms in crowd_terms(constants, point.quantities).items():
            crowded = {name: busy * seconds for name, seconds in terms.items()}
            says = not (stage == "train" and point.reduction)
            found[stage].append(Equation(crowded, stages[stage] / pace if says else 0.0, (1.0 - busy) * sum(terms.values())))
    return found


def reduction_equations(points: Sequence[PointTimes], constants: Constants, paces: Sequence[_Pace], cores: float) -> Sequence[Equation]:
    """Return the equations of the all-reduce: what a training thread takes, its training known.

    `paces` is how many times longer work takes at each point beside idle cores and beside busy ones, crowding apart; the
    all-reduce is always crowded.
    """
    found = []
    for point, (pace, crowded_pace) in zip(points, paces, strict=True):
        terms, busy = crowd_terms(constants, point.quantities)["train"], max(0.0, others_busy(point, cores))
        train_s = (1.0 - busy) * pace * sum(terms.values()) + busy * crowded_pace * stage_seconds(constants, terms)
        terms = reduction_terms(point.quantities, point.reduction)
        found.append(Equation(terms, point.stages()["train"] / crowded_pace, train_s / crowded_pace))
    return found


def others_busy(point: PointTimes, cores: float) -> float:
    """Return which part of the other cores a point keeps busy while it runs on one."""
    return min(1.0, (point.total_s / point.step_s - 1.0) / max(cores - 1.0, 1e-9))


def lookup_share(points: Sequence[PointTimes]) -> float:
    """Return the share of lookups in a server's work on its rows."""
    lookups, updates = (sum(point.span_s.get(stage, 0.0) for point in points) for stage in ("lookup", "update"))
    return lookups / (lookups + updates)
