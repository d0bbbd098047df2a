"""What of a real run is measured: nothing before it has settled."""

from __future__ import annotations

from itertools import pairwise

import pytest

from persia.commands.measuring import FEWEST_STEPS, last_steps, planned
from persia.commands.settling import SETTLING_S, settling_steps
from persia.scenario import Scenario
from simulator.validation.cases import grid


def _case(*overrides: str) -> Scenario:
    return next(case for case in grid() if case.name == "grid-15").scenario(overrides)


def test_a_run_settles_later_the_more_batches_may_be_under_way() -> None:
    steps = [settling_steps(_case(f"schedule.staleness_permits={permits}")) for permits in (4, 8, 16)]
    assert [later - sooner for sooner, later in pairwise(steps)] == [12, 24]


def test_a_run_settles_once_every_distinct_batch_has_been_seen() -> None:
    scenario = _case("schedule.staleness_permits=1", "workload.data.distinct_batches=60")
    assert settling_steps(scenario) * scenario.ranks > 60


@pytest.mark.parametrize("samples_per_s", [10.0, 1e5])
def test_a_run_is_planned_with_what_it_takes_to_settle(samples_per_s: float) -> None:
    scenario = _case()
    samples = scenario.workload.batch_size * scenario.ranks
    steps = planned(scenario, samples_per_s, seconds=2.0).workload.samples / samples
    measured = steps - last_steps(scenario) - max(settling_steps(scenario), SETTLING_S * samples_per_s / samples)
    assert measured >= max(FEWEST_STEPS, 2.0 * samples_per_s / samples) - 1.0
