"""The wait that no clock of a thread shows: how long an idle core takes to wake.

The time from batch to batch shows it, mixed with the work of many threads, some of it side by side.  The simulator knows
that work and who waits for whom, so that one figure is left that makes its steps as long as the measured ones: each point
gives one, from two simulations, since a step grows linearly with it, and counts as much as its step depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from persia.scenario import Scenario
from simulator.parallel import parallel_map
from simulator.run import seconds_of_batch

TRIED_S = (0.0, 300e-6)


def wait_s(points: Sequence[tuple[Scenario, float]], with_wait: Callable[[Scenario, float], Scenario]) -> float:
    """Return the weighted median of what the points say, at least 0.

    Each is a scenario, which sets the machine's pace at that time, and the measured seconds from batch to batch of all its
    ranks; `with_wait` gives the scenario with a profile in which the figure is so large.
    """
    found = []
    tried = parallel_map(seconds_of_batch, [with_wait(scenario, tried_s) for scenario, _ in points for tried_s in TRIED_S])
    for (_, measured_s), low_s, high_s in zip(points, tried, tried, strict=True):
        if high_s > low_s:
            slope = (high_s - low_s) / (TRIED_S[1] - TRIED_S[0])
            found.append((TRIED_S[0] + (measured_s - low_s) / slope, slope / measured_s))
    return max(0.0, _weighted_median(sorted(found)))


def _weighted_median(found: Sequence[tuple[float, float]]) -> float:
    """Return the value, of ascending (value, weight), below which half of the weight lies; 0 for none."""
    half, passed = sum(weight for _, weight in found) / 2.0, 0.0
    for value, weight in found:
        passed += weight
        if passed >= half:
            return value
    return 0.0
