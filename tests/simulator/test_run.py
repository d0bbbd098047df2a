"""Whole runs of small clusters: what a scenario changes, changes what it should."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from persia.scenario import ScenarioError
from simulator import SimulationResult
from simulator.run import measured, simulate
from tests.simulator.small_clusters import SMALL, TIERS, rate, run_small, small

MODES = ("sync", "async", "naive-hybrid", "hybrid")
ONE_PERMIT = "schedule.staleness_permits=1"


@pytest.mark.parametrize("fidelity", ["phase", "message"])
@pytest.mark.parametrize("mode", MODES)
def test_no_law_of_the_core_is_broken_and_the_checks_change_nothing(mode: str, fidelity: str) -> None:
    overrides = (f"schedule.mode={mode}", f"simulation.fidelity={fidelity}", "schedule.checkpoint_every_steps=7")
    checked = simulate(SMALL, overrides=overrides, steps=20, check_invariants=True)
    assert checked.digest == run_small(overrides, 20).digest


@pytest.mark.parametrize("mode", MODES)
def test_a_result_adds_up(mode: str) -> None:
    result = run_small((f"schedule.mode={mode}",))
    assert (result.mode, result.ranks, result.batch_size, result.steps) == (mode, 4, 256, 200)
    interval = result.throughput.samples_per_s
    assert interval.low <= interval.mean <= interval.high
    assert sum(part.share for part in result.step_parts) == pytest.approx(1.0)
    assert result.step_time_s.p50 <= result.step_time_s.p95 <= result.step_time_s.p99
    step_s = 4 * 256 / interval.mean
    assert sum(part.seconds for part in result.step_parts) == pytest.approx(step_s, rel=0.02)
    assert result.simulated_s == pytest.approx(200 * step_s, rel=0.1)
    versions = sum(result.staleness.version.histogram.values())
    assert versions == pytest.approx(2 * 4 * (result.steps - result.warmup_steps), rel=0.06)  # each of two servers, each batch
    assert result.staleness.row.mean < result.staleness.version.mean or mode == "sync"


@pytest.mark.parametrize("mode", MODES)
def test_spans_are_of_the_first_two_ranks_and_never_end_before_they_start(mode: str) -> None:
    result = run_small((f"schedule.mode={mode}",))
    assert result.spans
    assert all(span.end_s >= span.start_s for span in result.spans)
    ranks = {span.index for span in result.spans if span.tier == "nn_worker"}
    assert ranks == {0, 1}
    assert {span.name for span in result.spans} >= {"read", "dedup", "pool", "un-pool", "lookup", "update", "push", "forward + backward"}


def test_sync_is_slowest_and_async_does_not_wait_for_the_slowest() -> None:
    rates = {mode: rate(run_small((f"schedule.mode={mode}",))) for mode in MODES}
    assert rates["sync"] < 0.8 * rates["naive-hybrid"]
    assert rates["naive-hybrid"] <= rates["hybrid"] < rates["async"]


def test_the_all_reduce_hides_behind_backward_in_hybrid_mode_only() -> None:
    heavy = (
        "model.dense.layers=[4096, 2048, 1024]",
        "model.dense.precision=fp32",
        "workload.batch_size=1024",
        f"{TIERS}.parameter_server.count=8",
    )

    def exposed_s(mode: str) -> float:
        parts = run_small((*heavy, f"schedule.mode={mode}"), 40).step_parts
        return sum(part.seconds for part in parts if part.part == "exposed all-reduce")

    assert exposed_s("hybrid") < 0.8 * exposed_s("naive-hybrid")
    assert exposed_s("async") == 0.0


@pytest.mark.parametrize("mode", ["sync", "naive-hybrid", "hybrid"])
def test_one_slow_rank_slows_all_that_average_gradients_with_it(mode: str) -> None:
    slow = "simulation.slow_machines=[{tier: nn_worker, index: 0, factor: 2}]"
    assert rate(run_small((f"schedule.mode={mode}", slow))) < 0.75 * rate(run_small((f"schedule.mode={mode}",)))


def test_one_slow_rank_slows_without_averaging_only_those_that_its_loader_serves_too() -> None:
    slow = "simulation.slow_machines=[{tier: nn_worker, index: 0, factor: 2}]"
    # Batches are dealt to the ranks in turn, so a full queue before one rank holds its loader up: of two loaders one serves ranks 0 and 2.
    for queue, share in ((10, (1 + 1 + 0.5 + 0.5) / 4), (1000, (1 + 1 + 1 + 0.5) / 4)):
        overrides = ("schedule.mode=async", f"schedule.input_queue_batches={queue}")
        assert rate(run_small((*overrides, slow))) / rate(run_small(overrides)) == pytest.approx(share, abs=0.02)


def test_a_slow_server_is_felt_where_nothing_hides_it() -> None:
    slow = "simulation.slow_machines=[{tier: parameter_server, index: 0, factor: 3}]"
    assert rate(run_small((slow,))) == pytest.approx(rate(run_small()), rel=0.01)
    assert rate(run_small((slow, ONE_PERMIT))) < 0.8 * rate(run_small((ONE_PERMIT,)))


def test_distance_costs_sync_its_round_trips_and_hybrid_nothing() -> None:
    far = (f"{TIERS}.parameter_server.zone=us-central1-b", "cluster.network.latency_cross_zone=1ms")
    sync_s = [4 * 256 / rate(run_small(("schedule.mode=sync", *more))) for more in ((), far)]
    # Two round trips to the servers a step, each one-way latency 0.964 ms longer; the latest of four ranks, each with jitter, counts.
    assert 4 * 0.964e-3 < sync_s[1] - sync_s[0] < 4 * 0.964e-3 * 1.5
    assert rate(run_small(far)) == pytest.approx(rate(run_small()), rel=0.01)


def test_checkpoints_cost_their_pause() -> None:
    every = "schedule.checkpoint_every_steps=10"
    plain, paused = run_small((), 101), run_small((every,), 101)
    assert paused.simulated_s - plain.simulated_s == pytest.approx(10 * 1.0, rel=0.1)  # ten snapshots of a second
    assert max(paused.staleness.in_flight.histogram) <= max(plain.staleness.in_flight.histogram)


def test_permits_bound_what_is_in_flight() -> None:
    for permits in (1, 3):
        held = run_small((f"schedule.staleness_permits={permits}",)).staleness.in_flight
        assert held.max == permits


def test_replications_give_an_interval_of_independent_runs() -> None:
    once = [run_small((), 60, seed) for seed in (5, 6, 7)]
    thrice = simulate(SMALL, overrides=("simulation.replications=3",), steps=60, seed=5)
    means = [rate(run) for run in once]
    assert rate(thrice) == pytest.approx(sum(means) / 3)
    assert thrice.throughput.samples_per_s.low <= min(means)
    assert thrice.throughput.samples_per_s.high >= max(means)
    assert thrice.events == sum(run.events for run in once)
    assert thrice.digest == once[0].digest


def test_a_run_without_steps_goes_on_until_its_interval_is_narrow() -> None:
    noisy = ("simulation.step_noise_cv=0.3", "simulation.interval_target=0.02", "simulation.max_steps=1000")
    heard: list[float] = []
    result = simulate(SMALL, overrides=noisy, progress=heard.append)
    interval = result.throughput.samples_per_s
    assert 100 <= result.steps < 1000
    assert (interval.high - interval.low) / 2 <= 0.02 * 1.001 * interval.mean
    assert all(0.0 <= fraction <= 1.0 for fraction in heard)
    longer = simulate(SMALL, overrides=(*noisy, "simulation.interval_target=0.01"))
    assert longer.steps > result.steps


def test_a_run_ends_at_max_steps_in_any_case() -> None:
    result = simulate(SMALL, overrides=("simulation.step_noise_cv=3", "simulation.interval_target=0.001", "simulation.max_steps=120"))
    assert result.steps == 120


@pytest.mark.parametrize("steps", [0, 9])
def test_too_few_steps_are_refused(steps: int) -> None:
    with pytest.raises(ValueError, match=f"at least 10 steps, not {steps}"):
        simulate(SMALL, steps=steps)
    with pytest.raises(ScenarioError, match="too small"):
        simulate(SMALL, overrides=(f"simulation.steps={max(1, steps)}",))


def test_the_fewest_steps_still_give_an_interval() -> None:
    interval = simulate(SMALL, steps=10).throughput.samples_per_s
    assert 0.0 < interval.low <= interval.mean <= interval.high


def test_the_warm_up_is_left_out() -> None:
    ends_s = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    ends_s += [60.0 + step + 0.1 * math.sin(step) for step in range(1, 200)]
    warmup, interval = measured(ends_s, 8.0)
    assert warmup % 5 == 1
    assert 6 <= warmup <= 51
    assert interval.mean == pytest.approx(8.0, rel=0.005)


def test_steps_before_which_nothing_was_updated_are_warm_up_if_the_run_is_long_enough() -> None:
    steady_s = [float(step) for step in range(200)]
    assert [measured(steady_s, 8.0, filling_steps=steps)[0] for steps in (0, 1, 5, 16)] == [1, 6, 6, 21]
    assert measured(steady_s[:12], 8.0, filling_steps=16)[0] == 6


def test_no_measured_batch_is_fresher_than_permits_make_it() -> None:
    """Once all of P permits are in use, a batch of R ranks is P R updates late, give or take those of one step."""
    result = simulate(small(), overrides=(), steps=60)
    ranks, permits = result.ranks, small().schedule.staleness_permits or 1
    assert min(result.staleness.version.histogram) >= (permits - 2) * ranks


def test_a_file_and_a_scenario_give_what_the_mapping_gives(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small().model_dump(mode="json", by_alias=True)), encoding="utf-8")
    expected = comparable(run_small((), 20))
    assert comparable(simulate(small(), steps=20)) == expected
    assert comparable(simulate(path, steps=20)) == expected


def comparable(result: SimulationResult) -> dict[str, object]:
    return {name: value for name, value in asdict(result).items() if name != "wall_s"}
