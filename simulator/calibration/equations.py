"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

The worker's stages are taken from its trace; what its thread used besides is its `rest`.  A server is one stage: where
several share fewer cores, spans hold waiting too, so they only tell how its time divides into lookups and updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.host_costs import Constants, Quantities, Terms, crowd_terms, stage_terms

_WORKER = ("dedup", "pool", "un-pool")

Equations = Mapping[str, Sequence[tuple[Terms, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTimes:
    """One point: a batch's quantities, processor seconds by (role, thread), seconds of each stage's spans, of a whole step."""

    quantities: Quantities
    thread_s: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float

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
    """Return every stage's equations."""
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for point in points:
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


def crowd_equations(crowds: Sequence[PointTimes], constants: Constants) -> Equations:
    """Return every thread's equations on a crowded machine, given what it takes on an idle one."""
    found: dict[str, list[tuple[Terms, float]]] = defaultdict(list)
    for crowd in crowds:
        for thread, terms in crowd_terms(constants, crowd.quantities).items():
            found[thread].append((terms, crowd.threads()[thread]))
    return found


def lookup_share(points: Sequence[PointTimes]) -> float:
    """Return the share of lookups in a server's work on its rows."""
    lookups, updates = (sum(point.span_s.get(stage, 0.0) for point in points) for stage in ("lookup", "update"))
    return lookups / (lookups + updates)


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
