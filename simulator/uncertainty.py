"""How far a prediction from calibrated constants may be off: an interval, wider outside what the calibration has covered.

Every stage's time is known to within the relative error of its fit, and stages err independently; so does, where ranks reduce
their gradients, the training thread with its all-reduce.  On a crowded machine the fit of crowded points counts, whose error holds
that of the work beside idle cores.  The machine's own pace drifts; that of its memory does not count where it is known.  A
throughput is taken to err as the processor time of a batch does.
"""

from __future__ import annotations

from math import exp, hypot, log, sqrt

from persia.scenario import Profile, Scenario
from simulator.host_costs import is_crowded, quantities, reduces, relative_error_of, stage_seconds, stage_terms
from simulator.result import Interval, Prediction

_Z90 = 1.645
_OUTSIDE = 0.5  # relative error added per factor of e outside the domain


def predict(scenario: Scenario, profile: Profile, samples_per_s: float) -> Prediction:
    """Return the interval around a simulated throughput; the profile must be a calibrated one."""
    q = quantities(scenario)
    seconds = {stage: stage_seconds(profile, terms) for stage, terms in stage_terms(q).items()}
    total_s = sum(seconds.values())
    shares = {stage: spent_s / total_s for stage, spent_s in seconds.items()}
    if is_crowded(scenario) and relative_error_of("crowd_loader") in profile:
        shares = {f"crowd_{stage}": share for stage, share in shares.items()}
    if reduces(scenario):
        shares["reduction"] = seconds["train"] / total_s
    variance = profile["host.drift"] ** 2
    if scenario.simulation.pace is None:
        variance += (profile["host.memory_exponent"] * profile["host.memory_cv"]) ** 2
    for name, share in shares.items():
        constant = relative_error_of(name)
        variance += (share * (profile[constant] if constant in profile.constants else 0.0)) ** 2
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
