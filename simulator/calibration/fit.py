"""From measured stage times to constants: non-negative least squares of the relative error.

A stage's time is a sum of constants times quantities that the scenario gives (`host_costs.stage_terms`).  Every point's
equation is divided by its time, so that all points weigh the same, however large their batches are: first by what was
measured, then by what the last fit says, since dividing by a noisy measurement makes constants too small (iteratively
reweighted least squares).  No constant may be negative, since none of them can be: Lawson and Hanson, "Solving least
squares problems" (1974).

Shapes: P points, K constants.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear, nnls

from simulator.calibration.equations import Equation

_Z90 = 1.645  # of a normal distribution's 90 % interval
_ROUNDS = 5  # of weighing anew and leaving out what a disturbance of the machine has spoilt
_OUTLIER = 4.685  # deviations beyond which a point says nothing: Beaton and Tukey's biweight, Technometrics 16 (1974)
_LEAST_DEVIATION = 0.005  # of a logarithm: where almost all points agree, the others are not left out for less
_PRIOR = 0.25  # weight of a further equation, over that of a point's: by held-out points
_PACE_ROUNDS, _SETTLED = 40, 2e-3  # most rounds; the largest change of a pace that ends them
_ALWAYS_APART = 0.05  # of a stage's residuals from the shared ones, added to their deviation: no stage decides alone
_CLIPPED, _SHARED_ROUNDS = 2.0, 3  # deviations beyond which a stage says no more of a point (Huber, 1964); rounds of finding them
_EXPONENTS = 0.0, 2.0  # bounds of what all stages have in common
_APART = 0.2  # about how far a stage's exponent is from the common one
_ARITHMETIC, _ARITHMETIC_APART = 0.5, 0.5  # the exponent of plain arithmetic: between not at all and as the rest
_MACHINE, _PRIOR_OF_MACHINE = 0.4, 0.4  # exponent of each reading of the machine as far as the points do not tell, and the weight of that
_OWN = 0.2  # part of what all stages share at a point, beyond the machine's readings, that is kept from constants: by held-out points
_PRIOR_OF_SIZES = 0.5  # weight of that what all stages have in common does not follow a size: within 0.2 where points err by a tenth


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One stage: its constants with their standard errors, and the relative error of a point's time about the fit."""

    constants: Mapping[str, float]
    errors: Mapping[str, float]
    relative_error: float
    points: int
    left_out: int


def fit(equations: Sequence[Equation], about_one: Collection[str] = ()) -> Fitted:
    """Return the constants of one stage from its equation at each point.

    Constants in `about_one` are factors that are 1 as far as the points do not say otherwise: each has a further equation
    that says so, within two fifths where points err by a tenth (ridge regression: Hoerl and Kennard, 1970).

    Points weigh less the further they are from the fit; those beyond 4.7 robust deviations are left out, and counted.  Errors
    are relative to all of a stage's time, what is known of it included.

    Without equations there are no constants.

    Raises:
        ValueError: fewer points than constants that are not in `about_one`.
    """
    sound = [each for each in equations if each.seconds > 0.0]
    if not sound:
        return Fitted(constants={}, errors={}, relative_error=0.0, points=0, left_out=0)
    names = [name for name in dict.fromkeys(name for each in sound for name in each.terms) if any(e.terms.get(name, 0.0) for e in sound)]
    unknown = sum(name not in about_one for name in names)
    if len(sound) < unknown:
        raise ValueError(f"{len(sound)} points do not determine {unknown} constants")
    counts = np.array([[each.terms.get(name, 0.0) for name in names] for each in sound])
    measured_s, known_s = np.array([each.seconds for each in sound]), np.array([each.known_s for each in sound])
    scale = measured_s
    weights, solution = np.ones(len(sound)), np.zeros(len(names))
    for _ in range(_ROUNDS):
        columns = np.maximum(np.abs(counts / scale[:, None]).max(axis=0), 1e-300)
        matrix = counts / scale[:, None] / columns
        prior = np.diag(_PRIOR / columns)[[name in about_one for name in names]]
        sides = [weights * (measured_s - known_s) / scale, np.full(len(prior), _PRIOR)]
        solution = nnls(np.vstack([weights[:, None] * matrix, prior]), np.concatenate(sides))[0] / columns
        expected_s = known_s + counts @ solution
        scale = np.maximum(expected_s, 0.05 * measured_s)
        residual = np.log(measured_s / scale)
        residual -= np.median(residual)
        weights = _root_weights(residual, _deviation(residual))
    kept = weights > 0.0
    relative = ((measured_s - expected_s) / scale)[kept]
    used = solution > 0.0
    variance = float(relative @ relative) / max(1, len(relative) - int(used.sum()))
    matrix = (counts / scale[:, None])[kept]
    told = used & (np.abs(matrix).max(axis=0) > 0.0)
    matrix = matrix[:, told]
    columns = np.abs(matrix).max(axis=0)
    errors = np.where(used, solution, 0.0)  # of what no point tells that is kept: as large as it is
    errors[told] = np.sqrt(np.maximum(0.0, np.diag(np.linalg.pinv((matrix / columns).T @ (matrix / columns))) * variance)) / columns
    return Fitted(
        constants=dict(zip(names, solution.tolist(), strict=True)),
        errors=dict(zip(names, errors.tolist(), strict=True)),
        relative_error=float(np.sqrt(variance)),
        points=len(sound),
        left_out=int((~kept).sum()),
    )


def interval(value: float, error: float) -> tuple[float, float]:
    """Return the 90 % interval of a constant that cannot be negative."""
    return max(0.0, value - _Z90 * error), value + _Z90 * error


@dataclass(frozen=True, slots=True, kw_only=True)
class Paces:
    """How many times longer a point takes than under the usual conditions, whatever the size of its batch: `of_points`.

    All stages share a point's pace; each follows it with its own `sensitivity`, one on average, but for what is `arithmetic`,
    and the size of a batch with exponents of its own.  The pace follows what was read of the machine with the `machine`
    exponents.
    """

    of_points: Sequence[float]
    machine: Sequence[float]
    sensitivity: Mapping[str, float]
    arithmetic: float
    sizes: Mapping[str, Sequence[float]]


def fit_all(
    equations: Mapping[str, Sequence[Equation]],
    sizes: Sequence[Sequence[float]],
    *,
    machine: Sequence[Sequence[float]] | None = None,
    exponents: Mapping[str, Sequence[float]] | None = None,
    arithmetic: str = "",
    about_one: Collection[str] = (),
) -> tuple[dict[str, Fitted], Paces]:
    """Return the fit of every stage, and every point's pace.

    Equations, how large each point's batch is and how much slower than usual the machine was by what was read of it, as logarithms,
    all zero where all is as usual, stand in the order of the points.  What all stages have in common is no constant of a
    stage's: a machine that others share is faster at one moment and slower at the next.  A point's pace is a mean of its
    stages' residuals, those of a stage that is often apart from the others count less; how a stage follows it, unless `exponents`
    say that for each point, and the size of a batch differs from the others as far as its residuals beside theirs say so, apart
    from what the constant `arithmetic` makes of a stage.  Constants are those of the usual conditions.  Of a pace that no reading
    tells they see the greater part: what all stages share at a point may be the machine's as well as the batch's.
    """
    size, read = np.array(sizes), np.array([[]] * len(sizes) if machine is None else machine)
    readings = read.shape[1]
    design = np.column_stack([np.ones(len(size)), read, size])
    bounds = [-np.inf, *[_EXPONENTS[0]] * (design.shape[1] - 1)], [np.inf, *[_EXPONENTS[1]] * (design.shape[1] - 1)]
    none, about = np.zeros(size.shape[1]), np.full(size.shape[1], _APART)  # how far apart stages' exponents of a size are expected to be
    prior = np.diag([0.0, *[_PRIOR_OF_MACHINE] * readings, *[_PRIOR_OF_SIZES] * size.shape[1]])[1:]
    supposed = prior @ np.array([0.0, *[_MACHINE] * readings, *none])
    expected, within = np.array([0.0, _ARITHMETIC - 1.0, *none]), np.array([_APART, _ARITHMETIC_APART, *about])  # those of paces, too
    of_rest, of_arithmetic = dict.fromkeys(equations, 1.0), _ARITHMETIC
    paces, pace = {stage: np.ones(len(size)) for stage in equations}, np.zeros(len(size))
    for _ in range(_PACE_ROUNDS):
        fitted, logs = {}, {}
        for stage, each in equations.items():
            usual = [e._replace(seconds=e.seconds / pace) for e, pace in zip(each, paces[stage], strict=True)]
            fitted[stage] = fit(usual, about_one)
            logs[stage] = _logs(each, fitted[stage])
        shared = _shared(np.array(list(logs.values())))
        solved = lsq_linear(np.vstack([design, prior]), np.append(shared, supposed), bounds).x
        of_machine, of_size = solved[1 : 1 + readings], solved[1 + readings :]
        before, pace = pace, shared - solved[0] - size @ of_size
        taken_out = _OWN * pace + (1.0 - _OWN) * read @ of_machine
        of_sizes = {}
        for stage, each in logs.items():
            if exponents is None:
                share = _share(equations[stage], fitted[stage], arithmetic)
                known = np.column_stack([pace * (1.0 - share), pace * share, size])
                rest, apart, *sized = _apart(known, each - shared, expected, within)
                of_rest[stage] = 1.0 + float(rest)
                of_arithmetic = 1.0 + float(apart) if share.any() else of_arithmetic
                follows = of_rest[stage] + share * (of_arithmetic - of_rest[stage])
            else:
                follows = np.array(exponents[stage])
                sized = _apart(size, each - shared - (follows - 1.0) * pace, none, about)
            of_sizes[stage] = of_size + np.array(sized)
            paces[stage] = np.exp(follows * taken_out + size @ of_sizes[stage])
        if np.abs(pace - before).max() < _SETTLED:
            break
    return fitted, Paces(
        of_points=np.exp(pace).tolist(),
        machine=of_machine.tolist(),
        sensitivity=of_rest,
        arithmetic=of_arithmetic,
        sizes={stage: each.tolist() for stage, each in of_sizes.items()},
    )


def _logs(equations: Sequence[Equation], fitted: Fitted) -> Any:
    """Return the logarithm of what was measured over what is expected, NaN for an equation that says nothing."""
    pairs = [(each.seconds, of_s) for each, of_s in zip(equations, _expected_s(equations, fitted), strict=True)]
    return np.array([np.log(measured_s / of_s) if min(measured_s, of_s) > 0.0 else nan for measured_s, of_s in pairs])


def _share(equations: Sequence[Equation], fitted: Fitted, name: str) -> Any:
    """Return the share that one constant has in what is expected of each equation."""
    of_name = np.array([fitted.constants.get(name, 0.0) * each.terms.get(name, 0.0) for each in equations])
    return of_name / np.maximum(_expected_s(equations, fitted), 1e-300)


def _expected_s(equations: Sequence[Equation], fitted: Fitted) -> list[float]:
    return [each.known_s + sum(fitted.constants.get(name, 0.0) * count for name, count in each.terms.items()) for each in equations]


def _apart(known: Any, residual: Any, expected: Any, within: Any) -> Any:
    """Return how far a stage's exponents are from the common ones: as expected, within about so much, where residuals do not say more."""
    residual = residual - known @ expected
    residual = residual - np.nanmedian(residual)
    said = ~np.isnan(residual)
    residual, known = residual[said], known[said]
    deviation = _deviation(residual)
    weights = _root_weights(residual, deviation)
    squares = weights**2 / (weights @ weights)
    centred = weights[:, None] * (known - squares @ known)
    ridge = np.diag((deviation / within) ** 2)
    return expected + np.linalg.solve(centred.T @ centred + ridge, centred.T @ (weights * (residual - squares @ residual)))


def _shared(logs: Any) -> Any:
    """Return what stages have in common at each point, of residuals (stages, points): a mean in which no stage counts for all."""
    shared = np.nanmedian(logs, axis=0)
    for _ in range(_SHARED_ROUNDS):
        apart = logs - shared
        spread = 1.4826 * np.nanmedian(np.abs(apart - np.nanmedian(apart, axis=1, keepdims=True)), axis=1, keepdims=True)
        deviation = np.hypot(spread, _ALWAYS_APART)
        weights = np.where(np.isnan(logs), 0.0, np.minimum(1.0, _CLIPPED * deviation / np.maximum(np.abs(apart), 1e-12)) / deviation**2)
        shared = (weights * np.nan_to_num(logs)).sum(axis=0) / weights.sum(axis=0)
    return shared


def _deviation(residual: Any) -> float:
    """Return a robust standard deviation of residuals about 0."""
    return max(1.4826 * float(np.median(np.abs(residual))), _LEAST_DEVIATION)


def _root_weights(residual: Any, deviation: float) -> Any:
    """Return the square roots of the weights of residuals about 0: 1 for small ones, 0 for outliers."""
    return np.maximum(0.0, 1.0 - (residual / (_OUTLIER * deviation)) ** 2)
