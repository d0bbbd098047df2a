"""`persia validate`: what it refuses, one short validation for real, and its page from an earlier result."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from persia.commands.exits import ExitCode
from persia.trace import Span
from simulator.validation.cases import grid
from simulator.validation.serial import to_json
from tests.conftest import Persia
from tests.reports.sample_validation import sample_validation

PROFILE = ("--profile", "persia-original")
TINY = (
    "workload.batch_size=32", "model.features[0].count=2", "model.features[0].rows=500", "model.dense.layers=[8]",
    "workload.data.distinct_batches=4",
)  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--grid", "--random", "3", *PROFILE], "--grid and --random at once"),
        (["--grid", "--only", "grid-99", *PROFILE], "no case 'grid-99'"),
        (["--grid", "--only", ",", *PROFILE], "names no case"),
        (["--grid", "--seconds", "0.1", *PROFILE], "--seconds 0.1"),
        (["--grid", "--target", "0", *PROFILE], "--target 0"),
        (["--grid", "--device", "steam", *PROFILE], "--device steam"),
        (["--grid", "--profile", "no-such-profile"], "no packaged profile"),
        (["--random", "0", *PROFILE], "--random 0"),
        (["--published", "--grid"], "give it alone"),
        (["no-such-scenario", *PROFILE], "no-such-scenario"),
        (["emulated-8", "emulated-8", *PROFILE], "2 of the scenarios are named emulated-8"),
        (["--grid", "--set", "workload.batch_sise=3", *PROFILE], "batch_size"),
        (["--from", "nothing.json"], "nothing.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refusals(persia: Persia, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "nothing.json").write_text("{}", encoding="utf-8")
    done = persia("validate", *arguments)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_without_a_profile_it_says_how_to_make_one(persia: Persia, tmp_path: Path) -> None:
    done = persia("validate", "--grid", env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == ExitCode.USAGE
    assert "run `persia calibrate` first" in done.stderr


def test_a_seed_is_chosen_and_said(persia: Persia) -> None:
    done = persia("validate", "--random", "1", "--only", "no-such-case", *PROFILE)
    assert done.returncode == ExitCode.USAGE
    assert re.search(r"the seed is \d+", done.stderr)
    again = persia("validate", "--random", "1", "--seed", "7", "--only", "no-such-case", *PROFILE)
    assert "random-7-1" in again.stderr
    assert "the seed is" not in again.stderr


def test_batches_under_way_are_counted_per_rank_in_the_window() -> None:
    measuring = pytest.importorskip("persia.commands.measuring", exc_type=ImportError)

    def spans(name: str, *times_s: tuple[float, float], rank: int = 0) -> list[Span]:
        return [
            Span(tier="nn_worker", index=rank, name=name, batch=n, start_s=start_s, end_s=end_s)
            for n, (start_s, end_s) in enumerate(times_s)
        ]

    lookups = spans("lookup", (0, 1), (1, 2), (2, 3), (5, 6)) + spans("lookup", (2, 3), rank=1)
    pushes = spans("push", (1, 2), (3, 4), (4, 9)) + spans("push", (4, 9), rank=1)
    assert measuring.in_flight_at_lookups(lookups, pushes, 1.0, 5.0) == {2: 3, 1: 1}


@pytest.mark.slow
def test_one_case_for_real(persia: Persia) -> None:
    pytest.importorskip("torch")
    settings = [part for setting in TINY for part in ("--set", setting)]
    limits = ("--seconds", "1", "--repeats", "1")
    done = persia("validate", "--grid", "--only", "grid-24", *settings, *limits, *PROFILE, "--report", "--out", "found", "--json")
    assert done.returncode == ExitCode.GATE_FAILED, done.stderr  # the profile is not this machine's
    said = json.loads(done.stdout)
    assert said["passed"] is False
    assert said["misses"]
    (case,) = said["cases"]
    assert case["name"] == "grid-24"
    assert case["failure"] == ""
    for world in (case["measured"], case["simulated"]):
        assert world["throughput"]["samples_per_s"]["mean"] > 0.0
        assert world["mode"] == "hybrid"
        assert {
            "scenario",
            "digest",
            "seed",
            "step_time_s",
            "staleness",
            "utilisation",
            "bottleneck",
            "memory",
            "cost",
            "events",
        } <= world.keys()
        assert {"nn_worker.lookup", "nn_worker.train", "nn_worker.push"} <= world["stages_s"].keys()
    assert case["error_pct"] == pytest.approx(
        100 * (case["simulated"]["throughput"]["samples_per_s"]["mean"] / case["measured"]["throughput"]["samples_per_s"]["mean"] - 1)
    )
    assert case["repeats"][0]["noise"].keys() == {"steal_fraction", "foreign_fraction"}
    assert all(each_s > 0.0 for each_s in case["repeats"][0]["readings"].values())
    assert all(repeat["steps"] >= 10 for repeat in case["repeats"])


@pytest.mark.slow
def test_runs_go_round_all_cases_and_each_is_kept() -> None:
    pytest.importorskip("torch")
    validation = pytest.importorskip("persia.commands.validation", exc_type=ImportError)
    coordinator = pytest.importorskip("persia.runtime.coordinator", exc_type=ImportError)
    cases = [case for case in grid() if case.name in ("grid-18", "grid-24")]
    setting = validation.Setting(
        overrides=TINY,
        profile=PROFILE[1],
        options=coordinator.Options(device="cpu", save=False),
        limits=validation.Limits(seconds=1.0, repeats=2, target=0.9),
    )
    runs: list[str] = []
    kept: list[list[int]] = []
    fractions: list[float] = []

    def show(name: str, said: str, fraction: float) -> None:
        fractions.append(fraction)
        if said.startswith("run") and (not runs or runs[-1] != name):
            runs.append(name)

    found = validation.validate_cases(
        cases,
        setting,
        kind="grid",
        machine={},
        seed=None,
        show=show,
        keep=lambda so_far: kept.append([len(each.repeats) for each in so_far.cases]),
    )
    assert runs[:2] == ["grid-18", "grid-24"]
    assert runs[2:3] == ["grid-18"] or kept[-1][0] == 1  # one run is enough where it took half as long again as all should
    grown = [sum(each) for each, _ in groupby(kept)]  # a run that is far slower than predicted is planned anew, and counts for none
    assert grown == list(range(grown[0], grown[-1] + 1))
    assert all(1 <= number <= 4 for number in kept[-1])
    assert all(0.0 <= fraction <= 1.0 for fraction in fractions)
    assert all(case.worlds is not None and not case.failure for case in found.cases)


def test_a_scenario_of_ones_own_is_given_again_to_predict_it_anew(persia: Persia, tmp_path: Path) -> None:
    result = to_json(replace(sample_validation(), kind="scenarios"))
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    done = persia("validate", "--from", "result.json", *PROFILE)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "give that again" in done.stderr


def test_the_page_of_an_earlier_result(persia: Persia, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(to_json(sample_validation())), encoding="utf-8")
    done = persia("validate", "--from", "result.json", "--report", "--out", "again")
    assert done.returncode == ExitCode.GATE_FAILED
    assert done.stdout.count("MISS") >= 6
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert {"report.html", "report.md", "result.json", "cases.csv", "figures", "traces", "run.json"} <= names
    assert "without host overhead" in (tmp_path / "again" / "report.html").read_text(encoding="utf-8")
