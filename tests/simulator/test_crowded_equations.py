"""What a crowded point's equations say, and which of them say nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.calibration.equations import CROWDED_MEETING, crowd_equations
from simulator.calibration.fit import fit
from simulator.host_costs import MEETING
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
