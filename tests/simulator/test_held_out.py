"""How far predictions of points are off that a fit has not seen; and servers that gather a step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")

from simulator.calibration.equations import PointTimes, gather_equations, reduction_equations
from simulator.calibration.fit import fit
from simulator.calibration.held_out import predicted_s, prediction_errors
from simulator.host_costs import (
    ALONE_ERROR,
    CROWDED_ERROR,
    DRIFT_ERROR,
    GATHERED_REQUEST,
    GATHERED_SUM,
    Constants,
    Quantities,
    quantities,
    sleep_cost,
)
from simulator.validation.cases import grid
from tests.simulator.test_calibration import (
    KNOWN,
    REDUCE,
    all_factors,
    all_planted,
    conditions,
    crowded,
    drawn,
    made_up,
    of_crowds,
)

GATHERED = {GATHERED_REQUEST: 0.8, GATHERED_SUM: 1.4, "host.server.lookup_share": 0.4}


def planted_machine(q: Quantities) -> dict[str, float]:
    return all_planted(q) | conditions(0.6, sensitive=False) | all_factors() | REDUCE | KNOWN | GATHERED


def gathered(point: PointTimes, constants: Constants) -> PointTimes:
    """Return a point of which servers gather the steps."""
    equation = gather_equations([point], constants, [1.0], 2.0)[0]
    seconds = equation.known_s + sum(constants[name] * count for name, count in equation.terms.items())
    return replace(point, gathered=True, thread_s={**point.thread_s, ("parameter_server", "main"): seconds})


def several_ranks() -> list[Quantities]:
    return [q for q in of_crowds() if q.ranks > 1]


def test_servers_that_gather_take_less_for_a_request_and_more_for_a_sum() -> None:
    shapes = several_ranks()
    constants = planted_machine(shapes[0])
    measured = [gathered(crowded(q), constants) for q in shapes]
    found = fit(gather_equations(measured, constants, [1.0] * len(measured), 2.0))
    assert found.constants == pytest.approx({name: GATHERED[name] for name in (GATHERED_REQUEST, GATHERED_SUM)}, rel=1e-3)


def test_a_single_step_that_is_gathered_moves_both_factors_from_one() -> None:
    shapes = several_ranks()
    constants = planted_machine(shapes[0])
    alone = gather_equations([gathered(crowded(shapes[0]), constants)], constants, [1.0], 2.0)
    found = fit(alone, about_one=(GATHERED_REQUEST, GATHERED_SUM)).constants
    assert all(abs(found[name] - 1.0) < abs(GATHERED[name] - 1.0) + 0.01 for name in found)
    with pytest.raises(ValueError, match="do not determine"):
        fit(alone)


def test_rows_that_ranks_share_are_updated_once_a_step() -> None:
    q = several_ranks()[0]
    apart, shared = (replace(q, step_rows=rows) for rows in (q.ranks * q.rows, q.rows))
    constants = planted_machine(q)
    known_s = [gather_equations([crowded(each)], constants, [1.0], 2.0)[0].known_s for each in (apart, shared)]
    assert known_s[1] < known_s[0]
    assert quantities(grid()[8].scenario()).step_rows == quantities(grid()[8].scenario()).rows  # one rank


def test_what_is_planted_is_predicted() -> None:
    shapes = several_ranks()
    constants = planted_machine(shapes[0])
    for point in (made_up(shapes[0]), crowded(shapes[0]), gathered(crowded(shapes[1]), constants), crowded(shapes[2], "overlapped")):
        assert predicted_s(point, constants, 2.0) == pytest.approx(point.total_s, rel=1e-6)
    assert reduction_equations([crowded(shapes[2], "overlapped")], constants, [1.0], 2.0)[0].terms.keys() <= constants.keys()


def test_it_costs_to_sleep_more_often_than_where_one_batch_after_another_passes() -> None:
    point = crowded(of_crowds()[0])
    constants = planted_machine(point.quantities) | {sleep_cost("server"): 1e-4}
    restless = replace(point, sleeps={**point.sleeps, ("parameter_server", "main"): point.sleeps["parameter_server", "main"] + 2.0})
    assert predicted_s(restless, constants, 2.0) == pytest.approx(predicted_s(point, constants, 2.0) + 2e-4)


@pytest.mark.parametrize("told", [True, False])
def test_unrest_of_a_short_measurement_is_no_error_of_a_prediction(told: bool) -> None:
    generator = np.random.default_rng(3)
    measured = []
    for point in mixed():
        noise, unrest = 0.08 * generator.standard_normal(2)
        measured.append(replace(slower(point, float(np.exp(noise))), unrest=abs(float(unrest)) if told else 0.0))
    errors = prediction_errors(measured, 2.0, KNOWN)
    assert set(errors) == {ALONE_ERROR, CROWDED_ERROR, DRIFT_ERROR}
    assert (errors[ALONE_ERROR] < 0.06) == told


def test_what_points_of_one_time_have_in_common_is_the_machines_drift() -> None:
    generator = np.random.default_rng(4)
    points = mixed()
    noise = 0.03 * generator.standard_normal(len(points))
    drift = 0.15 * np.sin(np.linspace(0.0, 12.0, len(points)))
    still, drifting = (
        prediction_errors([slower(point, float(np.exp(by))) for point, by in zip(points, each, strict=True)], 2.0, KNOWN)
        for each in (noise, noise + drift)
    )
    assert drifting[DRIFT_ERROR] > 0.07 > 0.04 > still[DRIFT_ERROR]
    assert drifting[ALONE_ERROR] < 0.06


def mixed() -> list[PointTimes]:
    """Return lone and crowded points in an order in which both kinds stand between one another."""
    points = [*map(made_up, drawn(60)), *map(crowded, of_crowds())]
    return [points[number * 37 % len(points)] for number in range(len(points))]


def slower(point: PointTimes, times: float) -> PointTimes:
    """Return a point of which every thread has taken so many times longer."""
    thread_s = {thread: seconds * times for thread, seconds in point.thread_s.items()}
    return replace(point, thread_s=thread_s, span_s={stage: seconds * times for stage, seconds in point.span_s.items()})
