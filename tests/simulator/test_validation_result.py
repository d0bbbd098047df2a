"""A validation's numbers from made-up worlds: errors, bounds, misses, summary, JSON and back; repeats combined; the noise check."""

from __future__ import annotations

import json

import numpy as np
import pytest

from simulator.result import Interval
from simulator.validation.combine import combine, relative_half_width
from simulator.validation.noise import Counters, Noise, watch_noise
from simulator.validation.predict import stages
from simulator.validation.result import CaseResult, Validation
from simulator.validation.serial import from_json, to_json
from tests.reports.sample_validation import BUSY, CALM, case, interval, sample_validation, world


def test_errors_of_a_case() -> None:
    found = case("a", "hybrid", 1000.0, 1100.0, stale=1)
    assert found.error_pct == pytest.approx(10.0)
    assert found.staleness_w1 == pytest.approx(1.0)
    assert found.staleness_ks == pytest.approx(0.5)
    assert found.staleness_most == 0.5  # 10 % of a mean of 1 is less
    assert found.covered is False
    assert found.step_time_error_pct == pytest.approx({"p50": 0.0, "p95": 0.0, "p99": 0.0})
    assert [miss.split()[0] for miss in found.misses] == ["staleness"]


def test_the_bound_of_staleness_grows_with_its_mean() -> None:
    measured = world(100.0, {20: 1.0}, simulated=False)
    found = CaseResult(name="a", mode="async", settings={}, measured=measured, simulated=world(100.0, {22: 1.0}, simulated=True))
    assert found.staleness_most == pytest.approx(2.0)
    assert found.misses == []


def test_a_good_validation_passes() -> None:
    good = sample_validation(good=True)
    assert good.passed
    assert good.misses == []
    assert good.summary.mape_pct == pytest.approx(3.0)
    assert good.summary.max_error_pct == pytest.approx(3.0)
    assert good.summary.kendall_tau == 1.0
    assert good.summary.regret_pct == 0.0
    assert good.summary.coverage_90 == 1.0


def test_misses_are_misses() -> None:
    bad = sample_validation()
    assert not bad.passed
    assert [miss.partition(":")[0] for miss in bad.misses[:3]] == ["grid-09", "grid-10", "grid-11"]
    assert bad.summary.max_error_pct == pytest.approx(30.0)
    assert bad.summary.coverage_90 == pytest.approx(9 / 10)
    assert [found.name for found in bad.cases if found.disturbed] == ["grid-09"]


def test_nothing_run_is_no_pass() -> None:
    nothing = Validation(kind="grid", machine={}, date="", profile="", cases=[])
    assert not nothing.passed
    failed = Validation(kind="grid", machine={}, date="", profile="", cases=[CaseResult(name="a", mode="", settings={}, failure="why")])
    assert failed.misses == ["a: why"]
    assert failed.summary.mape_pct is None


def test_json_and_back() -> None:
    payload = json.loads(json.dumps(to_json(sample_validation()), allow_nan=False))
    assert payload["passed"] is False
    for key in ("mape_pct", "max_error_pct", "median_error_pct", "kendall_tau", "regret_pct", "coverage_90", "machine", "date", "profile"):
        assert payload[key] is not None
    first = payload["cases"][0]
    assert first["measured"]["throughput"]["samples_per_s"]["mean"] == 2800.0
    assert first["error_pct"] == pytest.approx(3.0)
    assert payload["cases"][-1]["measured"] is None
    assert json.loads(json.dumps(to_json(from_json(payload)))) == payload
    with pytest.raises(ValueError, match="schema_version"):
        from_json({"schema_version": 99})


def test_one_repeat_is_its_interval() -> None:
    assert combine([(interval(100.0), 50)]) == interval(100.0)


def test_combined_mean_is_all_samples_over_all_seconds() -> None:
    found = combine([(interval(100.0), 30), (interval(50.0), 30)])
    assert found.mean == pytest.approx(60 / (30 / 100 + 30 / 50))
    assert found.low < found.mean < found.high


def test_agreeing_repeats_narrow_and_disagreeing_ones_widen() -> None:
    agreeing = combine([(interval(100.0, 0.04), 50), (interval(100.0, 0.04), 50)])
    assert relative_half_width(agreeing) == pytest.approx(0.04 / 2**0.5, rel=0.05)
    assert relative_half_width(combine([(interval(100.0, 0.01), 50), (interval(120.0, 0.01), 50)])) > 0.08
    with pytest.raises(ValueError, match="no repeat"):
        combine([])


def test_combined_intervals_hold_the_truth() -> None:
    """Ten repeats of noisy steps with a speed of their own each: about 95 % of intervals should hold the mean."""
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        repeats = []
        for _ in range(10):
            gaps = generator.normal(1.0 + generator.normal(0.0, 0.02), 0.1, size=100)
            half = 1.98 * gaps.std(ddof=1) / 10.0 / gaps.mean()
            rate = 1.0 / gaps.mean()
            repeats.append((Interval(mean=rate, low=rate / (1 + half), high=rate * (1 + half)), 100))
        found = combine(repeats)
        held += found.low <= 1.0 <= found.high
    assert 0.87 <= held / 300 <= 0.99


def test_stages_of_both_worlds_have_one_name() -> None:
    real, simulated = (stages(world(1.0, {0: 1.0}, simulated=flag).spans) for flag in (False, True))
    assert real.keys() == simulated.keys()
    assert real["nn_worker.train"] == pytest.approx(0.004)
    assert simulated["nn_worker.train"] == pytest.approx(0.008)  # two spans, from the first start to the last end


def test_noise_says_what_disturbs() -> None:
    assert CALM.disturbance == ""
    assert BUSY.disturbance == "5 % of the cores stolen, other processes took 20 % of the cores"


def test_what_is_nobody_elses_is_no_noise() -> None:
    """Processes that are ours, as their clocks tell, do not count; time that no clock of ours explains does."""
    before = Counters.now()
    for clock_s, explained in ((1e6, True), (-1e6, False)):
        clocks = iter((0.0, clock_s))
        with watch_noise(lambda clocks=clocks: next(clocks)) as found:
            pass
        assert isinstance(found[0], Noise)
        assert 0.0 <= found[0].steal_fraction <= 1.0
        assert (found[0].foreign_fraction == 0.0) is explained
    assert "other processes" in found[0].disturbance
    assert Counters.now().busy_s >= before.busy_s > 0.0
