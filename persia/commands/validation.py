"""A validation: every case for real, repeated until its throughput is known, and in the simulator, from the same scenario."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from persia.commands.emulation import emulated_dense
from persia.commands.exits import ExitCode, Failure
from persia.commands.measuring import RealRun, TooSlow, measured_world, planned, run_real
from persia.commands.simulate import command_line
from persia.runtime.coordinator import Options, RunFailed
from persia.runtime.forker import forked_seconds
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import make_plan
from persia.runtime.tables import room_for_tables
from persia.scenario import Scenario, load_profile
from simulator.excuse import Infeasible
from simulator.validation.cases import Case
from simulator.validation.combine import combine, relative_half_width
from simulator.validation.noise import Noise, watch_noise
from simulator.validation.predict import at_pace, predict
from simulator.validation.result import CaseResult, Repeat, Validation, World

Keep = Callable[[Validation], None]
"""Hears of the cases done so far, after each."""

Show = Callable[[int, str, float], None]
"""Hears the case's number, what happens in it, and how far it is, 0..1."""


MOST_EXTRA_RUNS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long one case is measured: at most `seconds` of training after the warm-up, in at least `repeats` runs.

    It ends earlier once the half-width of the interval is within `target` of the mean.
    """

    seconds: float = 12.0
    repeats: int = 2
    target: float = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all cases share: settings that come last, the profile's name or path, how real runs are run."""

    overrides: Sequence[str]
    profile: str
    options: Options
    limits: Limits


def validate_cases(
    cases: Sequence[Case], setting: Setting, *, kind: str, machine: dict[str, object], seed: int | None, show: Show, keep: Keep
) -> Validation:
    """Run every case in both worlds; a case that cannot be run is a miss with its reason.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing runs any more.
    """
    validation = Validation(
        kind=kind,
        machine=machine,
        date=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        profile=load_profile(setting.profile).name,
        cases=(),
        seed=seed,
        command=command_line(),
    )
    with Interrupts(ends_process=True) as interrupts:
        for number, case in enumerate(cases):
            interrupts.check()
            done = _case(case, setting, interrupts, partial(show, number))
            validation = replace(validation, cases=(*validation.cases, done))
            keep(validation)
    return validation


_Run = tuple[RealRun, Noise]


def _case(case: Case, setting: Setting, interrupts: Interrupts, show: Callable[[str, float], None]) -> CaseResult:
    """Run one case in both worlds."""
    mode = case.settings.get("schedule.mode", "")
    try:
        scenario = case.scenario([*setting.overrides, f"simulation.profile={setting.profile}"])
        mode = scenario.schedule.mode
        show("simulating", 0.0)
        simulated, predicted, _ = predict(scenario)
    except Infeasible as refusal:
        return CaseResult(name=case.name, mode=mode, settings=case.settings, failure="; ".join(excuse.reason for excuse in refusal.excuses))
    needed, free = room_for_tables(make_plan(scenario))
    if needed > free:
        failure = f"its tables may grow to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
        return CaseResult(name=case.name, mode=mode, settings=case.settings, simulated=simulated, predicted=predicted, failure=failure)
    runs: list[_Run] = []
    failure = ""
    try:
        _measure(scenario, simulated, setting, interrupts, show, runs)
    except (RunFailed, TooSlow) as error:
        failure = f"the real run failed: {error}"
    used = _used(runs)
    done = CaseResult(
        name=case.name,
        mode=mode,
        settings=case.settings,
        ranks=scenario.ranks,
        measured=measured_world([run for run, _ in used], scenario.ranks) if used and not failure else None,
        simulated=simulated,
        predicted=predicted,
        repeats=[_repeat(each, each in used) for each in runs],
        failure=failure,
    )
    paced = at_pace(scenario, done.memory_s)
    if paced == scenario:
        return done
    simulated, predicted, _ = predict(paced)
    return replace(done, simulated=simulated, predicted=predicted, pace=paced.simulation.pace)


def _repeat(measured: _Run, used: bool) -> Repeat:
    run, noise = measured
    return Repeat(
        samples_per_s=run.samples_per_s, steps=len(run.gaps_s), seconds=run.seconds, noise=noise, used=used, memory_s=run.memory_s
    )


def _used(runs: Sequence[_Run]) -> list[_Run]:
    """Return the calm runs, or all where none was calm: a disturbed figure is marked, never corrected."""
    return [run for run in runs if not run[1].disturbance] or list(runs)


def _measure(
    scenario: Scenario,
    simulated: World,
    setting: Setting,
    interrupts: Interrupts,
    show: Callable[[str, float], None],
    runs: list[_Run],
) -> None:
    """Add runs until the interval is narrow enough or the time is over; a disturbed one is repeated while there is time."""
    limits = setting.limits
    options = replace(setting.options, emulated=emulated_dense(scenario))
    speed = simulated.samples_per_s.mean
    each_s = limits.seconds / limits.repeats
    given_up = 0
    while True:
        number = len(runs) + given_up + 1
        first_of_many = not runs and not given_up and limits.repeats > 1
        seconds = each_s / 2.0 if first_of_many else each_s  # it is planned by a prediction, which may be far off
        real = planned(scenario, speed, seconds)

        def heard(fraction: float, samples_per_s: float, number: int = number) -> None:
            said = f"run {number} · {samples_per_s:,.0f} samples/s" if samples_per_s else f"run {number} · starting"
            show(said, min(0.99, (sum(run.seconds for run, _ in runs) + fraction * each_s) / limits.seconds))

        try:
            with tempfile.TemporaryDirectory(prefix="persia-validation-") as place, watch_noise(forked_seconds) as disturbed:
                planned_s = real.workload.samples / speed
                run = run_real(real, Path(place), options=options, show=heard, interrupts=interrupts, planned_s=planned_s)
        except TooSlow as slow:
            if given_up:
                raise
            speed, given_up = slow.samples_per_s, 1
            continue
        runs.append((run, disturbed[0]))
        speed = run.samples_per_s.mean
        if _enough(runs, limits):
            return


def _enough(runs: Sequence[_Run], limits: Limits) -> bool:
    """Return whether a case is known well enough, or its time is over; disturbed runs are made up for, up to a bound."""
    spent_s = sum(run.seconds for run, _ in runs)
    calm = [run for run, disturbed in runs if not disturbed.disturbance]
    if spent_s >= 1.5 * limits.seconds or (limits.repeats == 1 and runs) or len(runs) >= limits.repeats + MOST_EXTRA_RUNS:
        return True
    if len(calm) < limits.repeats:
        return False
    narrow = relative_half_width(combine([(run.samples_per_s, len(run.gaps_s)) for run in calm])) <= limits.target
    return narrow or sum(run.seconds for run in calm) >= limits.seconds


def check_options(limits: Limits, device: str) -> None:
    """Refuse limits that make no measurement."""
    if device not in ("cpu", "cuda"):
        raise Failure(ExitCode.USAGE, f"--device {device}: expected cpu or cuda.")
    if not 0.5 <= limits.seconds <= 3600.0:
        raise Failure(ExitCode.USAGE, f"--seconds {limits.seconds:g}: expected 0.5 to 3600.")
    if not 0.0 < limits.target < 1.0:
        raise Failure(ExitCode.USAGE, f"--target {100 * limits.target:g}: expected a percentage between 0 and 100.")
