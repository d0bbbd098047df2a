"""Which of a crowded point's equations say something."""

from __future__ import annotations

from dataclasses import replace

from simulator.calibration.equations import crowd_equations
from tests.simulator.test_calibration import all_factors, all_planted, conditions, crowded, drawn


def test_servers_that_sum_a_step_say_nothing_of_what_a_batch_costs_them() -> None:
    q = drawn(1)[0]
    constants = all_planted(q) | all_factors() | conditions(0.6, sensitive=False)
    one = crowded(q)
    found, without = (crowd_equations([point], constants, [1.0], 2.0) for point in (one, replace(one, gathered=True)))
    assert found["server"][0].seconds > 0.0 == without["server"][0].seconds
    assert found["io"] == without["io"]
