"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

The worker's stages are taken from its trace; what its thread used besides is its `rest`.  A server is one stage: where
several share fewer cores, spans hold waiting too, so they only tell how its time divides into lookups and updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, log

from simulator.host_costs import Constants, Quantities, Terms, crowd_terms, stage_terms

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
    """Return every kind of thread's equations at the crowded points, given what its work takes alone.

    `points` stand in the order in which they were measured, `paces` are those of the points that are not crowded; a crowded
    one has the pace of those around it.  Where only a part of the other cores was busy on average, only that part of the work
    is crowded; where it is less than half, the point tells too little.
    """
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for point, pace in crowd_paces(points, paces):
        threads = point.threads()
        busy = min(1.0, (sum(threads.values()) / point.step_s - 1.0) / max(cores - 1.0, 1e-9))
        if busy < _CROWDED_LEAST:
            continue
        for thread, terms in crowd_terms(constants, point.quantities).items():
            crowded_s = threads[thread] / pace - (1.0 - busy) * sum(terms.values())
            found[thread].append(({name: busy * seconds for name, seconds in terms.items()}, crowded_s))
    return found


def crowd_paces(points: Sequence[PointTimes], paces: Sequence[float]) -> list[tuple[PointTimes, float]]:
    """Return the crowded points with the mean pace of the others around them."""
    found = []
    before = 0  # points that are not crowded, up to here
    for point in points:
        if point.crowded:
            around = paces[max(0, before - _AROUND) : before + _AROUND]
            found.append((point, exp(fsum(map(log, around)) / len(around))))
        else:
            before += 1
    return found


def reference_s(points: Sequence[PointTimes], paces: Sequence[float], reference: Quantities) -> float:
    """Return the processor seconds of a batch of the reference at the average pace: by these the pace of another time is known."""
    alone = [point for point in points if not point.crowded]
    logs = [log(sum(point.threads().values()) / pace) for point, pace in zip(alone, paces, strict=True) if point.quantities == reference]
    return exp(fsum(logs) / len(logs))


def lookup_share(points: Sequence[PointTimes]) -> float:
    """Return the share of lookups in a server's work on its rows."""
    lookups, updates = (sum(point.span_s.get(stage, 0.0) for point in points) for stage in ("lookup", "update"))
    return lookups / (lookups + updates)
