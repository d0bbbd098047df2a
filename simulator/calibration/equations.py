"""From the clocks of the rig's threads to an equation for each stage and point: terms of the cost model = measured seconds.

The worker's stages are taken from its trace; what its thread used besides is its `rest`.  A server is one stage: its spans
only tell how its time divides into lookups and updates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum
from statistics import fmean
from typing import NamedTuple

from persia.readings import Readings, mean_readings
from simulator.host_conditions import beside_idle_s, crowd_factors, crowd_idle, crowd_terms, footprint, other_ranks, slowdowns, stage_paces
from simulator.host_costs import (
    GATHERED_REQUEST,
    GATHERED_SUM,
    MEETING,
    STAGE_OF_ROLE,
    TRAINING_TOGETHER,
    Constants,
    Quantities,
    Terms,
    reduction_terms,
    sleep_cost,
    sleep_terms,
    stage_seconds,
    stage_terms,
    summing_s,
)

ROLE_OF_STAGE = {stage: role for role, stage in STAGE_OF_ROLE.items()}

CROWDED_MEETING = "host.crowd.meeting_message_s"
"""What an end of a message takes by which ranks meet, on a crowded machine."""

_WORKER = ("dedup", "pool", "un-pool")


class Equation(NamedTuple):
    """Seconds that were measured = the sum of terms times unknown constants + seconds that are known."""

    terms: Terms
    seconds: float
    known_s: float = 0.0


Equations = Mapping[str, Sequence[Equation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PointTimes:
    """One point: a batch's quantities, processor seconds by (role, thread) and of each stage's spans, seconds from batch to batch.

    `sleeps` is how often a batch's threads waited for something to do, of a process's own thread as a simulation of the point counts it,
    once there is one; `readings` are what the probe told of the machine meanwhile.
    At a crowded point several batches are under way at once.  `beside` is for each stage which part of its work is done beside busy
    cores, as far as that is known, 0..1.
    """

    quantities: Quantities
    thread_s: Mapping[tuple[str, str], float]
    sleeps: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float
    readings: Readings
    crowded: bool = False
    reduction: str = ""  # the kind of all-reduce that its ranks take part in
    gathered: bool = False  # servers sum the gradients of several ranks (mode sync) before they apply them
    unrest: float = 0.0  # standard error of its processor time over that, as its halves tell it, with one degree of freedom
    beside: Mapping[str, float] = field(default_factory=dict)

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


def equations(points: Sequence[PointTimes], crowding: Constants | None = None, cores: float = 1.0) -> Equations:
    """Return every stage's equations, of points at which one batch after another passes.

    What of a stage is done beside busy cores takes longer by what `crowding` says, constants that hold it.
    """
    found: dict[str, list[Equation]] = defaultdict(list)
    for point in points:
        terms = stage_terms(point.quantities)
        slower = dict.fromkeys(terms, 1.0) if crowding is None else _slower(point, crowding, cores)
        for stage, spent_s in point.stages().items():
            found[stage].append(Equation(terms[stage], spent_s / slower[stage]))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """The usual conditions, of which all constants are, means over the points.

    They are what the probe reads beside idle cores and on a crowded machine, and a batch's footprint.
    """

    readings: Readings
    crowded_readings: Readings
    footprint: float

    @classmethod
    def of(cls, points: Sequence[PointTimes]) -> Usual:
        """Return the means over the points, of what was read the geometric ones; without crowded points those of the others count."""
        alone = [point for point in points if not point.crowded]
        crowded = [point for point in points if point.crowded] or alone
        return cls(
            readings=mean_readings((point.readings, 1.0) for point in alone),
            crowded_readings=mean_readings((point.readings, 1.0) for point in crowded),
            footprint=fmean(footprint(point.quantities) for point in alone),
        )

    def slower(self, point: PointTimes) -> tuple[float, float]:
        """Return how much slower than usual the memory and the cores were at a point, as logarithms."""
        return point.readings.slower_than(self.crowded_readings if point.crowded else self.readings)

    def larger(self, point: PointTimes) -> float:
        """Return how far a point's footprint is from the usual one."""
        return footprint(point.quantities) - self.footprint


def sleep_equations(points: Sequence[PointTimes], stage: str) -> Sequence[Equation]:
    """Return the equations of how often the own thread of a stage's process sleeps where one batch after another passes."""
    role = ROLE_OF_STAGE[stage]
    return [Equation(sleep_terms(stage, point.quantities), point.sleeps[role, "main"]) for point in points]


def crowd_equations(points: Sequence[PointTimes], constants: Constants, paces: Sequence[float], cores: float) -> Equations:
    """Return every stage's equations at crowded points, given what its work takes alone.

    `paces` is how many times longer than usual work takes at each point, whatever the size of its batch and crowding.  Of what is
    done beside idle cores that is known which grows with a batch's size; what ranks take to meet is all unknown: they do so on a crowded
    machine only.  An equation that says nothing of a stage has zero seconds.
    """
    found: dict[str, list[Equation]] = defaultdict(list)
    for point, pace in zip(points, paces, strict=True):
        of_stages = stage_paces(constants, point.quantities, pace)
        stages, besides = point.stages(), beside(point, cores)
        of_crowd, meetings = crowd_terms(constants, point.quantities), stage_terms(point.quantities)["rank rest"][MEETING]
        of_crowd["rank rest"][crowd_factors("rank rest", in_step=point.quantities.in_step)[0]] -= constants[MEETING] * meetings
        for stage, terms in of_crowd.items():
            fixed, sized = crowd_factors(stage, in_step=point.quantities.in_step)
            crowded = {name: besides[stage] * seconds for name, seconds in terms.items()}
            crowded[crowd_idle(stage)] = (1.0 - besides[stage]) * terms[fixed]
            if stage == "rank rest":
                crowded[CROWDED_MEETING] = meetings
            known_s = (1.0 - besides[stage]) * terms[sized]
            if stage in ROLE_OF_STAGE:
                crowded[sleep_cost(stage)] = _more_sleeps(point, constants, stage)
            says = not (stage == "train" and point.reduction) and not (stage == "server" and point.gathered)
            found[stage].append(Equation(crowded, stages[stage] / of_stages[stage] if says else 0.0, known_s))
    return found


def reduction_equations(points: Sequence[PointTimes], constants: Constants, paces: Sequence[float], cores: float) -> Sequence[Equation]:
    """Return the equations of the all-reduce, which is always crowded: what a training thread takes, its training known.

    `paces` is how many times longer than usual work takes at each point, whatever the size of its batch and crowding.
    """
    found = []
    for point, pace in zip(points, paces, strict=True):
        q = point.quantities
        train_s = beside_s(point, constants, cores)["train"] * stage_paces(constants, q, pace)["train"]
        terms = {**reduction_terms(q, point.reduction), TRAINING_TOGETHER: train_s / pace}
        found.append(Equation(terms, point.stages()["train"] / pace, train_s / pace))
    return found


def gather_equations(points: Sequence[PointTimes], constants: Constants, paces: Sequence[float], cores: float) -> Sequence[Equation]:
    """Return the equations of servers that gather a step's gradients: requests of all its batches but one, and the sum, are unknown.

    `paces` is how many times longer than usual work takes at each point, whatever the size of its batch and crowding.
    """
    found, stage, looked_up = [], "server", constants["host.server.lookup_share"]
    for point, pace in zip(points, paces, strict=True):
        q, slower = point.quantities, _slower(point, constants, cores)[stage]
        terms = crowd_terms(constants, q)[stage]
        requests_s, rows_s = (slower * terms[name] for name in crowd_factors(stage, in_step=q.in_step))
        requests_s *= constants[crowd_idle(stage)]
        known_s = requests_s / q.ranks + rows_s * (looked_up + (1.0 - looked_up) * q.step_rows / q.rows / q.ranks)
        unknown = {GATHERED_REQUEST: requests_s * other_ranks(q), GATHERED_SUM: slower * summing_s(constants, q)}
        measured_s = point.stages()[stage] / stage_paces(constants, q, pace)[stage]
        found.append(Equation(unknown, measured_s, known_s + _sleeping_s(point, constants, stage)))
    return found


def beside_s(point: PointTimes, constants: Constants, cores: float) -> dict[str, float]:
    """Return what each stage of a point takes at the usual pace, as a part of it is done beside busy cores, and with its sleeps."""
    slower, alone_s = _slower(point, constants, cores), beside_idle_s(constants, point.quantities, crowded=point.crowded)
    return {stage: alone_s[stage] * each + _sleeping_s(point, constants, stage) for stage, each in slower.items()}


def _sleeping_s(point: PointTimes, constants: Constants, stage: str) -> float:
    """Return what it costs that threads of a stage slept more often than where one batch after another passes."""
    if stage not in ROLE_OF_STAGE:
        return 0.0
    return constants[sleep_cost(stage)] * _more_sleeps(point, constants, stage)


def _more_sleeps(point: PointTimes, constants: Constants, stage: str) -> float:
    return point.sleeps[ROLE_OF_STAGE[stage], "main"] - stage_seconds(constants, sleep_terms(stage, point.quantities))


def _slower(point: PointTimes, crowding: Constants, cores: float) -> dict[str, float]:
    """Return for each stage how many times longer it takes, as a part of it is done beside busy cores."""
    besides, slowdown = beside(point, cores), slowdowns(crowding, point.quantities, crowded=point.crowded)
    return {stage: 1.0 + besides[stage] * (each - 1.0) for stage, each in slowdown.items()}


def beside(point: PointTimes, cores: float) -> Mapping[str, float]:
    """Return for each stage which part of its work is done beside busy cores; where that is not known, the mean over all work."""
    if point.beside:
        return point.beside
    return dict.fromkeys(point.stages(), others_busy(point, cores) if point.crowded else 0.0)


def others_busy(point: PointTimes, cores: float) -> float:
    """Return which part of the other cores is busy beside a core that works, on average over all work, 0..1.

    One core always works here; each of the others does for an equal part of the time.
    """
    others = max(cores - 1.0, 1e-9)
    busy = min(1.0, max(0.0, (point.total_s / point.step_s - 1.0) / others))
    return (2.0 * busy + max(0.0, others - 1.0) * busy**2) / (1.0 + others * busy)


def lookup_share(points: Sequence[PointTimes]) -> float:
    """Return the share of lookups in a server's work on its rows, where it applies the updates of one batch after another."""
    apart = [point.span_s for point in points if not point.gathered]
    lookups, updates = (sum(span_s.get(stage, 0.0) for span_s in apart) for stage in ("lookup", "update"))
    return lookups / (lookups + updates)
