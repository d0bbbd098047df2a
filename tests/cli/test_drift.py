"""What points of the calibration, measured again between cases, say of the machine's pace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from math import exp, log
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.drift import Drift
from persia.commands.exits import ExitCode
from persia.commands.rigging import rig_scenario
from persia.readings import Readings
from persia.scenario import load_profile
from simulator.calibration.design import crowds, points
from simulator.host_conditions import usual_readings
from simulator.result import Interval
from simulator.run import simulate
from simulator.validation.noise import Noise
from simulator.validation.result import CaseResult, Reference, Repeat
from tests.conftest import Persia

CALIBRATED = str(Path(__file__).parents[1] / "simulator" / "calibrated.yaml")


LONE = rig_scenario([*points(4)[3].overrides, f"simulation.profile={CALIBRATED}"])
PROFILE = load_profile(CALIBRATED)


def drift(said: Sequence[tuple[Reference, float]]) -> Drift:
    return Drift(said, PROFILE)


def slow(*, crowded: bool, core: float) -> Readings:
    """What is read where a core takes so many times as long as usually."""
    usual = usual_readings(PROFILE, crowded=crowded)
    return usual._replace(core_s=core * usual.core_s)


def reference(*, crowded: bool, at_s: float, core: float = 1.0) -> Reference:
    return Reference(settings=(), crowded=crowded, at_s=at_s, step_s=1.0, readings=slow(crowded=crowded, core=core))


def case(*runs: tuple[float, float], core: float = 1.0) -> CaseResult:
    """A case in mode sync with runs at these times, of so many seconds; a core took so many times as long as usually."""
    quiet = Noise(steal_fraction=0.0, foreign_fraction=0.0)
    repeats = [
        Repeat(
            samples_per_s=Interval(mean=1.0, low=1.0, high=1.0),
            steps=9,
            seconds=seconds,
            noise=quiet,
            used=True,
            at_s=at_s,
            readings=slow(crowded=False, core=core),
        )
        for at_s, seconds in runs
    ]
    return CaseResult(name="a case", mode="sync", settings={}, repeats=repeats)


def said(drift: float, *at_s: float, crowded: bool = False, core: float = 1.0) -> list[tuple[Reference, float]]:
    """References that took so much longer, as a logarithm, where a core took so many times as long as usually."""
    return [(reference(crowded=crowded, at_s=each, core=core), drift) for each in at_s]


def test_a_profile_that_was_not_calibrated_has_no_drift() -> None:
    assert Drift.of([], "persia-original") is None


@pytest.mark.parametrize("crowded", [False, True])
def test_references_of_either_kind_tell_of_all_cases(crowded: bool) -> None:
    of_one, of_many = (drift(said(0.2, *map(float, range(count)), crowded=crowded)).slower(case((0.0, 3.0)), LONE) for count in (1, 60))
    assert 1.0 < of_one.times < exp(0.1)  # one reference is believed by less than half
    assert exp(0.18) < of_many.times < exp(0.2)


def test_references_of_the_time_are_believed_more_than_others() -> None:
    then, later = (said(each, *(begin + n for n in range(100))) for each, begin in ((0.0, 0.0), (0.3, 10_000.0)))
    both = drift([*then, *later])
    before, after, between = (
        both.slower(case(*((at_s, 3.0) for at_s in times)), LONE) for times in ((50.0,), (10_050.0,), (50.0, 10_050.0))
    )
    assert before.times < exp(0.05) < exp(0.2) < after.times
    assert log(between.times) == pytest.approx(0.5 * (log(before.times) + log(after.times)))


def test_references_tell_how_far_work_follows_the_probe() -> None:
    """Where both are slower at once by a fifth more than the profile says, so is a case with a slow core."""
    usual, slow = said(0.0, *map(float, range(40))), said(0.2 * log(1.5), *map(float, range(40)), core=1.5)
    both = drift([*usual, *slow])
    for core in (1.0, 1.25, 1.5):
        assert log(both.slower(case((20.0, 3.0), core=core), LONE).times) == pytest.approx(0.2 * log(core), abs=0.01)


def test_a_pace_is_known_the_better_the_more_references_stand_around_it() -> None:
    one, many = (drift(said(0.1, *map(float, range(count)))) for count in (1, 50))
    near, far = case((0.0, 3.0)), case((1e6, 3.0))
    assert many.slower(near, LONE).error < 0.5 * one.slower(near, LONE).error
    assert many.slower(far, LONE).error > 1.5 * many.slower(near, LONE).error


def test_references_that_disagree_make_a_prediction_less_certain() -> None:
    times = [float(n) for n in range(30)]
    agreeing, apart = (drift([*said(0.1 + each, *times), *said(0.1 - each, *times)]) for each in (0.0, 0.3))
    assert apart.slower(case((0.0, 3.0)), LONE).error > 2.0 * agreeing.slower(case((0.0, 3.0)), LONE).error


def test_what_a_reference_says_is_what_it_took_over_what_is_predicted_at_the_pace_the_probe_tells() -> None:
    measured = []
    for crowded, point in ((False, points(4)[3]), (True, crowds(1)[0])):
        scenario = rig_scenario([*point.overrides, f"simulation.profile={CALIBRATED}", "simulation.steps=40"])
        step_s = scenario.workload.batch_size / simulate(scenario).throughput.samples_per_s.mean
        readings = usual_readings(PROFILE, crowded=crowded)
        usual = Reference(settings=point.overrides, crowded=crowded, at_s=0.0, step_s=step_s, readings=readings)
        slow_memory = readings._replace(memory_s=1.2 * readings.memory_s)
        measured += [usual, replace(usual, step_s=1.3 * step_s), replace(usual, readings=slow_memory)]
    found = Drift.of(measured, CALIBRATED)
    assert found is not None
    for usual, slower, slow_memory in zip(*[iter(each for _, each in found.said)] * 3, strict=True):
        assert usual == pytest.approx(0.0, abs=1e-9)
        assert slower == pytest.approx(log(1.3))
        assert slow_memory < -0.05  # the memory tells of that already


@pytest.mark.slow
def test_references_are_measured_between_runs_and_kept(persia: Persia) -> None:
    pytest.importorskip("torch")
    settings = ["workload.batch_size=32", "model.features[0].count=2", "model.features[0].rows=500", "model.dense.layers=[8]"]
    words = [word for setting in settings for word in ("--set", setting)]
    limits = ("--seconds", "1", "--repeats", "1", "--profile", CALIBRATED, "--force")
    done = persia("validate", "--grid", "--only", "grid-09,grid-24", *words, *limits, "--json", most_s=300.0)
    said = json.loads(done.stdout)
    assert done.returncode in (ExitCode.OK, ExitCode.GATE_FAILED)
    assert [each["crowded"] for each in said["references"]] == [False, True, False, True]
    before, between, *behind = (each["at_s"] for each in said["references"])
    first, second = (repeat["at_s"] for each in said["cases"] for repeat in each["repeats"])
    assert before < first < between < second < min(behind)
    assert all(each["step_s"] > 0.0 and all(each_s > 0.0 for each_s in each["readings"].values()) for each in said["references"])
    assert said["cases"][1]["pace"] is not None
