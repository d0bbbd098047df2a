"""From all points of a calibration to a machine's constants: alone first, then what crowding makes of them, then the all-reduce."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from simulator.host_costs import crowd_factors, footprint_paces, stage_terms

_BUSY_LEAST = 0.3  # of the other cores
_CROWDED_LEAST = 6  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The fits of every stage; constants that belong to no stage; how many times longer than usual each point took.

    A point's pace is what neither the size of its batch nor crowding explains.
    """

    fitted: Mapping[str, Fitted]
    constants: Mapping[str, float]
    paces: Sequence[float]


def fit_machine(points: Sequence[PointTimes], cores: float) -> Machine:
    """Return what the points say of a machine with so many cores."""
    alone = [point for point in points if not point.crowded]
    usual = Usual.of(alone)
    fitted, idle = fit_all(equations(alone), [usual.condition(point) for point in alone])
    of_alone = iter(idle.of_points)
    paces = [
        idle.at((slower, 0.0)) if point.crowded else next(of_alone) / idle.at((0.0, larger))
        for point, (slower, larger) in ((point, usual.condition(point)) for point in points)
    ]
    busy = [number for number, point in enumerate(points) if point.crowded and others_busy(point, cores) >= _BUSY_LEAST]
    crowded = idle
    if len(busy) >= _CROWDED_LEAST:  # else there are so many cores that the points do not fill them, or only one
        crowd, crowded = _fit_crowd([points[number] for number in busy], usual, idle, _constants(fitted), cores)
        fitted |= crowd
        for number, pace in zip(busy, crowded.of_points, strict=True):
            paces[number] *= pace
    memory_exponent, footprint_exponent = idle.exponents
    constants = {
        **dict.fromkeys((name for stage in stage_terms(points[0].quantities) for name in crowd_factors(stage)), 1.0),
        "host.memory_s": usual.memory_s,
        "host.memory_exponent": memory_exponent,
        "host.memory_cv": pstdev(usual.condition(point)[0] for point in points),
        "host.footprint": usual.footprint,
        "host.footprint_exponent": footprint_exponent,
        "host.crowded_footprint_exponent": footprint_exponent if crowded is idle else footprint_exponent + crowded.exponents[0],
        "host.drift": idle.drift,
    }
    fitted["reduction"] = _fit_reduction(points, paces, {**constants, **_constants(fitted)}, cores)
    return Machine(fitted=fitted, constants=constants, paces=paces)


def _fit_crowd(
    points: Sequence[PointTimes], usual: Usual, idle: Paces, constants: Mapping[str, float], cores: float
) -> tuple[dict[str, Fitted], Paces]:
    """Return the factors of every stage on a crowded machine, and the points' paces apart from what is known of them."""
    larger = [(others_busy(point, cores) * usual.condition(point)[1],) for point in points]  # of what is crowded only
    found = crowd_equations(points, constants, [idle.at(usual.condition(point)) for point in points], cores)
    fitted, paces = fit_all(found, larger, about_one=True)
    unexplained = [pace / paces.at(each) for pace, each in zip(paces.of_points, larger, strict=True)]
    factors = {f"crowd_{stage}": each for stage, each in fitted.items()}
    return factors, Paces(of_points=unexplained, exponents=paces.exponents, drift=paces.drift)


def _fit_reduction(points: Sequence[PointTimes], paces: Sequence[float], constants: Mapping[str, float], cores: float) -> Fitted:
    reducing, at_paces = [], []
    for point, pace in zip(points, paces, strict=True):
        if point.reduction:
            alone, crowded = footprint_paces(constants, point.quantities)
            reducing.append(point)
            at_paces.append((pace * alone, pace * crowded))
    return fit(reduction_equations(reducing, constants, at_paces, cores))


def _constants(fitted: Mapping[str, Fitted]) -> dict[str, float]:
    return {name: value for each in fitted.values() for name, value in each.constants.items()}
