"""Predictions made anew for cases that have been measured: from another profile, or with a piece of physics left out."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import yaml

from persia.commands.drift import Drift
from persia.scenario import Scenario, load_profile
from simulator.host_costs import STAGE_OF_ROLE, sleep_cost
from simulator.validation.predict import Slower, predict_at_pace
from simulator.validation.result import Ablation, CaseResult, Validation

ScenarioOf = Callable[[CaseResult, Sequence[str]], Scenario]
_MANY_CORES = 64.0  # more than there are threads with work
_STEPS = 60  # enough to see what a piece is worth
_SLEEP = tuple(map(sleep_cost, STAGE_OF_ROLE.values()))
_OVERHEAD = ("s_per_batch", "s_per_server", "s_per_request", "s_per_message", "s_per_meeting_message", "wake_s", *_SLEEP)
_ANYWHERE = {"host.moves_on_wake": 1.0}
_CROWDING = {"_fixed": 1.0, "_fixed_in_step": 1.0, "_fixed_idle": 1.0, "_sized": 1.0}
_CROWDING |= {"_per_footprint": 0.0, "_per_other_ranks": 0.0, "_per_traffic": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Without:
    """A piece of physics: the constants that leave it out, by how their names end, and the settings."""

    name: str
    constants: Mapping[str, float]
    overrides: Sequence[str] = ()


LEFT_OUT = (
    _Without(name="nothing", constants={}),
    _Without(name="host overhead per command and message", constants=dict.fromkeys(_OVERHEAD, 0.0)),
    _Without(name="sharing of the cores", constants={"host.cores": _MANY_CORES, **_ANYWHERE}),
    _Without(name="popularity skew (IDs uniform)", constants={}, overrides=("model.features[0].zipf=0",)),
    _Without(name="what crowding changes of a thread's work", constants=_CROWDING),
    _Without(name="that a thread wakes on its last core though another idles", constants=_ANYWHERE),
    _Without(name="that a thread which has slept works longer", constants=dict.fromkeys(_SLEEP, 0.0)),
)


def predict_again(validation: Validation, scenario_of: ScenarioOf, profile: str, drift: Drift | None) -> Validation:
    """Return the validation with every measured case predicted from this profile, at the pace that the machine had."""
    cases = _again(validation.cases, scenario_of, [f"simulation.profile={profile}"], drift)
    return replace(validation, cases=cases, profile=load_profile(profile).name)


def ablate(validation: Validation, scenario_of: ScenarioOf, profile: Path, drift: Drift | None) -> list[Ablation]:
    """Return the errors with each piece of physics left out; the first row leaves out nothing.

    The training of the dense network keeps its constant time: it is no overhead of a command.
    """
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for number, piece in enumerate(LEFT_OUT):
            changed = Path(place) / f"without-{number}.yaml"
            changed.write_text(_changed(profile, piece.constants), encoding="utf-8")
            settings = [f"simulation.profile={changed}", f"simulation.steps={_STEPS}", *piece.overrides]
            cases = _again(validation.cases, scenario_of, settings, drift)
            errors = [abs(error) for case in cases if (error := case.error_pct) is not None]
            if errors:
                rows.append(Ablation(name=piece.name, mape_pct=fmean(errors), max_error_pct=max(errors)))
    return rows


def _again(cases: Sequence[CaseResult], scenario_of: ScenarioOf, settings: Sequence[str], drift: Drift | None) -> list[CaseResult]:
    slower = (lambda case, scenario: Slower()) if drift is None else drift.slower
    return predict_at_pace(cases, lambda case: scenario_of(case, settings), slower)


def _changed(profile: Path, constants: Mapping[str, float]) -> str:
    tree = yaml.safe_load(profile.read_text(encoding="utf-8"))
    for name, constant in tree["constants"].items():
        for ending, value in constants.items():
            if name.startswith("host.") and name.endswith(ending) and not name.startswith("host.rank.train"):
                constant["value"] = value
    return yaml.safe_dump(tree, sort_keys=False)
