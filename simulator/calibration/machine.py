"""From all points of a calibration to a machine's constants: alone first, then what crowding makes of them, then the all-reduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from statistics import pstdev

from simulator.calibration.equations import (
    ROLE_OF_STAGE,
    PointTimes,
    Usual,
    crowd_equations,
    equations,
    others_busy,
    reduction_equations,
    sleep_equations,
)
from simulator.calibration.fit import Fitted, fit, fit_all
from simulator.host_costs import condition_exponents, crowd_exponents, crowd_factors, other_ranks, sleep_cost, sleep_terms

_BUSY_LEAST = 0.3  # of the other cores
_CROWDED_LEAST = 6  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The fits of every stage; constants that belong to no stage; how many times longer than usual each point took.

    A point's pace is what all stages share and neither the size of its batch nor crowding explains.
    """

    fitted: Mapping[str, Fitted]
    constants: Mapping[str, float]
    paces: Sequence[float]


def fit_machine(points: Sequence[PointTimes], cores: float) -> Machine:
    """Return what the points say of a machine with so many cores."""
    alone = [point for point in points if not point.crowded]
    usual = Usual.of(points)
    fitted, idle = fit_all(equations(alone), [[usual.larger(point)] for point in alone], machine=[usual.slower(point) for point in alone])
    of_alone = iter(idle.of_points)
    paces = [exp(idle.machine * usual.slower(point)) if point.crowded else next(of_alone) for point in points]
    constants = {
        "host.memory_s": usual.memory_s,
        "host.crowded_memory_s": usual.crowded_memory_s,
        "host.memory_exponent": idle.machine,
        "host.memory_cv": pstdev(map(usual.slower, points)),
        "host.footprint": usual.footprint,
        "host.drift": idle.drift,
    }
    for stage, (exponent,) in idle.sizes.items():
        sensitivity, size = condition_exponents(stage)
        constants |= {sensitivity: idle.sensitivity[stage], size: exponent}
        constants |= {**dict.fromkeys(crowd_factors(stage), 1.0), **dict.fromkeys(crowd_exponents(stage), 0.0)}
    for stage in ROLE_OF_STAGE:
        constants |= {
            sleep_cost(stage): 0.0,
            **dict.fromkeys(sleep_terms(stage, alone[0].quantities), 0.0),
            **fit(sleep_equations(alone, stage)).constants,
        }
    busy = [number for number, point in enumerate(points) if point.crowded and others_busy(point, cores) >= _BUSY_LEAST]
    if len(busy) >= _CROWDED_LEAST:  # else there are so many cores that the points do not fill them, or only one
        found = crowd_equations(
            [points[number] for number in busy], {**constants, **_constants(fitted)}, [paces[number] for number in busy], cores
        )
        sizes = [_of_what_is_crowded(points[number], cores, usual) for number in busy]
        factors, crowded = fit_all(
            found, sizes, sensitivity=idle.sensitivity, about_one=[name for stage in found for name in crowd_factors(stage)]
        )
        fitted |= {f"crowd_{stage}": each for stage, each in factors.items()}
        for stage, exponents in crowded.sizes.items():
            constants |= dict(zip(crowd_exponents(stage), exponents, strict=True))
        for number, pace in zip(busy, crowded.of_points, strict=True):
            paces[number] *= pace
    fitted["reduction"] = _fit_reduction(points, paces, {**constants, **_constants(fitted)}, cores)
    return Machine(fitted=fitted, constants=constants, paces=paces)


def _of_what_is_crowded(point: PointTimes, cores: float, usual: Usual) -> tuple[float, float]:
    """Return how far a point's footprint is from the usual one, and the share of other ranks, of the part of its work that is crowded."""
    busy = others_busy(point, cores)
    return busy * usual.larger(point), busy * other_ranks(point.quantities)


def _fit_reduction(points: Sequence[PointTimes], paces: Sequence[float], constants: Mapping[str, float], cores: float) -> Fitted:
    reducing = [(point, pace) for point, pace in zip(points, paces, strict=True) if point.reduction]
    return fit(reduction_equations([point for point, _ in reducing], constants, [pace for _, pace in reducing], cores))


def _constants(fitted: Mapping[str, Fitted]) -> dict[str, float]:
    return {name: value for each in fitted.values() for name, value in each.constants.items()}
