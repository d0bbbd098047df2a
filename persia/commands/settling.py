"""How long a real run takes to settle: its first batches are slower than all later ones, by up to a half, and are not measured.

In them rows are met for the first time; the memory of as many batches as are ever under way at once is touched for the first time,
which the kernel may have to ask a hypervisor for, and so is what each process keeps from batch to batch.
"""

from __future__ import annotations

import math

from persia.scenario import Scenario

SETTLING_S = 1.5
"""How long after its first batch a run is still slow, however many batches that is; of a lone batch after another it is not."""

_BEHIND = 2  # steps, after the last row is met
_TIMES_UNDER_WAY = 3  # batches until no more memory is asked for than before, for each that may be under way


def settling_steps(scenario: Scenario) -> int:
    """Return after how many steps rows and memory are known, when batches repeat."""
    distinct = math.ceil((scenario.workload.data.distinct_batches or 0) / scenario.ranks)
    return _BEHIND + max(distinct, _TIMES_UNDER_WAY * scenario.staleness_permits)
