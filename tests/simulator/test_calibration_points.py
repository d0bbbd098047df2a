"""At which points a machine is measured."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest

pytest.importorskip("scipy")

from persia.scenario import Scenario, load_scenario
from simulator.calibration.design import IDS_PER_BATCH_MAX, Point, crowds, points
from simulator.host_costs import Quantities, is_crowded, quantities
from simulator.validation.cases import grid

BASE = grid()[0].base


def scenarios(made: Sequence[Point]) -> list[Scenario]:
    return [load_scenario(BASE, list(point.overrides)) for point in made]


def counts(made: Sequence[Point]) -> list[Quantities]:
    return [quantities(scenario) for scenario in scenarios(made)]


def test_the_points_cover_all_modes_wires_and_servers_and_none_is_a_case() -> None:
    plan = points(40)
    assert plan == points(40)
    text = [" ".join(point.overrides) for point in plan]
    for word in ("mode=sync", "mode=async", "server_worker=fp16-scaled", "worker_rank=fp32", "parameter_server.processes_per_machine=3"):
        assert any(word in each for each in text)
    cases = {(case.settings["workload.batch_size"], case.settings["model.features[0].dim"]) for case in grid()}
    sizes = [(q.samples, q.row_values / q.rows) for q in counts(plan)]
    assert not [size for size in sizes if (f"{size[0]:.0f}", f"{size[1]:.0f}") in cases]
    ids = sorted(q.ids for q in counts(plan))
    assert ids[-2] <= IDS_PER_BATCH_MAX < ids[-1]  # a corner
    assert {q.samples for q in counts(points(12, [128, 512]))} == {128.0, 512.0}


def test_each_round_has_points_of_its_own_and_leaves_those_of_the_first_as_they_are() -> None:
    for of_round in (points, crowds):
        first, second = of_round(20), of_round(20, None, 1)
        assert not {point.overrides for point in first} & {point.overrides for point in second}
        assert first == of_round(20, None, 0)
        assert {scenario.schedule.mode for scenario in scenarios(second)} == {scenario.schedule.mode for scenario in scenarios(first)}


def test_sizes_of_batches_have_nothing_to_do_with_how_they_are_trained() -> None:
    for of_round, count in ((points, 30), (crowds, 20)):
        made = [point for turn in range(3) for point in of_round(count, None, turn)]
        usual = median(q.samples for q in counts(made))
        for kind in {(q.dense_on_servers, q.ranks > 1) for q in counts(made)}:
            larger = [q.samples > usual for q in counts(made) if (q.dense_on_servers, q.ranks > 1) == kind]
            assert 0.2 < sum(larger) / len(larger) < 0.8, kind
        servers = np.array([float(q.servers) for q in counts(made)])
        for name in ("samples", "ids", "dense_on_servers", "ranks"):
            of_points = np.array([float(getattr(q, name)) for q in counts(made)])
            if of_points.std():
                assert abs(np.corrcoef(servers, np.log1p(of_points))[0, 1]) < 0.35, name


def test_crowded_points_have_many_batches_under_way_large_ones_among_them_and_none_takes_long_to_settle() -> None:
    made = [scenario for turn in range(2) for scenario in scenarios(crowds(20, None, turn))]
    assert all(map(is_crowded, made))
    at_once = [quantities(scenario).ids * scenario.ranks * scenario.staleness_permits for scenario in made]
    assert max(at_once) <= 2_800_000
    assert sum(quantities(scenario).ids > 150_000 for scenario in made) >= 4
    alone = {scenario.staleness_permits for scenario in made if scenario.ranks == 1}
    assert alone == {4, 8, 16}


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_batch_sizes_that_no_point_may_have_are_measured_at_the_nearest(size: int) -> None:
    for made in (points(4, [size]), crowds(4, [size])):
        assert [q.samples for q in counts(made)] == [float(size)] * 4
