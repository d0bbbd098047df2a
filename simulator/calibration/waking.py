"""How long an idle core takes to wake: no clock of a thread shows it, the time from batch to batch does.

Where one batch after another passes, a step is the work of many threads, some of it side by side, and the waking of the
cores between them.  The simulator knows the work and who waits for whom, so that the one figure is left that makes its steps
as long as the measured ones: each point gives one, from two simulations, since a step grows linearly with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from persia.scenario import Scenario
from simulator.run import simulate

TRIED_S = (0.0, 100e-6)


def wake_s(points: Sequence[tuple[Scenario, Scenario, float]]) -> float:
    """Return the median of what the points say, at least 0.

    Each is a scenario with a profile whose cores wake in `TRIED_S[0]`, the same with `TRIED_S[1]`, and the measured seconds
    from batch to batch; each sets the machine's pace at that time.
    """
    found = []
    for *tried, measured_s in points:
        low_s, high_s = (scenario.workload.batch_size / simulate(scenario).throughput.samples_per_s.mean for scenario in tried)
        found.append(TRIED_S[0] + (TRIED_S[1] - TRIED_S[0]) * (measured_s - low_s) / (high_s - low_s))
    return max(0.0, median(found))
