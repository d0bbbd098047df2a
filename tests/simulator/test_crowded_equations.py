"""What a crowded point's equations say, and which of them say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.calibration.equations import CROWDED_MEETING, crowd_equations
from simulator.calibration.fit import fit
from simulator.host_costs import MEETING, crowd_exponents, slowdowns, traffic
from tests.simulator.test_calibration import FACTORS, all_factors, all_planted, conditions, crowded, drawn, of_crowds, planted


def test_servers_that_sum_a_step_say_nothing_of_what_a_batch_costs_them() -> None:
    q = drawn(1)[0]
    constants = all_planted(q) | all_factors() | conditions(0.6, sensitive=False)
    one = crowded(q)
    found, without = (crowd_equations([point], constants, [1.0], 2.0) for point in (one, replace(one, gathered=True)))
    assert found["server"][0].seconds > 0.0 == without["server"][0].seconds
    assert found["io"] == without["io"]


def test_what_ranks_take_to_meet_is_found_apart_from_their_other_messages() -> None:
    shapes = of_crowds()
    assert {q.meetings for q in shapes} == {0, 1}
    constants = all_planted(shapes[0]) | conditions(0.6, sensitive=False) | {MEETING: 1.0}  # which is not used
    found = fit(crowd_equations([crowded(q) for q in shapes], constants, [1.0] * 24, 2.0)["rank rest"])
    assert found.constants[CROWDED_MEETING] == pytest.approx(FACTORS["fixed"] * planted(MEETING), rel=1e-3)


def test_a_batch_that_walks_through_more_rows_is_slowed_more_beside_busy_cores() -> None:
    few = drawn(1)[0]
    many = replace(few, id_values=20.0 * few.id_values)
    constants = all_planted(few) | all_factors() | conditions(0.6, sensitive=True)
    assert traffic(constants, few) < traffic(constants, many) < 1.0
    for stage, slowed in slowdowns(constants, many).items():
        of_traffic = constants[crowd_exponents(stage)[2]]
        more = of_traffic * (traffic(constants, many) - traffic(constants, few))
        if stage not in ("pool", "un-pool"):  # whose own work grows with the rows
            assert slowed / slowdowns(constants, few)[stage] == pytest.approx(np.exp(more), rel=1e-6), stage
