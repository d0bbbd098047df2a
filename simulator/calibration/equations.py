"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

The worker's stages are taken from its trace; what its thread used besides is its `rest`.  A server is one stage: where
several share fewer cores, spans hold waiting too, so they only tell how its time divides into lookups and updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, log

from simulator.host_costs import Constants, Quantities, Terms, crowd_terms, reduction_terms, stage_seconds, stage_terms

_WORKER = ("dedup", "pool", "un-pool")
_CROWDED_LEAST = 0.5  # of the other cores
_AROUND = 2  # points before and after

Equations = Mapping[str, Sequence[tuple[Terms, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTimes:
    """One point: a batch's quantities, processor seconds by (role, thread), seconds of each stage's spans, from batch to batch.

    At a crowded one several batches are under way at once.
    """

    quantities: Quantities
    thread_s: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float
    crowded: bool = False
    reduction: str = ""  # the kind of all-reduce that its ranks take part in

    def threads(self) -> dict[str, float]:
        """Return the seconds of each kind of thread, as `host_costs.THREADS` names them."""
        thread = self.thread_s
        return {
            "loader": thread["loader", "main"],
            "worker": thread["embedding_worker", "main"],
            "server": thread["parameter_server", "main"],
            "rank": thread["nn_worker", "main"],
            "train": thread["nn_worker", "other"],
            "io": sum(spent for (role, kind), spent in thread.items() if kind == "io" or (kind == "other" and role != "nn_worker")),
        }

    def spans(self, names: Sequence[str]) -> float:
        """Return the sum of some stages."""
        return sum(self.span_s.get(name, 0.0) for name in names)


def equations(points: Sequence[PointTimes]) -> Equations:
    """Return every stage's equations, of the points at which one batch after another passes."""
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for point in (each for each in points if not each.crowded):
        thread, terms = point.threads(), stage_terms(point.quantities)
        seconds = {
            "loader": thread["loader"],
            **{stage: point.span_s.get(stage, 0.0) for stage in _WORKER},
            "worker rest": max(0.0, thread["worker"] - point.spans(_WORKER)),
            "server": thread["server"],
            "train": thread["train"],
            "rank rest": thread["rank"],
            "io": thread["io"],
        }
        for stage, spent in seconds.items():
            found[stage].append((terms[stage], spent))
    return found


def crowd_equations(points: Sequence[PointTimes], paces: Sequence[float], constants: Constants, cores: float) -> Equations:
    """Return every kind of thread's equations at the points that `crowded_points` finds, given what its work takes alone.

    `points` stand in the order in which they were measured, `paces` are those of the points that are not crowded.  Where only
    a part of the other cores was busy on average, only that part of the work is crowded.  An equation that says nothing of a
    thread has zero seconds.
    """
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    around = paces_around(points, paces)
    for number in crowded_points(points, cores):
        point, threads = points[number], points[number].threads()
        busy = _others_busy(point, cores)
        for thread, terms in crowd_terms(constants, point.quantities).items():
            crowded_s = threads[thread] - (1.0 - busy) * around[number] * sum(terms.values())
            says = crowded_s > 0.0 and not (thread == "train" and point.reduction)
            found[thread].append(({name: busy * seconds for name, seconds in terms.items()}, crowded_s if says else 0.0))
    return found


def crowded_points(points: Sequence[PointTimes], cores: float) -> list[int]:
    """Return the places of the crowded points at which enough of the other cores was busy to tell something."""
    return [number for number, point in enumerate(points) if point.crowded and _others_busy(point, cores) >= _CROWDED_LEAST]


def reduction_equations(
    points: Sequence[PointTimes], around: Sequence[float], crowded_paces: Mapping[int, float], constants: Constants, cores: float
) -> list[tuple[Terms, float, float]]:
    """Return the equations of the all-reduce: what a training thread takes more than its training; and all that it takes."""
    found = []
    for number, point in enumerate(points):
        if not point.reduction:
            continue
        terms = crowd_terms(constants, point.quantities)["train"]
        busy, pace = max(0.0, _others_busy(point, cores)), crowded_paces.get(number, around[number])
        train_s = (1.0 - busy) * around[number] * sum(terms.values()) + busy * pace * stage_seconds(constants, terms)
        measured_s = point.threads()["train"]
        found.append((reduction_terms(point.quantities, point.reduction), (measured_s - train_s) / pace, measured_s / pace))
    return found


def _others_busy(point: PointTimes, cores: float) -> float:
    """Return which part of the other cores a point keeps busy while it runs on one."""
    return min(1.0, (sum(point.threads().values()) / point.step_s - 1.0) / max(cores - 1.0, 1e-9))


def paces_around(points: Sequence[PointTimes], paces: Sequence[float]) -> list[float]:
    """Return every point's pace: a crowded one's is the mean of those around it; `paces` are those of the others."""
    found = []
    before = 0  # points that are not crowded, up to here
    for point in points:
        if point.crowded:
            around = paces[max(0, before - _AROUND) : before + _AROUND]
            found.append(exp(fsum(map(log, around)) / len(around)))
        else:
            found.append(paces[before])
            before += 1
    return found


def reference_s(points: Sequence[PointTimes], paces: Sequence[float], reference: Quantities) -> float:
    """Return the processor seconds of a batch of the reference at the average pace: by these the pace of another time is known."""
    logs = [log(sum(point.threads().values()) / pace) for point, pace in zip(points, paces, strict=True) if point.quantities == reference]
    return exp(fsum(logs) / len(logs))


def lookup_share(points: Sequence[PointTimes]) -> float:
    """Return the share of lookups in a server's work on its rows."""
    lookups, updates = (sum(point.span_s.get(stage, 0.0) for point in points) for stage in ("lookup", "update"))
    return lookups / (lookups + updates)
