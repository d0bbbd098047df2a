"""How far a prediction from calibrated constants may be off: an interval, wider outside what the calibration has covered.

The calibration has predicted points that it had not fitted (simulator.calibration.held_out), as they are predicted here: what it
erred by, one batch at a time or several, is the error.  The machine's pace comes on top where it is not known: what a probe tells,
and what is the matter with it besides.  A throughput is taken to err as the processor time of a batch does.
"""

from __future__ import annotations

from math import exp, hypot, log, sqrt

from persia.scenario import Profile, Scenario
from simulator.host_costs import ALONE_ERROR, CROWDED_ERROR, DRIFT_ERROR, is_crowded, quantities
from simulator.result import Interval, Prediction

_Z90 = 1.645
_OUTSIDE = 0.5  # relative error added per factor of e outside the domain


def predict(scenario: Scenario, profile: Profile, samples_per_s: float) -> Prediction:
    """Return the interval around a simulated throughput; the profile must be a calibrated one."""
    q = quantities(scenario)
    variance = profile[CROWDED_ERROR if is_crowded(scenario) else ALONE_ERROR] ** 2
    if scenario.simulation.pace is None:
        variance += profile["host.told_pace_cv"] ** 2 + profile[DRIFT_ERROR] ** 2
    outside, farthest = [], 0.0
    for name, covered in profile.domain.items():
        value = float(getattr(q, name))
        if not covered.low <= value <= covered.high:
            farthest = max(farthest, abs(log(max(value, 1e-9) / (covered.low if value < covered.low else covered.high))))
            outside.append(f"{name.replace('_', ' ')} {value:,.0f}; measured were {covered.low:,.0f} to {covered.high:,.0f}")
    error = hypot(sqrt(variance), _OUTSIDE * farthest)
    factor = exp(_Z90 * error)
    return Prediction(
        interval=Interval(mean=samples_per_s, low=samples_per_s / factor, high=samples_per_s * factor), outside=tuple(outside)
    )


def widened(interval: Interval, error: float) -> Interval:
    """Return a prediction's interval with a further, independent error: the standard deviation of a logarithm."""
    if not error:
        return interval
    up, down = (exp(hypot(log(side), _Z90 * error)) for side in (interval.high / interval.mean, interval.mean / interval.low))
    return Interval(mean=interval.mean, low=interval.mean / down, high=interval.mean * up)
