"""What calibration takes from simulations: how long a core takes to wake, which work is done beside busy cores, who sleeps how often."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from persia.scenario import Scenario
from simulator.calibration.waking import wait_s
from simulator.host_costs import quantities, stage_terms
from simulator.run import simulate
from simulator.validation.cases import grid

PROFILE = Path(__file__).with_name("calibrated.yaml")


def test_a_planted_wait_is_found_in_the_time_of_a_step(tmp_path: Path) -> None:
    tree = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))

    def with_wait(scenario: Scenario, tried_s: float) -> Scenario:
        tree["constants"]["host.wake_s"]["value"] = tried_s
        path = tmp_path / f"{tried_s}.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update={"profile": str(path), "steps": 100})})

    chosen = [case.scenario([]) for case in grid() if case.name in ("grid-03", "grid-04", "grid-09")]
    measured = [(each, each.workload.batch_size / simulate(with_wait(each, 8e-5)).throughput.samples_per_s.mean) for each in chosen]
    assert wait_s(measured, with_wait) == pytest.approx(8e-5, rel=0.25)


@pytest.mark.parametrize(("name", "least", "most"), [("grid-09", 0.0, 0.2), ("grid-10", 0.9, 1.0)])
def test_a_simulation_tells_what_is_done_beside_busy_cores(name: str, least: float, most: float) -> None:
    scenario = next(case for case in grid() if case.name == name).scenario([f"simulation.profile={PROFILE}"])
    found = simulate(scenario, steps=20).beside
    assert set(found) == set(stage_terms(quantities(scenario)))
    assert all(0.0 <= share <= 1.0 for share in found.values())
    assert least <= found["train"] <= most


def test_a_simulation_counts_how_often_threads_sleep_less_often_where_they_have_more_to_do() -> None:
    lone = next(case for case in grid() if case.name == "grid-18").scenario([f"simulation.profile={PROFILE}"])
    many = ("cluster.tiers.nn_worker.processes_per_machine=3", "schedule.staleness_permits=8")
    crowded = next(case for case in grid() if case.name == "grid-18").scenario([f"simulation.profile={PROFILE}", *many])
    seldom, often = simulate(crowded, steps=20).sleeps, simulate(lone, steps=20).sleeps
    assert set(seldom) == set(often) == {"loader", "embedding_worker", "parameter_server", "nn_worker"}
    assert min(often.values()) >= 1.0  # one batch follows another: the first of its messages finds each thread asleep
    assert seldom["parameter_server"] < 0.7 * often["parameter_server"]
