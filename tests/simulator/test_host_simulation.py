"""Runs on one shared machine, predicted from a calibrated profile: laws, determinism, replay, quotas and links."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from persia.scenario import Scenario, ScenarioError
from persia.schedule.log import read_log, replay
from simulator import core, host_conditions, processor
from simulator.host_costs import TRAINING_TOGETHER
from simulator.host_process import limited_links
from simulator.result import SimulationResult
from simulator.run import simulate
from simulator.validation.cases import draw, grid

PROFILE = Path(__file__).with_name("calibrated.yaml")  # what `persia calibrate` wrote on a machine of two cores
CASES = {case.name: case for case in grid()}
ONE_OF_EACH_MODE = ("grid-05", "grid-14", "grid-15", "grid-12")


def case(name: str, *overrides: str, profile: Path = PROFILE) -> Scenario:
    return CASES[name].scenario([f"simulation.profile={profile}", *overrides])


def run(name: str, *overrides: str, profile: Path = PROFILE, steps: int = 60) -> SimulationResult:
    return simulate(case(name, *overrides, profile=profile), steps=steps, check_invariants=True)


def speed(name: str, *overrides: str, profile: Path = PROFILE) -> float:
    return run(name, *overrides, profile=profile).throughput.samples_per_s.mean


@pytest.mark.parametrize("name", ONE_OF_EACH_MODE)
def test_one_seed_gives_one_digest_on_either_engine(name: str) -> None:
    assert run(name).digest == run(name, "simulation.engine=heapq").digest


@pytest.mark.parametrize("name", ONE_OF_EACH_MODE)
def test_the_log_replays_through_the_core(name: str) -> None:
    log = io.StringIO()
    simulate(case(name), steps=20, log=log)
    log.seek(0)
    header, entries = read_log(log)
    assert replay(header, entries) is None


def changed(path: Path, change: Callable[[str, dict[str, Any]], None]) -> Path:
    """Write the profile to a file, each of its constants as `change` leaves it; return the file."""
    tree = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    for name, constant in tree["constants"].items():
        change(name, constant)
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def scaled(tmp_path: Path, factor: float) -> Path:
    """Return a profile in which everything takes `factor` times as long."""

    def scale(name: str, constant: dict[str, Any]) -> None:
        if constant["unit"].startswith("s") and name.startswith("host."):
            constant |= {key: factor * constant[key] for key in ("value", "low", "high") if key in constant}

    return changed(tmp_path / "scaled.yaml", scale)


def slow_down_the_scheduler(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Let the scheduler's clock and slices take `factor` times as long: they are constants of the machine as well."""
    for module, names in {core: ("TICK_S", "_HOT_S"), processor: ("TICK_S", "_SLICE_S", "HALF_LIFE_S", "_HALVED_S")}.items():
        for name in names:
            monkeypatch.setattr(module, name, factor * getattr(module, name))


@pytest.mark.parametrize("name", ONE_OF_EACH_MODE)
def test_twice_the_constants_is_half_the_speed_and_the_same_staleness(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast = run(name)
    slow_down_the_scheduler(monkeypatch, 2.0)
    monkeypatch.setattr(host_conditions, "_BUSY_MEMORY", 0.5 * host_conditions._BUSY_MEMORY)  # bytes a second
    slow = run(name, profile=scaled(tmp_path, 2.0))
    assert slow.throughput.samples_per_s.mean == pytest.approx(0.5 * fast.throughput.samples_per_s.mean, rel=1e-6)
    assert slow.staleness.version.mean == pytest.approx(fast.staleness.version.mean, abs=1e-9)


@pytest.mark.parametrize("name", ["grid-08", "grid-19"])
def test_twice_the_cores_is_at_most_twice_the_speed_and_no_slower(name: str, tmp_path: Path) -> None:
    def with_cores(factor: float) -> Path:
        def change(constant: str, each: dict[str, Any]) -> None:
            if constant.startswith("host.crowd."):
                each["value"] = 0.0 if "_per_" in constant else 1.0  # crowding less may save more than the cores give
            elif constant == "host.cores":
                each["value"] *= factor

        return changed(tmp_path / f"{factor}.yaml", change)

    ratio = speed(name, profile=with_cores(2.0)) / speed(name, profile=with_cores(1.0))
    assert 1.2 < ratio < 2.02


def test_staleness_is_bounded_by_permits_and_zero_in_sync() -> None:
    assert run("grid-05").staleness.version.max == 0
    result = run("grid-19")
    assert 0 < result.staleness.version.mean < 4 * 16


def test_a_servers_quota_bounds_the_speed() -> None:
    name = "grid-19"  # two servers
    free = run(name)
    quota = "cluster.tiers.parameter_server.cpu_quota=0.1"
    bound = run(name, quota)
    assert bound.throughput.samples_per_s.mean < 0.8 * free.throughput.samples_per_s.mean
    used = bound.utilisation["parameter_server"]["cpu"]
    assert used == pytest.approx(0.1, rel=0.1)


def test_a_limited_link_bounds_the_speed() -> None:
    name = "grid-23"
    link = "cluster.network.links=[{from: embedding_worker, to: parameter_server, bandwidth: 100Mbps}]"
    assert speed(name, link) < 0.5 * speed(name)
    there, back = limited_links(case(name, link)).values()
    assert there.bytes_per_s == back.bytes_per_s == pytest.approx(100e6 / 8 * 1448 / 1514)  # the rest are headers


def test_a_prediction_says_how_far_it_may_be_off_and_widens_outside_what_was_measured() -> None:
    inside = run("grid-15").prediction
    assert inside is not None
    assert inside.outside == ()
    outside = run("grid-15", "model.features[0].ids_per_sample=1", "workload.batch_size=20").prediction
    assert outside is not None
    assert outside.outside
    assert outside.interval.high / outside.interval.low > inside.interval.high / inside.interval.low


def test_a_slow_machine_is_slower_by_its_pace_and_a_known_pace_narrows_the_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow_the_pace(name: str, constant: dict[str, Any]) -> None:
        if name.startswith("host.pace.") and name.endswith("_memory"):
            constant["value"] = 1.0  # else multiplying matrices follows it less

    profile = changed(tmp_path / "one-pace.yaml", follow_the_pace)
    unknown, same = (run("grid-09", *settings, profile=profile) for settings in ((), ("simulation.pace=1",)))
    slow_down_the_scheduler(monkeypatch, 1.25)  # else only what threads do takes longer, not their turns
    slow = run("grid-09", "simulation.pace=1.25", profile=profile)
    assert unknown.throughput.samples_per_s.mean == same.throughput.samples_per_s.mean
    assert slow.throughput.samples_per_s.mean == pytest.approx(same.throughput.samples_per_s.mean / 1.25)
    assert unknown.prediction is not None
    assert same.prediction is not None
    assert same.prediction.interval.high < unknown.prediction.interval.high


def test_what_a_process_does_behind_a_message_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wake_elsewhere(constant: str, each: dict[str, Any]) -> None:
        if constant == "host.moves_on_wake":
            each["value"] = 1.0  # who is woken has a core of its own, where that idles

    apart = changed(tmp_path / "apart.yaml", wake_elsewhere)
    behind = speed("grid-09", profile=apart)
    monkeypatch.setattr("simulator.host_jobs._AFTER", 0.0)  # all of it before what the message leads to
    assert 1.0 < behind / speed("grid-09", profile=apart) < 1.1


@pytest.mark.parametrize(("name", "reduces"), [("grid-15", True), ("grid-14", False), ("grid-07", False)])
def test_only_ranks_that_reduce_train_slower_because_all_train_at_once(name: str, reduces: bool, tmp_path: Path) -> None:
    def in_which_training_together_is(part: float) -> Path:
        def train(constant: str, each: dict[str, Any]) -> None:
            if constant == TRAINING_TOGETHER:
                each["value"] = part

        return changed(tmp_path / f"{part}.yaml", train)

    assert (
        speed(name, profile=in_which_training_together_is(0.0)) > 1.01 * speed(name, profile=in_which_training_together_is(0.1))
    ) == reduces


def test_what_a_profile_cannot_tell_is_refused() -> None:
    with pytest.raises(ScenarioError, match="measured on one machine") as several:
        simulate("persia-100t", overrides=[f"simulation.profile={PROFILE}"], steps=20)
    assert "persia-original" in several.value.remedy
    with pytest.raises(ScenarioError, match=r"simulation\.pace is 2"):
        simulate("laptop", overrides=["simulation.pace=2"], steps=20)


def test_drawn_cases_can_all_be_predicted() -> None:
    for each in draw(8, seed=5):
        assert simulate(each.scenario([f"simulation.profile={PROFILE}"]), steps=20).throughput.samples_per_s.mean > 0
