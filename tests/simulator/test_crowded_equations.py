"""What a crowded point's equations say, and which of them say nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.calibration.equations import CROWDED_MEETING, Equation, crowd_equations
from simulator.calibration.fit import fit
from simulator.calibration.machine import fit_machine
from simulator.host_conditions import crowd_exponents, slowdowns, told_pace, traffic, usual_readings
from simulator.host_costs import MEETING, stage_terms
from tests.simulator.test_calibration import (
    FACTORS,
    KNOWN,
    READINGS,
    all_factors,
    all_planted,
    conditions,
    crowded,
    drawn,
    made_up,
    of_crowds,
    planted,
)


def test_servers_that_sum_a_step_say_nothing_of_what_a_batch_costs_them() -> None:
    q = drawn(1)[0]
    constants = all_planted(q) | conditions(0.6, sensitive=False) | all_factors()
    one = crowded(q)
    found, without = (crowd_equations([point], constants, [1.0], 2.0) for point in (one, replace(one, gathered=True)))
    assert found["server"][0].seconds > 0.0 == without["server"][0].seconds
    assert found["io"] == without["io"]


def test_what_ranks_take_to_meet_is_found_apart_from_their_other_messages() -> None:
    shapes = of_crowds()
    assert {q.meetings for q in shapes} == {0, 1}
    constants = all_planted(shapes[0]) | conditions(0.6, sensitive=False) | {MEETING: 1.0}  # which is not used
    found = fit(crowd_equations([crowded(q) for q in shapes], constants, [1.0] * 24, 2.0)["rank rest"])
    assert found.constants[CROWDED_MEETING] == pytest.approx(FACTORS["step"] * planted(MEETING), rel=1e-3)


def test_a_batch_that_walks_through_more_rows_is_slowed_more_beside_busy_cores() -> None:
    few = drawn(1)[0]
    many = replace(few, id_values=20.0 * few.id_values)
    constants = all_planted(few) | conditions(0.6, sensitive=True) | all_factors()
    assert traffic(constants, few) < traffic(constants, many) < 1.0
    for stage, slowed in slowdowns(constants, many, crowded=True).items():
        of_traffic = constants[crowd_exponents(stage)[2]]
        more = of_traffic * (traffic(constants, many) - traffic(constants, few))
        if stage not in ("pool", "un-pool"):  # whose own work grows with the rows
            assert slowed / slowdowns(constants, few, crowded=True)[stage] == pytest.approx(np.exp(more), rel=1e-6), stage


def test_a_pace_is_what_a_probe_reads_beside_what_is_usual_there() -> None:
    awake = READINGS._replace(memory_s=0.5 * READINGS.memory_s)  # a core that is awake reads faster
    constants = conditions(0.6, sensitive=False) | {"host.crowded_memory_s": awake.memory_s}
    assert told_pace(constants, READINGS, crowded=False) == pytest.approx(1.0)
    assert told_pace(constants, READINGS._replace(memory_s=2.0 * READINGS.memory_s), crowded=False) == pytest.approx(2.0**0.8)
    assert told_pace(constants, READINGS._replace(core_s=2.0 * READINGS.core_s), crowded=False) == pytest.approx(2.0**0.5)
    assert told_pace(constants, awake, crowded=True) == pytest.approx(1.0)


def test_a_machine_with_many_cores_knows_no_crowding() -> None:
    measured = [made_up(q) for q in drawn(40)]
    idle = [replace(crowded(q, "after_backward"), step_s=10.0) for q in drawn(8)]
    machine = fit_machine([*measured, *idle], 64.0, KNOWN)
    assert {machine.constants[name] for name in all_factors()} == {1.0}
    assert usual_readings(machine.constants, crowded=False) == pytest.approx(READINGS)
    assert {machine.constants[name] for stage in stage_terms(measured[0].quantities) for name in crowd_exponents(stage)} == {0.0}
    assert machine.paces == pytest.approx([1.0] * 48, abs=0.05)


def test_a_factor_that_only_a_spoilt_point_tells_is_as_uncertain_as_it_is_large() -> None:
    sound = [Equation({"a": float(size)}, size * (1.0 + 0.001 * (-1) ** size)) for size in range(1, 21)]
    found = fit([*sound, Equation({"a": 1.0, "b": 1.0}, 50.0)], about_one=("b",))
    assert found.left_out == 1
    assert found.constants == pytest.approx({"a": 1.0, "b": 1.0}, rel=1e-3)
    assert found.errors["b"] == found.constants["b"] > 100.0 * found.errors["a"]
