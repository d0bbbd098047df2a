"""From all points of a calibration to a machine's constants: alone first, then what crowding makes of them, then the all-reduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from operator import mul
from statistics import pstdev

from simulator.calibration.equations import (
    PointTimes,
    Usual,
    crowd_equations,
    equations,
    others_busy,
    reduction_equations,
)
from simulator.calibration.fit import Fitted, Paces, fit, fit_all
from simulator.host_costs import condition_exponents, crowd_factors, crowd_footprint

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
    slower = usual.slower(points)
    of_idle = [each for point, each in zip(points, slower, strict=True) if not point.crowded]
    fitted, idle = fit_all(equations(alone), [[usual.larger(point)] for point in alone], of_idle)
    of_alone = iter(idle.of_points)
    paces = [_at(idle, each) if point.crowded else next(of_alone) for point, each in zip(points, slower, strict=True)]
    constants = {
        "host.memory_s": usual.memory_s,
        "host.crowded_memory_s": usual.crowded_memory_s,
        "host.memory_exponent": idle.machine[0],
        "host.moment_exponent": idle.machine[1],
        "host.memory_cv": pstdev(map(sum, slower)),
        "host.footprint": usual.footprint,
        "host.drift": idle.drift,
    }
    for stage, (exponent,) in idle.sizes.items():
        sensitivity, size = condition_exponents(stage)
        constants |= {sensitivity: idle.sensitivity[stage], size: exponent}
        constants |= {**dict.fromkeys(crowd_factors(stage), 1.0), crowd_footprint(stage): 0.0}
    busy = [number for number, point in enumerate(points) if point.crowded and others_busy(point, cores) >= _BUSY_LEAST]
    if len(busy) >= _CROWDED_LEAST:  # else there are so many cores that the points do not fill them, or only one
        found = crowd_equations(
            [points[number] for number in busy], {**constants, **_constants(fitted)}, [paces[number] for number in busy], cores
        )
        sizes = [[others_busy(points[number], cores) * usual.larger(points[number])] for number in busy]  # of what is crowded only
        factors, crowded = fit_all(found, sizes, [()] * len(busy), sensitivity=idle.sensitivity, about_one=True)
        fitted |= {f"crowd_{stage}": each for stage, each in factors.items()}
        constants |= {crowd_footprint(stage): exponent for stage, (exponent,) in crowded.sizes.items()}
        for number, pace in zip(busy, crowded.of_points, strict=True):
            paces[number] *= pace
    fitted["reduction"] = _fit_reduction(points, paces, {**constants, **_constants(fitted)}, cores)
    return Machine(fitted=fitted, constants=constants, paces=paces)


def _at(paces: Paces, slower: Sequence[float]) -> float:
    """Return the pace where the memory is so much slower than usual."""
    return exp(sum(map(mul, paces.machine, slower)))


def _fit_reduction(points: Sequence[PointTimes], paces: Sequence[float], constants: Mapping[str, float], cores: float) -> Fitted:
    reducing = [(point, pace) for point, pace in zip(points, paces, strict=True) if point.reduction]
    return fit(reduction_equations([point for point, _ in reducing], constants, [pace for _, pace in reducing], cores))


def _constants(fitted: Mapping[str, Fitted]) -> dict[str, float]:
    return {name: value for each in fitted.values() for name, value in each.constants.items()}
