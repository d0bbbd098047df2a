"""`persia validate`: predictions beside real runs on this machine, case by case."""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from persia.commands.ablation import ablate, predict_again
from persia.commands.drift import Drift
from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import differences, machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.run_directory import RunDirectory
from persia.commands.simulate import command_line
from persia.commands.validation import Keep, Limits, Setting, Show, check_options, validate_cases
from persia.runtime.coordinator import Options
from persia.scenario import Scenario, load_profile, load_scenario
from persia.scenario.errors import did_you_mean
from persia.scenario.packaged import looks_like_path
from persia.trace import Clock, write_trace
from reports.validation_page import write_validation
from reports.validation_terminal import validation_tables
from simulator.calibration.store import default_profile_path
from simulator.validation.cases import Case, draw, grid
from simulator.validation.result import CaseResult, Validation
from simulator.validation.serial import from_json, to_json

_MOST_DRAWN = 1000
_SCENARIOS: Final = "scenarios"
_WALL: Final[Clock] = "wall"
_SIMULATED: Final[Clock] = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the command line asks for."""

    sources: Sequence[str]
    grid: bool
    random: int | None
    seed: int | None
    profile: str | None
    only: str | None
    limits: Limits
    device: str
    overrides: Sequence[str]
    report: bool
    again: Path | None
    ablation: bool
    force: bool
    out: Path | None
    as_json: bool


def run(asked: Asked) -> ExitCode:
    """Run the cases, print how far apart the worlds are; exit 1 where one is too far."""
    check_options(asked.limits, asked.device)
    if asked.again is not None:
        return _finish(asked, _directory(asked), lambda keep: _read(asked))
    kind, cases, seed = _cases(asked)
    profile = _profile(asked)
    for case in cases:
        case.scenario([*asked.overrides, f"simulation.profile={profile}"])  # a mistake is said before anything runs
    setting = Setting(overrides=asked.overrides, profile=profile, options=Options(device=asked.device, save=False), limits=asked.limits)

    def measure(keep: Keep) -> Validation:
        with _bar() as show:
            validation = validate_cases(cases, setting, kind=kind, machine=machine_facts(), seed=seed, show=show, keep=keep)
            return _predicted(validation, asked, profile)

    return _finish(asked, _directory(asked), measure)


def _finish(asked: Asked, place: AbstractContextManager[RunDirectory | None], make: Callable[[Keep], Validation]) -> ExitCode:
    """Make the validation, write what is asked for into the run directory, print."""
    with place as directory:
        validation = make(partial(_keep, directory))
        if directory is not None:
            _write(directory, validation, report=asked.report)
    if asked.as_json:
        print_json(to_json(validation))
    else:
        print_text(validation_tables(validation))
    if directory is not None:
        note(f"The validation is in {directory.path}{'/report.html' if asked.report else ''}")
    return ExitCode.OK if validation.passed else ExitCode.GATE_FAILED


def _keep(directory: RunDirectory | None, validation: Validation) -> None:
    """Leave what is measured so far, that an interrupted validation is not lost."""
    if directory is not None:
        directory.write_json("result.json", to_json(validation))


def _write(directory: RunDirectory, validation: Validation, *, report: bool) -> None:
    """Leave the result, the timelines of every case in both worlds, and the page."""
    if report:
        with directory.staged() as stage:
            write_validation(validation, stage)
    else:
        directory.write_json("result.json", to_json(validation))
    for case in validation.cases:
        for world, name, clock in ((case.measured, "measured", _WALL), (case.simulated, "simulated", _SIMULATED)):
            if world is not None and world.spans:
                folder = directory.path / "traces" / case.name
                folder.mkdir(parents=True, exist_ok=True)
                write_trace(folder / f"{name}.jsonl", world.spans, clock=clock, scenario=case.name)


def _read(asked: Asked) -> Validation:
    """Return an earlier validation; with a profile its predictions are made anew, the measurements stay."""
    assert asked.again is not None
    try:
        validation = from_json(json.loads(asked.again.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError) as error:
        raise Failure(ExitCode.USAGE, f"{asked.again} is not the result.json of a validation: {error}") from error
    if asked.profile is None and not asked.ablation:
        return validation
    profile = _profile(asked)
    return _predicted(validation, asked, profile)


def _predicted(validation: Validation, asked: Asked, profile: str) -> Validation:
    """Return the validation predicted at the machine's pace, with what each piece of physics is worth where that is asked for."""
    scenario_of, drift = partial(_scenario_again, validation.kind, asked), Drift.of(validation.references, profile)
    predicted = predict_again(validation, scenario_of, profile, drift)
    if not asked.ablation:
        return predicted
    if not looks_like_path(profile):
        raise Failure(ExitCode.USAGE, "--ablation leaves physics out of a calibrated profile: give --profile FILE, or calibrate first.")
    return replace(predicted, ablation=ablate(predicted, scenario_of, Path(profile), drift))


def _scenario_again(kind: str, asked: Asked, case: CaseResult, settings: Sequence[str]) -> Scenario:
    """Return a case's scenario; raises Failure where it was one of the user's own and is not given again."""
    base = {name: source for source in asked.sources for name in [load_scenario(source).name]}.get(case.name)
    if kind == _SCENARIOS and base is None:
        raise Failure(ExitCode.USAGE, f"{asked.again} is of the scenario {case.name}: give that again, to predict it anew.")
    made = Case(name=case.name, settings=case.settings) if base is None else Case(name=case.name, settings=case.settings, base=base)
    return made.scenario([*asked.overrides, *settings])


def _cases(asked: Asked) -> tuple[str, list[Case], int | None]:
    """Return what kind of cases is asked for, those cases, and the seed of a draw."""
    kinds = [
        name for name, given in (("--grid", asked.grid), ("--random", asked.random is not None), (_SCENARIOS, bool(asked.sources))) if given
    ]
    if len(kinds) != 1:
        said = f"{' and '.join(kinds)} at once?" if kinds else "validate against what?"
        raise Failure(ExitCode.USAGE, f"{said} Give one of --grid, --random N, --published, or scenarios to run.")
    seed = None
    if asked.random is not None:
        if not 1 <= asked.random <= _MOST_DRAWN:
            raise Failure(ExitCode.USAGE, f"--random {asked.random}: expected 1 to {_MOST_DRAWN} cases.")
        seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
        if asked.seed is None:
            note(f"--random without --seed: the seed is {seed}.")
        cases = draw(asked.random, seed)
    elif asked.grid:
        cases = grid()
    else:
        cases = [Case(name=load_scenario(source).name, settings={}, base=source) for source in asked.sources]
        for name, often in Counter(case.name for case in cases).items():
            if often > 1:
                raise Failure(ExitCode.USAGE, f"{often} of the scenarios are named {name}: give each a name of its own.")
    return kinds[0].removeprefix("--"), _only(cases, asked.only), seed


def _only(cases: list[Case], only: str | None) -> list[Case]:
    if only is None:
        return cases
    by_name = {case.name: case for case in cases}
    chosen = [name.strip() for name in only.split(",") if name.strip()]
    for name in chosen:
        if name not in by_name:
            hint = did_you_mean(name, by_name)
            raise Failure(ExitCode.USAGE, f"--only: there is no case {name!r}. {hint or 'The cases are ' + ', '.join(by_name) + '.'}")
    if not chosen:
        raise Failure(ExitCode.USAGE, "--only names no case.")
    return [by_name[name] for name in chosen]


def _profile(asked: Asked) -> str:
    """Return the profile that predicts: the one given, else this machine's; one of another machine is refused unless forced."""
    path = default_profile_path()
    given = str(path) if asked.profile is None else asked.profile
    if asked.profile is None and not path.is_file():
        raise Failure(
            ExitCode.USAGE, f"there is no calibration of this machine at {path}: run `persia calibrate` first, or name one with --profile."
        )
    strangeness = differences(load_profile(given))
    if strangeness and not asked.force:
        said = "; ".join(strangeness)
        raise Failure(
            ExitCode.USAGE, f"{given} was measured elsewhere: {said}. Run `persia calibrate` here, or use it all the same with --force."
        )
    return str(Path(given).resolve()) if looks_like_path(given) else given


def _directory(asked: Asked) -> AbstractContextManager[RunDirectory | None]:
    """Return the run directory where one is asked for."""
    if not asked.report and asked.out is None:
        return nullcontext()
    return RunDirectory.create(asked.out, name="validation", command=command_line())


@contextmanager
def _bar() -> Iterator[Show]:
    """Give a function that moves the bar over all cases and says what happens in the present one."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("validating", total=1.0, said="simulating")
        yield lambda name, said, done: bar.update(task, description=name, completed=done, said=said)
