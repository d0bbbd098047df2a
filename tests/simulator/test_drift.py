"""What calibration takes for the machine's drift, and which of a crowded point's equations say something."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.calibration.equations import Equation, crowd_equations
from simulator.calibration.fit import fit_all
from tests.simulator.test_calibration import all_factors, all_planted, conditions, crowded, drawn


@pytest.mark.parametrize(("in_a_row", "share"), [(1, 0.5), (16, 1.0)])
def test_what_changes_from_one_point_to_the_next_is_no_drift(in_a_row: int, share: float) -> None:
    generator = np.random.default_rng(11)
    logs = np.repeat(0.1 * generator.standard_normal(320 // in_a_row), in_a_row)
    _, told = fit_all({"one": [Equation({"a": 1.0}, float(np.exp(each))) for each in logs]}, [(0.0,)] * len(logs))
    assert told.drift == pytest.approx(share * float(logs.std()), rel=0.2)


def test_servers_that_sum_a_step_say_nothing_of_what_a_batch_costs_them() -> None:
    q = drawn(1)[0]
    constants = all_planted(q) | all_factors() | conditions(0.6, sensitive=False)
    one = crowded(q)
    found, without = (crowd_equations([point], constants, [1.0], 2.0) for point in (one, replace(one, gathered=True)))
    assert found["server"][0].seconds > 0.0 == without["server"][0].seconds
    assert found["io"] == without["io"]
