"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

A stage's own time is taken from the trace; what a role's thread used besides is its `rest`.  Where several servers share
fewer cores, spans hold waiting too: there the thread's processor time counts, of which the rest is known from the points
with one server, and the spans only tell how it divides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.calibration.fit import fit
from simulator.host_costs import Quantities, Terms, stage_terms

_WORKER = ("dedup", "pool", "un-pool")
_SERVER = ("lookup", "update", "dense update")

Equations = Mapping[str, Sequence[tuple[Terms, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTimes:
    """One point: a batch's quantities, processor seconds by (role, thread), seconds of each stage's spans, of a whole step."""

    quantities: Quantities
    thread_s: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float

    def spans(self, names: Sequence[str]) -> float:
        """Return the sum of some stages."""
        return sum(self.span_s.get(name, 0.0) for name in names)


def equations(points: Sequence[PointTimes]) -> Equations:
    """Return every stage's equations."""
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for point in points:
        thread, terms = point.thread_s, stage_terms(point.quantities)
        seconds = {
            "loader": thread["loader", "main"],
            **{stage: point.span_s.get(stage, 0.0) for stage in _WORKER},
            "worker rest": max(0.0, thread["embedding_worker", "main"] - point.spans(_WORKER)),
            "train": thread["nn_worker", "other"],
            "rank rest": thread["nn_worker", "main"],
            "io": sum(spent for (role, kind), spent in thread.items() if kind == "io" or (kind == "other" and role != "nn_worker")),
        }
        if point.quantities.servers == 1:
            seconds["server rest"] = max(0.0, thread["parameter_server", "main"] - point.spans(_SERVER))
        for stage, spent in seconds.items():
            found[stage].append((terms[stage], spent))
    rest = fit(found["server rest"]).constants
    for point in points:
        terms = stage_terms(point.quantities)
        rest_s = sum(rest.get(name, 0.0) * count for name, count in terms["server rest"].items())
        own_s, spans_s = point.thread_s["parameter_server", "main"] - rest_s, point.spans(_SERVER)
        for stage in _SERVER:
            if any(terms[stage].values()):
                found[stage].append((terms[stage], max(0.0, own_s) * point.span_s.get(stage, 0.0) / spans_s))
    return found


def wait_s(point: PointTimes, hops: float) -> float | None:
    """Return how long a message waits for its receiver to wake, or None where the point does not show it.

    In mode sync with one server a batch passes `hops` messages and threads one after another, and only one thread works at
    a time: what a step takes beyond their processor time is waiting.
    """
    if point.quantities.dense_on_servers or point.quantities.servers > 1:
        return None
    thread = point.thread_s
    own_s = sum(
        thread[key] for key in (("embedding_worker", "main"), ("parameter_server", "main"), ("nn_worker", "main"), ("nn_worker", "other"))
    )
    io_s = sum(spent for (role, kind), spent in thread.items() if kind == "io" and role != "loader")
    return (point.step_s - own_s - io_s) / hops
