"""From measured stage times to constants: non-negative least squares of the relative error.

A stage's time is a sum of constants times quantities that the scenario gives (`host_costs.stage_terms`).  Every point's
equation is divided by its time, so that all points weigh the same, however large their batches are: first by what was
measured, then by what the last fit says, since dividing by a noisy measurement makes constants too small (iteratively
reweighted least squares).  No constant may be negative, since none of them can be: Lawson and Hanson, "Solving least
squares problems" (1974).

Shapes: P points, K constants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from operator import mul

import numpy as np
from scipy.optimize import lsq_linear, nnls

from simulator.calibration.equations import Equation

_Z90 = 1.645  # of a normal distribution's 90 % interval
_ROUNDS = 5  # of weighing anew and leaving out what a disturbance of the machine has spoilt
_OUTLIER = 3.5  # deviations
_PRIOR = 0.5  # weight of a further equation, over that of a point's
_PACE_ROUNDS = 8
_EXPONENTS = 0.0, 2.0  # bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One stage: its constants with their standard errors, and the relative error of a point's time about the fit."""

    constants: Mapping[str, float]
    errors: Mapping[str, float]
    relative_error: float
    points: int
    left_out: int


def fit(equations: Sequence[Equation], about_one: bool = False) -> Fitted:
    """Return the constants of one stage from its equation at each point.

    With `about_one` constants are factors that are 1 as far as the points do not say otherwise: each has a further equation
    that says so, within a fifth where points err by a tenth (ridge regression: Hoerl and Kennard, 1970).

    Points further than 3.5 robust deviations from the fit are left out, and counted.  Errors are relative to all of a stage's
    time, what is known of it included.

    Raises:
        ValueError: fewer points than constants.
    """
    sound = [each for each in equations if each.seconds > 0.0]
    names = [name for name in dict.fromkeys(name for each in sound for name in each.terms) if any(e.terms.get(name, 0.0) for e in sound)]
    if len(sound) < len(names):
        raise ValueError(f"{len(sound)} points do not determine {len(names)} constants")
    counts = np.array([[each.terms.get(name, 0.0) for name in names] for each in sound])
    measured_s, known_s = np.array([each.seconds for each in sound]), np.array([each.known_s for each in sound])
    scale = measured_s
    kept, solution = np.ones(len(sound), dtype=bool), np.zeros(len(names))
    for _ in range(_ROUNDS):
        columns = np.maximum(np.abs(counts / scale[:, None]).max(axis=0), 1e-300)
        matrix = counts / scale[:, None] / columns
        prior = np.diag(_PRIOR / columns) if about_one else np.empty((0, len(names)))
        sides = [((measured_s - known_s) / scale)[kept], np.full(len(prior), _PRIOR)]
        solution = nnls(np.vstack([matrix[kept], prior]), np.concatenate(sides))[0] / columns
        expected_s = known_s + counts @ solution
        scale = np.maximum(expected_s, 0.05 * measured_s)
        residual = np.log(measured_s / scale)
        deviation = 1.4826 * np.median(np.abs(residual - np.median(residual)))
        kept = np.abs(residual - np.median(residual)) <= max(_OUTLIER * deviation, 0.02)
    relative = ((measured_s - expected_s) / scale)[kept]
    used = solution > 0.0
    variance = float(relative @ relative) / max(1, len(relative) - int(used.sum()))
    matrix = (counts / scale[:, None])[kept][:, used]
    columns = np.abs(matrix).max(axis=0)
    errors = np.zeros(len(names))
    errors[used] = np.sqrt(np.maximum(0.0, np.diag(np.linalg.pinv((matrix / columns).T @ (matrix / columns))) * variance)) / columns
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
    """How many times longer all stages of a point take than under the usual conditions: `of_points`, point by point.

    They follow the conditions with these `exponents`, up to a relative error of `drift`.
    """

    of_points: Sequence[float]
    exponents: Sequence[float]
    drift: float

    def at(self, condition: Sequence[float]) -> float:
        """Return the pace under a condition, given by how far it is from usual."""
        return exp(sum(map(mul, self.exponents, condition)))


def fit_all(
    equations: Mapping[str, Sequence[Equation]], conditions: Sequence[Sequence[float]], *, about_one: bool = False
) -> tuple[dict[str, Fitted], Paces]:
    """Return the fit of every stage, and every point's pace.

    Equations and conditions, which are zero where all is as usual, stand in the order of the points.  What all stages have in
    common is no constant of a stage's: a machine that others share is faster at one moment and slower at the next, and a large
    batch finds less of its data in the cores' caches.  A point's pace is the median of its stages' residuals, so that no stage
    decides alone; constants are those of the usual conditions.
    """
    paces = np.ones(len(conditions))
    known = np.column_stack([paces, np.array(conditions)])
    bounds = [-np.inf, *[_EXPONENTS[0]] * (known.shape[1] - 1)], [np.inf, *[_EXPONENTS[1]] * (known.shape[1] - 1)]
    for _ in range(_PACE_ROUNDS):
        fitted, logs = {}, []
        for stage, each in equations.items():
            found = fitted[stage] = fit([e._replace(seconds=e.seconds / pace) for e, pace in zip(each, paces, strict=True)], about_one)
            expected_s = [e.known_s + sum(found.constants.get(name, 0.0) * count for name, count in e.terms.items()) for e in each]
            logs.append(
                [np.log(e.seconds / of_s) if min(e.seconds, of_s) > 0.0 else np.nan for e, of_s in zip(each, expected_s, strict=True)]
            )
        common = np.nanmedian(np.array(logs), axis=0)
        solved = lsq_linear(known, common, bounds).x
        paces = np.exp(common - solved[0])
    drift = float((common - known @ solved).std(ddof=known.shape[1]))
    return fitted, Paces(of_points=paces.tolist(), exponents=solved[1:].tolist(), drift=drift)
