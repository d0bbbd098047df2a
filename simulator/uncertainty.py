"""How far a prediction from calibrated constants may be off: an interval, wider outside what the calibration has covered.

Every stage's time is known to within the relative error of its fit, and stages err independently; the machine's own pace
drifts and, where it is measured just before and after, still changes from one second to the next.  A throughput
is taken to err as the processor time of a batch does.
"""

from __future__ import annotations

from math import exp, hypot, log, sqrt

from persia.scenario import Profile, Scenario
from simulator.host_costs import quantities, stage_seconds, stage_terms
from simulator.result import Interval, Prediction

_Z90 = 1.645
_OUTSIDE = 0.5  # relative error added per factor of e outside the domain


def predict(scenario: Scenario, profile: Profile, samples_per_s: float) -> Prediction:
    """Return the interval around a simulated throughput; the profile must be a calibrated one."""
    q = quantities(scenario)
    seconds = {stage: stage_seconds(profile, terms) for stage, terms in stage_terms(q).items()}
    total_s = sum(seconds.values())
    variance = profile["host.drift" if scenario.simulation.pace is None else "host.jitter"] ** 2
    for stage, spent_s in seconds.items():
        name = f"host.relative_error.{stage.replace(' ', '_').replace('-', '_')}"
        relative_error = profile[name] if name in profile.constants else 0.0
        variance += (spent_s / total_s * relative_error) ** 2
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
