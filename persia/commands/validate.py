"""`persia validate`: predictions beside real runs on this machine, case by case."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.run_directory import RunDirectory
from persia.commands.simulate import command_line
from persia.commands.validation import Limits, Setting, Show, check_options, validate_cases
from persia.runtime.coordinator import Options
from persia.scenario import load_profile, load_scenario
from persia.scenario.errors import did_you_mean
from persia.scenario.packaged import looks_like_path
from reports.validation_terminal import validation_tables
from simulator.validation.cases import Case, draw, grid
from simulator.validation.result import Validation
from simulator.validation.serial import to_json

_MOST_DRAWN = 1000


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
    out: Path | None
    as_json: bool


def run(asked: Asked) -> ExitCode:
    """Run the cases, print how far apart the worlds are; exit 1 where one is too far."""
    check_options(asked.limits, asked.device)
    kind, cases, seed = _cases(asked)
    profile = _profile(asked.profile)
    for case in cases:
        case.scenario([*asked.overrides, f"simulation.profile={profile}"])  # a mistake is said before anything runs
    setting = Setting(overrides=asked.overrides, profile=profile, options=Options(device=asked.device, save=False), limits=asked.limits)
    with _directory(asked) as directory:
        with _bar([case.name for case in cases]) as show:
            validation = validate_cases(cases, setting, kind=kind, machine=machine_facts(), seed=seed, show=show)
        if directory is not None:
            directory.write_json("result.json", to_json(validation))
    if asked.as_json:
        print_json(to_json(validation))
    else:
        print_text(validation_tables(validation))
    return _code(validation)


def _code(validation: Validation) -> ExitCode:
    return ExitCode.OK if validation.passed else ExitCode.GATE_FAILED


def _cases(asked: Asked) -> tuple[str, list[Case], int | None]:
    """Return what kind of cases is asked for, those cases, and the seed of a draw."""
    kinds = [
        name
        for name, given in (("--grid", asked.grid), ("--random", asked.random is not None), ("scenarios", bool(asked.sources)))
        if given
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


def _profile(given: str | None) -> str:
    """Return the profile that predicts: the one given, else this machine's."""
    if given is not None:
        load_profile(given)
        return str(Path(given).resolve()) if looks_like_path(given) else given
    path = default_profile_path()
    if not path.is_file():
        raise Failure(
            ExitCode.USAGE,
            f"this machine has no calibrated profile ({path}): run `persia calibrate` first, or give --profile NAME_OR_PATH.",
        )
    load_profile(str(path))
    return str(path)


def default_profile_path() -> Path:
    """Return where `persia calibrate` leaves this machine's profile."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "persia" / "profile.yaml"


def _directory(asked: Asked) -> AbstractContextManager[RunDirectory | None]:
    """Return the run directory where one is asked for."""
    if not asked.report and asked.out is None:
        return nullcontext()
    return RunDirectory.create(asked.out, name="validation", command=command_line())


@contextmanager
def _bar(names: Sequence[str]) -> Iterator[Show]:
    """Give a function that moves the bar over all cases and says what happens in the present one."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(names[0], total=len(names), said="starting")

        def show(number: int, said: str, fraction: float) -> None:
            bar.update(task, description=names[number], completed=number + fraction, said=said)

        yield show
