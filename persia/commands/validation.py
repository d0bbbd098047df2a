"""A validation: every case for real, run again until its throughput is known, and in the simulator, from the same scenario."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from persia.commands.drift import References
from persia.commands.emulation import emulated_dense
from persia.commands.exits import ExitCode, Failure
from persia.commands.measuring import RealRun, TooSlow, measured_world, planned, run_real
from persia.commands.simulate import command_line
from persia.runtime.coordinator import Options, RunFailed
from persia.runtime.forker import forked_seconds
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import make_plan
from persia.runtime.rig import open_rig
from persia.runtime.tables import room_for_tables
from persia.scenario import Scenario, load_profile
from simulator.excuse import Infeasible
from simulator.host_costs import is_crowded
from simulator.parallel import parallel_map
from simulator.result import Interval
from simulator.validation.cases import Case
from simulator.validation.combine import combine, relative_half_width
from simulator.validation.noise import Noise, watch_noise
from simulator.validation.predict import predict
from simulator.validation.result import CaseResult, Repeat, Validation, World

Keep = Callable[[Validation], None]
"""Hears of the cases measured so far, after each run."""

Show = Callable[[str, str, float], None]
"""Hears a case's name, what happens in it, and how far all cases are, 0..1."""

MOST_EXTRA_RUNS = 2
_Run = tuple[RealRun, Noise]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long one case is measured: at most `seconds` of training after the warm-up, in at least `repeats` runs.

    It ends earlier once the half-width of the interval is within `target` of the mean.
    """

    seconds: float = 9.0
    repeats: int = 3
    target: float = 0.03

    @property
    def most_runs(self) -> int:
        """Return the runs of a case at most: disturbed ones are made up for."""
        return self.repeats if self.repeats == 1 else self.repeats + MOST_EXTRA_RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all cases share: settings that come last, the profile's name or path, how real runs are run."""

    overrides: Sequence[str]
    profile: str
    options: Options
    limits: Limits

    def scenario(self, case: Case) -> Scenario:
        """Return the scenario of both worlds."""
        return case.scenario([*self.overrides, f"simulation.profile={self.profile}"])


@dataclass(slots=True, kw_only=True)
class _Measurement:
    """A case as it is being measured, run by run; `samples_per_s` is how fast it is as far as is known."""

    result: CaseResult
    scenario: Scenario
    samples_per_s: float = 0.0
    given_up: bool = False
    runs: list[_Run] = field(default_factory=list)

    def goes_on(self, limits: Limits) -> bool:
        """Return whether another run is needed: its speed is not known well enough, and its time is not over."""
        if self.result.failure:
            return False
        calm = [run for run, noise in self.runs if not noise.disturbance]
        if len(self.runs) >= limits.most_runs or sum(run.seconds for run, _ in self.runs) >= 1.5 * limits.seconds:
            return False
        if len(calm) < limits.repeats:
            return True
        narrow = relative_half_width(combine([(run.samples_per_s, len(run.gaps_s)) for run in calm])) <= limits.target
        return not narrow and sum(run.seconds for run in calm) < limits.seconds

    def measure(self, setting: Setting, interrupts: Interrupts, show: Callable[[str, float], None]) -> None:
        """Add a run; one that takes far longer than planned is planned anew, once.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM; nothing runs any more.
        """
        limits = setting.limits
        each_s = limits.seconds / limits.repeats
        first_of_many = not self.runs and not self.given_up and limits.repeats > 1
        real = planned(self.scenario, self.samples_per_s, each_s / 2.0 if first_of_many else each_s)  # a prediction may be far off

        def heard(fraction: float, samples_per_s: float) -> None:
            show(f"run {len(self.runs) + 1} · {f'{samples_per_s:,.0f} samples/s' if samples_per_s else 'starting'}", fraction)

        options = replace(setting.options, emulated=emulated_dense(self.scenario))
        try:
            with tempfile.TemporaryDirectory(prefix="persia-validation-") as place, watch_noise(forked_seconds) as noise:
                planned_s = real.workload.samples / self.samples_per_s
                run = run_real(real, Path(place), options=options, show=heard, interrupts=interrupts, planned_s=planned_s)
        except TooSlow as slow:
            if self.given_up:
                self._fail(slow)
            self.samples_per_s, self.given_up = slow.samples_per_s, True
        except RunFailed as error:
            self._fail(error)
        else:
            self.runs.append((run, noise[0]))
            self.samples_per_s = run.samples_per_s.mean
            used = [each for each in self.runs if not each[1].disturbance] or self.runs
            self.result = replace(
                self.result,
                measured=measured_world([run for run, _ in used]),
                repeats=[_repeat(each, each in used) for each in self.runs],
            )

    def _fail(self, error: Exception) -> None:
        self.result = replace(self.result, failure=f"the real run failed: {error}", measured=None)


def _repeat(measured: _Run, used: bool) -> Repeat:
    """Return what a validation says of a run; a disturbed one is marked, never corrected."""
    run, noise = measured
    return Repeat(
        samples_per_s=run.samples_per_s,
        steps=len(run.gaps_s),
        seconds=run.seconds,
        noise=noise,
        used=used,
        readings=run.readings,
        at_s=run.at_s,
    )


def validate_cases(
    cases: Sequence[Case], setting: Setting, *, kind: str, machine: dict[str, object], seed: int | None, show: Show, keep: Keep
) -> Validation:
    """Run every case in both worlds, simulated at the usual pace; a case that cannot be run is a miss with its reason.

    Runs go round all cases, as randomized blocks do: a machine that others share is slower for minutes at a time, and so no case
    is measured in one such time only.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing runs any more.
    """
    limits = setting.limits
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    profile = load_profile(setting.profile).name
    validation = Validation(kind=kind, machine=machine, date=date, profile=profile, cases=(), seed=seed, command=command_line())
    with Interrupts(ends_process=True) as interrupts, ExitStack() as cleanup:
        measurements = list[_Measurement]()
        for case, measurement in zip(cases, _simulated(cases, setting), strict=True):
            interrupts.check()
            measurements.append(measurement)
            show(case.name, "simulated", 0.0)
        references = cleanup.enter_context(_references(setting, interrupts))
        while going_on := [each for each in measurements if each.goes_on(limits)]:
            for each in going_on:
                interrupts.check()
                if references is not None:
                    references.renew(crowded=is_crowded(each.scenario))

                done = sum(len(one.runs) / limits.most_runs if one.goes_on(limits) else 1.0 for one in measurements)

                def heard(said: str, fraction: float, each: _Measurement = each, done: float = done) -> None:
                    show(each.result.name, said, (done + fraction / limits.most_runs) / len(measurements))

                each.measure(setting, interrupts, heard)
                known = [one.result for one in measurements if one.runs or one.result.failure]
                validation = replace(validation, cases=known, references=[] if references is None else references.found)
                keep(validation)
        if references is not None:
            references.close()
            validation = replace(validation, references=references.found)
        interrupts.check()
    return replace(validation, cases=[each.result for each in measurements])


@contextmanager
def _references(setting: Setting, interrupts: Interrupts) -> Iterator[References | None]:
    """Give what measures references, None where the profile was not calibrated and so predicts none."""
    if load_profile(setting.profile).machine is None:
        yield None
        return
    with open_rig(interrupts) as rig:
        yield References(rig)


def _simulated(cases: Sequence[Case], setting: Setting) -> Iterator[_Measurement]:
    """Yield the cases, simulated; those that cannot run have failed."""
    scenarios = [setting.scenario(case) for case in cases]
    for case, scenario, found in zip(cases, scenarios, parallel_map(_predict, scenarios), strict=True):
        result = CaseResult(name=case.name, mode=scenario.schedule.mode, settings=case.settings, ranks=scenario.ranks)
        if isinstance(found, str):
            yield _Measurement(result=replace(result, failure=found), scenario=scenario)
            continue
        simulated, predicted = found
        needed, free = room_for_tables(make_plan(scenario))
        if needed > free:
            failure = f"its tables may grow to {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are free"
            result = replace(result, failure=failure)
        result = replace(result, simulated=simulated, predicted=predicted)
        yield _Measurement(result=result, scenario=scenario, samples_per_s=simulated.samples_per_s.mean)


def _predict(scenario: Scenario) -> tuple[World, Interval] | str:
    """Return the prediction, or why the scenario cannot run."""
    try:
        return predict(scenario)
    except Infeasible as refusal:
        return str(refusal)


def check_options(limits: Limits, device: str) -> None:
    """Refuse limits that make no measurement."""
    if device not in ("cpu", "cuda"):
        raise Failure(ExitCode.USAGE, f"--device {device}: expected cpu or cuda.")
    if not 0.5 <= limits.seconds <= 3600.0:
        raise Failure(ExitCode.USAGE, f"--seconds {limits.seconds:g}: expected 0.5 to 3600.")
    if not 0.0 < limits.target < 1.0:
        raise Failure(ExitCode.USAGE, f"--target {100 * limits.target:g}: expected a percentage between 0 and 100.")
