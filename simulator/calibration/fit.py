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
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import nnls

from simulator.host_costs import Terms

_Z90 = 1.645  # of a normal distribution's 90 % interval
_ROUNDS = 5  # of weighing anew and leaving out what a disturbance of the machine has spoilt
_OUTLIER = 3.5  # deviations
_PACE_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """One stage: its constants with their standard errors, and the relative error of a point's time about the fit."""

    constants: Mapping[str, float]
    errors: Mapping[str, float]
    relative_error: float
    points: int
    left_out: int


def fit(equations: Sequence[tuple[Terms, float]], scales_s: Sequence[float] | None = None) -> Fitted:
    """Return the constants of one stage from (terms, measured seconds) of each point.

    Points further than 3.5 robust deviations from the fit are left out, and counted.  Errors are relative to the stage's time,
    or to `scales_s` where that is a small difference of large times.

    Raises:
        ValueError: fewer points than constants.
    """
    sound = [(terms, seconds) for terms, seconds in equations if seconds > 0.0 or scales_s is not None]
    names = [name for name in dict.fromkeys(name for terms, _ in sound for name in terms) if any(t.get(name, 0.0) for t, _ in sound)]
    if len(sound) < len(names):
        raise ValueError(f"{len(sound)} points do not determine {len(names)} constants")
    counts = np.array([[terms.get(name, 0.0) for name in names] for terms, _ in sound])
    measured_s = np.array([seconds for _, seconds in sound])
    scale = measured_s if scales_s is None else np.array(scales_s)
    kept, solution = np.ones(len(sound), dtype=bool), np.zeros(len(names))
    for _ in range(_ROUNDS):
        columns = np.maximum(np.abs(counts / scale[:, None]).max(axis=0), 1e-300)
        matrix = counts / scale[:, None] / columns
        solution = nnls(matrix[kept], (measured_s / scale)[kept])[0] / columns
        if scales_s is None:
            scale = np.maximum(counts @ solution, 0.05 * measured_s)
        residual = np.log1p((measured_s - counts @ solution) / scale)
        deviation = 1.4826 * np.median(np.abs(residual - np.median(residual)))
        kept = np.abs(residual - np.median(residual)) <= max(_OUTLIER * deviation, 0.02)
    relative = ((measured_s - counts @ solution) / scale)[kept]
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


def bounded(fitted: Fitted, least: float, most: float) -> Fitted:
    """Return the fit with no constant outside the bounds."""
    return replace(fitted, constants={name: min(most, max(least, value)) for name, value in fitted.constants.items()})


def interval(value: float, error: float) -> tuple[float, float]:
    """Return the 90 % interval of a constant that cannot be negative."""
    return max(0.0, value - _Z90 * error), value + _Z90 * error


def fit_all(equations: Mapping[str, Sequence[tuple[Terms, float]]]) -> tuple[dict[str, Fitted], list[float]]:
    """Return the fit of every stage, and every point's pace.

    Equations stand in the order of the points.  A machine that others share is faster at one moment and slower at the
    next, for all stages alike: a point's pace is how many times longer everything took then than on average.  It is the
    median of its stages' residuals, so that no stage decides alone; constants are those of the average pace.
    """
    paces = np.ones(max(map(len, equations.values())))
    for _ in range(_PACE_ROUNDS):
        fitted, logs = {}, []
        for stage, each in equations.items():
            found = fitted[stage] = fit([(terms, seconds / pace) for (terms, seconds), pace in zip(each, paces, strict=True)])
            expected_s = [sum(found.constants.get(name, 0.0) * count for name, count in terms.items()) for terms, _ in each]
            logs.append(
                [
                    np.log(seconds / of_s) if min(seconds, of_s) > 0.0 else np.nan
                    for (_, seconds), of_s in zip(each, expected_s, strict=True)
                ]
            )
        common = np.nanmedian(np.array(logs), axis=0)
        paces = np.exp(common - common.mean())
    return fitted, paces.tolist()
