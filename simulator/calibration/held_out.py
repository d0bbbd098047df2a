"""How far predictions are off: points of a calibration, predicted from the others as `persia validate` predicts a case.

A point is measured for a second or less, in which a restless machine does not show its mean: what its two halves say of that is
no error of a prediction, and is taken off.  What points one after another have in common is the machine's, which is slower for minutes:
successive differences hold none of it (von Neumann, "Distribution of the ratio of the mean square successive difference to the
variance", Annals of Mathematical Statistics 12, 1941).  It is an error only where nothing tells the machine's pace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from math import log, sqrt
from statistics import fmean, median

from simulator.calibration.equations import (
    Equation,
    PointTimes,
    beside_s,
    gather_equations,
    reduction_equations,
)
from simulator.calibration.machine import fit_machine
from simulator.host_conditions import stage_paces, told_pace
from simulator.host_costs import ALONE_ERROR, CROWDED_ERROR, DRIFT_ERROR, Constants
from simulator.parallel import parallel_map

_FOLDS = 5  # parts of the points, one after another in time
_MOST_UNREST = 0.75  # of the variance, as far as it is believed: halves of a measurement differ by where batches happen to end, too
_FARTHEST = 3.0  # robust deviations beyond which one point is no measure of the others


def prediction_errors(points: Sequence[PointTimes], cores: float, known: Mapping[str, float]) -> dict[str, float]:
    """Return the constants that say how far the processor time of a batch is from its prediction, as standard deviations.

    `points` stand in the order of time; `known` constants were measured by themselves.
    """
    bounds = [len(points) * fold // _FOLDS for fold in range(_FOLDS + 1)]
    errors = [error for part in parallel_map(partial(_errors, points, cores, known), list(pairwise(bounds))) for error in part]
    found, shared = {}, []
    for name, crowded in ((ALONE_ERROR, False), (CROWDED_ERROR, True)):
        those = [(error, point.unrest) for error, point in zip(errors, points, strict=True) if point.crowded == crowded]
        of_kind, unrests = zip(*those, strict=True)
        spread, unrest = _deviation([(after - before) / sqrt(2.0) for before, after in pairwise(of_kind)]), _deviation(unrests)
        found[name] = sqrt(max(spread**2 - unrest**2, (1.0 - _MOST_UNREST) * spread**2))
        shared.append(max(0.0, _deviation(of_kind) ** 2 - spread**2))
    return {**found, DRIFT_ERROR: sqrt(fmean(shared))}


def _deviation(errors: Sequence[float]) -> float:
    """Return the standard deviation of errors about 0, without those that are far from all others."""
    most = _FARTHEST * 1.4826 * median(map(abs, errors))
    return sqrt(fmean(error**2 for error in errors if abs(error) <= most))


def _errors(points: Sequence[PointTimes], cores: float, known: Mapping[str, float], fold: tuple[int, int]) -> list[float]:
    """Return the logarithm of measured over predicted seconds, of points between two numbers, from all others."""
    first, behind = fold
    machine = fit_machine([*points[:first], *points[behind:]], cores, known)
    constants = {**known, **machine.all_constants()}
    return [log(point.total_s / predicted_s(point, constants, cores)) for point in points[first:behind]]


def predicted_s(point: PointTimes, constants: Constants, cores: float) -> float:
    """Return the processor seconds of a batch that constants predict, at the pace that the probe told of."""
    pace = told_pace(constants, point.readings, crowded=point.crowded)
    paces = stage_paces(constants, point.quantities, pace)
    seconds = {stage: paces[stage] * each for stage, each in beside_s(point, constants, cores).items()}
    if point.reduction:
        seconds["train"] = pace * _sum(reduction_equations([point], constants, [pace], cores)[0], constants)
    if point.gathered:
        seconds["server"] = paces["server"] * _sum(gather_equations([point], constants, [pace], cores)[0], constants)
    return sum(seconds.values())


def _sum(equation: Equation, constants: Constants) -> float:
    return equation.known_s + sum(constants[name] * count for name, count in equation.terms.items())
