"""What points of the calibration, measured again between cases, say of the machine's pace."""

from __future__ import annotations

import json
from dataclasses import replace
from math import log
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.drift import Drift
from persia.commands.exits import ExitCode
from persia.commands.rigging import rig_scenario
from persia.scenario import load_profile
from simulator.calibration.design import crowds, points
from simulator.result import Interval
from simulator.run import simulate
from simulator.validation.noise import Noise
from simulator.validation.result import CaseResult, Reference, Repeat
from tests.conftest import Persia

CALIBRATED = str(Path(__file__).parents[1] / "simulator" / "calibrated.yaml")


def reference(*, crowded: bool, at_s: float) -> Reference:
    return Reference(settings=(), crowded=crowded, at_s=at_s, step_s=1.0, memory_s=1.0)


def case(*runs: tuple[float, float], used: bool = True) -> CaseResult:
    """A case with runs at these times, of so many seconds."""
    quiet = Noise(steal_fraction=0.0, foreign_fraction=0.0)
    repeats = [
        Repeat(samples_per_s=Interval(mean=1.0, low=1.0, high=1.0), steps=9, seconds=seconds, noise=quiet, used=used, at_s=at_s)
        for at_s, seconds in runs
    ]
    return CaseResult(name="a case", mode="sync", settings={}, repeats=repeats)


def test_without_references_nothing_is_slower() -> None:
    assert Drift().slower(case((0.0, 3.0))) == 1.0
    assert Drift([(reference(crowded=False, at_s=0.0), log(2.0))]).slower(case()) == 1.0


@pytest.mark.parametrize("crowded", [False, True])
def test_references_of_either_kind_tell_of_all_cases(crowded: bool) -> None:
    one, other = (reference(crowded=each, at_s=0.0) for each in (crowded, not crowded))
    assert Drift([(one, log(4.0))]).slower(case((0.0, 3.0))) == pytest.approx(2.0)  # one reference is believed by half
    assert Drift([(one, log(8.0)), (other, log(8.0))]).slower(case((0.0, 3.0))) == pytest.approx(4.0)  # two by two thirds


def test_many_references_are_believed_and_those_of_the_time_more_than_others() -> None:
    then = [(reference(crowded=False, at_s=float(n)), log(1.2)) for n in range(100)]
    later = [(reference(crowded=False, at_s=1000.0 + n), log(1.5)) for n in range(100)]
    drift = Drift([*then, *later])
    assert drift.slower(case((50.0, 3.0))) == pytest.approx(1.2, rel=0.01)
    assert drift.slower(case((1050.0, 3.0))) == pytest.approx(1.5, rel=0.01)
    assert drift.slower(case((50.0, 3.0), (1050.0, 1.0))) == pytest.approx(1.2**0.75 * 1.5**0.25, rel=0.01)


def test_what_a_reference_says_is_what_it_took_over_what_is_predicted_at_the_memorys_pace() -> None:
    memory_s = {False: load_profile(CALIBRATED)["host.memory_s"], True: load_profile(CALIBRATED)["host.crowded_memory_s"]}
    measured = []
    for crowded, point in ((False, points(4)[3]), (True, crowds(1)[0])):
        scenario = rig_scenario([*point.overrides, f"simulation.profile={CALIBRATED}", "simulation.steps=40"])
        step_s = scenario.workload.batch_size / simulate(scenario).throughput.samples_per_s.mean
        usual = Reference(settings=point.overrides, crowded=crowded, at_s=0.0, step_s=step_s, memory_s=memory_s[crowded])
        measured += [usual, replace(usual, step_s=1.3 * step_s), replace(usual, memory_s=1.2 * usual.memory_s)]
    for usual, slower, slow_memory in zip(*[iter(said for _, said in Drift.of(measured, CALIBRATED).said)] * 3, strict=True):
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
    assert all(each["step_s"] > 0.0 and each["memory_s"] > 0.0 for each in said["references"])
    assert said["cases"][1]["pace"] is not None
