"""From all points of a calibration to a machine's constants: alone first, then what crowding makes of them, then the all-reduce."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from operator import mul
from statistics import pstdev

from simulator.calibration.equations import (
    CROWDED_MEETING,
    ROLE_OF_STAGE,
    PointTimes,
    Usual,
    crowd_equations,
    equations,
    gather_equations,
    lookup_share,
    others_busy,
    reduction_equations,
    sleep_equations,
)
from simulator.calibration.fit import Fitted, fit, fit_all
from simulator.host_conditions import (
    ARITHMETIC_EXPONENT,
    READING_EXPONENTS,
    condition_exponents,
    crowd_exponents,
    crowd_factors,
    crowding,
    factors_of,
    pace_exponents,
    usual_reading_names,
)
from simulator.host_costs import (
    ARITHMETIC,
    GATHERED_REQUEST,
    GATHERED_SUM,
    MEETING,
    RANK_MESSAGES,
    REDUCTIONS,
    TRAINING_TOGETHER,
    Constants,
    reduction_terms,
    sleep_cost,
    sleep_terms,
)

_BUSY_LEAST = 0.3  # of the other cores
_CROWDED_LEAST = 6  # points
_ROUNDS = 3  # of what work takes beside idle cores and what crowding makes of it, each given the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The fits of every stage; constants that belong to no stage; how many times longer than usual each point took.

    A point's pace is what all stages share and neither the size of its batch nor crowding explains.
    """

    fitted: Mapping[str, Fitted]
    constants: Mapping[str, float]
    paces: Sequence[float]

    def all_constants(self) -> dict[str, float]:
        """Return all constants by name."""
        return {**self.constants, **{name: value for each in self.fitted.values() for name, value in each.constants.items()}}


def fit_machine(points: Sequence[PointTimes], cores: float, known: Mapping[str, float]) -> Machine:
    """Return what the points say of a machine with so many cores; `known` constants were measured by themselves."""
    usual = Usual.of(points)
    crowded = [number for number, point in enumerate(points) if point.crowded and others_busy(point, cores) >= _BUSY_LEAST]
    machine = _fit_alone(points, usual, None, cores)
    if len(crowded) >= _CROWDED_LEAST:  # else there are so many cores that the points do not fill them, or only one
        machine = _fit_crowded(points, crowded, machine, cores)
        for _ in range(_ROUNDS - 1):
            machine = _fit_crowded(points, crowded, _fit_alone(points, usual, machine.all_constants(), cores), cores)
    constants = {**known, **machine.all_constants()}
    reducing, reduced = _those(points, machine.paces, lambda point: bool(point.reduction))
    gathering, gathered = _those(points, machine.paces, lambda point: point.gathered)
    fitted = {
        "reduction": fit(reduction_equations(reducing, constants, reduced, cores)),
        "gathering": fit(gather_equations(gathering, constants, gathered, cores), about_one=(GATHERED_REQUEST, GATHERED_SUM)),
    }
    return replace(machine, fitted={**machine.fitted, **fitted})


def _those(
    points: Sequence[PointTimes], paces: Sequence[float], belongs: Callable[[PointTimes], bool]
) -> tuple[Sequence[PointTimes], Sequence[float]]:
    numbers = [number for number, point in enumerate(points) if belongs(point)]
    return [points[number] for number in numbers], [paces[number] for number in numbers]


def _fit_alone(points: Sequence[PointTimes], usual: Usual, crowding: Constants | None, cores: float) -> Machine:
    """Return what the points at which one batch after another passes say, given what crowding makes of work."""
    alone = [point for point in points if not point.crowded]
    fitted, idle = fit_all(
        equations(alone, crowding, cores),
        [[usual.larger(point)] for point in alone],
        machine=[usual.slower(point) for point in alone],
        arithmetic=ARITHMETIC,
    )
    of_alone, told = iter(idle.of_points), [sum(map(mul, idle.machine, usual.slower(point))) for point in points]
    paces = [exp(slower) if point.crowded else next(of_alone) for point, slower in zip(points, told, strict=True)]
    constants = {
        **dict(zip(usual_reading_names(crowded=False), usual.readings, strict=True)),
        **dict(zip(usual_reading_names(crowded=True), usual.crowded_readings, strict=True)),
        **dict(zip(READING_EXPONENTS, idle.machine, strict=True)),
        "host.told_pace_cv": pstdev(told),
        "host.footprint": usual.footprint,
        ARITHMETIC_EXPONENT: idle.arithmetic,
        GATHERED_REQUEST: 1.0,
        GATHERED_SUM: 1.0,
        "host.server.lookup_share": lookup_share(points),
        TRAINING_TOGETHER: 0.0,
        **{name: 0.0 for kind in REDUCTIONS.values() for name in reduction_terms(alone[0].quantities, kind)},
        MEETING: fitted["rank rest"].constants["host.rank.s_per_batch"] / RANK_MESSAGES,  # as any message of a rank, as far as is known
    }
    for stage, (exponent,) in idle.sizes.items():
        sensitivity, size = condition_exponents(stage)
        constants |= {sensitivity: idle.sensitivity[stage], size: exponent}
        constants |= {**dict.fromkeys(factors_of(stage), 1.0), **dict.fromkeys(crowd_exponents(stage), 0.0)}
    for stage in ROLE_OF_STAGE:
        constants |= {
            sleep_cost(stage): 0.0,
            **dict.fromkeys(sleep_terms(stage, alone[0].quantities), 0.0),
            **fit(sleep_equations(alone, stage)).constants,
        }
    return Machine(fitted=fitted, constants=constants, paces=paces)


def _fit_crowded(points: Sequence[PointTimes], crowded: Sequence[int], alone: Machine, cores: float) -> Machine:
    """Return what the points of these numbers say of crowding, given what work takes alone, added to that."""
    those, paces, constants = [points[number] for number in crowded], list(alone.paces), alone.all_constants()
    exponents = [pace_exponents(constants, point.quantities) for point in those]
    found = crowd_equations(those, constants, [paces[number] for number in crowded], cores)
    factors, told = fit_all(
        found,
        [[others_busy(point, cores) * each for each in crowding(constants, point.quantities)] for point in those],
        exponents={stage: [each[stage] for each in exponents] for stage in found},
        about_one=[name for stage in found for name in factors_of(stage)],
    )
    of_rank = factors["rank rest"].constants
    meets_in_step, _ = crowd_factors("rank rest", in_step=True)
    more = {MEETING: of_rank[CROWDED_MEETING] / (of_rank.get(meets_in_step) or 1.0)} if CROWDED_MEETING in of_rank else {}
    for stage, of_stage in told.sizes.items():
        more |= dict(zip(crowd_exponents(stage), of_stage, strict=True))
    for number, pace in zip(crowded, told.of_points, strict=True):
        paces[number] *= pace
    fitted = {**alone.fitted, **{f"crowd_{stage}": each for stage, each in factors.items()}}
    return Machine(fitted=fitted, constants={**alone.constants, **more}, paces=paces)
