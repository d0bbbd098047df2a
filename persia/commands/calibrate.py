"""`persia calibrate`: measures this machine, stage by stage, and writes the profile from which its runs are predicted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from time import monotonic

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import core_quota, machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.commands.rigging import CROWDS, POINTS, measure_point
from persia.runtime.interrupts import Interrupts
from persia.runtime.rig import Measured, Rig, open_rig
from persia.runtime.rig_pieces import draw_seconds_per_id, gather_seconds, share_of_wakes_that_move
from persia.scenario import Scenario
from simulator.calibration.design import Point, crowds, points
from simulator.calibration.equations import Equation, PointTimes
from simulator.calibration.fit import fit
from simulator.calibration.held_out import prediction_errors
from simulator.calibration.machine import Machine, fit_machine
from simulator.calibration.store import Calibrated, default_profile_path, read_points, write_points, write_profile
from simulator.calibration.waking import wait_s
from simulator.host_costs import ALONE_ERROR, CROWDED_ERROR, DRIFT_ERROR, REDUCTIONS, SUMMING, gathers, quantities, reduces
from simulator.parallel import parallel_map
from simulator.result import SimulationResult
from simulator.run import simulate

_FEWEST, _CROWD_FEWEST = 4, 12  # batches
_SECONDS, _CROWD_SECONDS = 0.4, 0.9
_PREFIXES = {"loader": "loader", "embedding_worker": "worker", "parameter_server": "server", "nn_worker": "rank"}  # of constants
_WAITING_STEPS = 25  # simulated to find a wait
_COUNTED_STEPS = 15  # simulated to find which work is done beside busy cores, and how often threads sleep
_WAKE = "host.wake_s"


@dataclass(slots=True)
class _Findings:
    """What the points have shown."""

    now: list[PointTimes] = field(default_factory=list)  # in the order of time
    scenarios: list[Scenario] = field(default_factory=list)  # of the same
    background_cores: list[float] = field(default_factory=list)
    noise_cv: list[float] = field(default_factory=list)
    resident_gib: dict[str, float] = field(default_factory=dict)


def run(*, out: Path | None, as_json: bool, batch_sizes: Sequence[int] | None, add: bool) -> ExitCode:
    """Measure, fit, write; print where the profile is and how well its constants explain what was measured."""
    began_s = monotonic()
    path = default_profile_path() if out is None else out
    points_path = path.with_suffix(".points.json")
    earlier = _earlier(points_path) if add and points_path.is_file() else []
    with Interrupts() as interrupts, progress_bar("calibrating") as progress:
        moves = share_of_wakes_that_move()
        with open_rig(interrupts) as rig:
            turn = len(earlier) // (POINTS + CROWDS)
            findings = _measure_points(rig, points(POINTS, batch_sizes, turn), crowds(CROWDS, batch_sizes, turn), progress)
        extra = {
            **_gathering(),
            "host.loader.draw_s_per_id": draw_seconds_per_id(),
            "host.moves_on_wake": moves,
            **dict.fromkeys((_WAKE, ALONE_ERROR, CROWDED_ERROR, DRIFT_ERROR), 0.0),  # until they are known
        }
        cores = machine_facts()["cores"]
        measured = [*earlier, *findings.now]
        first = fit_machine(measured, cores, extra)
        findings.now = _with_counts(_calibrated(measured, first, findings, extra), findings, _last(first.paces, findings))
        measured = [*earlier, *findings.now]
        write_points(points_path, measured)
        machine = fit_machine(measured, cores, extra)
        extra |= prediction_errors(measured, cores, extra)
        calibrated = _calibrated(measured, machine, findings, extra)
        calibrated.extra[_WAKE] = _wake_s(calibrated, findings, _last(machine.paces, findings))
        calibrated = replace(calibrated, seconds=monotonic() - began_s)
        progress(1.0)
    write_profile(path, calibrated)
    _print(path, calibrated, as_json)
    return ExitCode.OK


def _earlier(path: Path) -> list[PointTimes]:
    """Return what earlier calibrations have measured; raises Failure."""
    try:
        return read_points(path)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{path} does not hold what this version of persia calibrate measures: {error!r}. Calibrate once without --add."
        raise Failure(ExitCode.USAGE, said) from error


def _calibrated(measured: Sequence[PointTimes], machine: Machine, findings: _Findings, extra: Mapping[str, float]) -> Calibrated:
    """Return all constants but the waking of cores."""
    constants = {**machine.constants, **extra, **_host(findings)}
    covered = [point.quantities for point in measured]
    return Calibrated(fitted=machine.fitted, extra=constants, quantities=covered, machine=machine_facts(), seconds=0.0)


def read_batch_sizes(text: str | None) -> list[int] | None:
    """Return the numbers of `--batch-sizes`; raises Failure."""
    if text is None:
        return None
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise Failure(ExitCode.USAGE, f"--batch-sizes {text}: expected whole numbers with commas between them, such as 128,512,2048.")
    return sizes


def _print(path: Path, calibrated: Calibrated, as_json: bool) -> None:
    fitted = calibrated.fitted
    if as_json:
        stages = {
            stage: {"relative_error": each.relative_error, "points": each.points, "left_out": each.left_out}
            for stage, each in fitted.items()
        }
        print_json(
            {
                "schema_version": 1,
                "profile": str(path),
                "seconds": calibrated.seconds,
                "stages": stages,
                "constants": calibrated.constants(),
            }
        )
        return
    lines = [f"  {stage:<14}{100 * each.relative_error:5.1f} % about the fit of {each.points} points" for stage, each in fitted.items()]
    of_kinds = (("one batch after another", ALONE_ERROR), ("several at once", CROWDED_ERROR), ("all of one time together", DRIFT_ERROR))
    errors = [f"  {kind:<25}{100 * calibrated.extra[name]:5.1f} %" for kind, name in of_kinds]
    unseen = "Predictions of points that a fit has not seen are off by (standard deviation, less the unrest of a short measurement):"
    print_text("\n".join(["Processor time of one batch, by stage:", *lines, unseen, *errors]))
    note(f"The profile is {path}; it took {calibrated.seconds:.0f} s.")


def _measure_points(rig: Rig, alone: Sequence[Point], crowds: Sequence[Point], progress: Callable[[float], None]) -> _Findings:
    """Measure all points, crowded ones between the others, so that the machine's pace around them is known."""
    findings = _Findings()
    total = len(alone) + 2 * len(crowds) + 8
    taken = 0
    for number, point in enumerate(alone):
        _alone(rig, point, findings)
        while taken < (number + 1) * len(crowds) // len(alone):
            _crowded(rig, crowds[taken], findings)
            taken += 1
        progress((number + 1 + 2 * taken) / total)
    findings.resident_gib = rig.resident_gib
    return findings


def _alone(rig: Rig, point: Point, findings: _Findings) -> None:
    scenario, measured = measure_point(rig, point, crowded=False, batches=_FEWEST, seconds=_SECONDS)
    findings.noise_cv.append(measured.noise_cv)
    _note(findings, scenario, measured, crowded=False)


def _crowded(rig: Rig, point: Point, findings: _Findings) -> None:
    scenario, measured = measure_point(rig, point, crowded=True, batches=_CROWD_FEWEST, seconds=_CROWD_SECONDS)
    findings.background_cores.append(measured.other_cores)
    _note(findings, scenario, measured, crowded=True)


def _note(findings: _Findings, scenario: Scenario, measured: Measured, *, crowded: bool) -> None:
    findings.scenarios.append(scenario)
    findings.now.append(
        PointTimes(
            quantities=quantities(scenario),
            thread_s=measured.thread_s,
            sleeps=measured.sleeps,
            readings=measured.readings,
            span_s=measured.span_s,
            step_s=measured.step_s,
            crowded=crowded,
            reduction=REDUCTIONS[scenario.schedule.mode] if reduces(scenario) else "",
            gathered=gathers(scenario),
            unrest=measured.unrest,
        )
    )


def _host(findings: _Findings) -> dict[str, float]:
    return {
        "host.cores": core_quota(),
        "host.background_cores": max(0.0, median(findings.background_cores)),
        "host.noise_cv": median(findings.noise_cv),
        **{f"{_PREFIXES[role]}.fixed_gib": gib for role, gib in findings.resident_gib.items()},
    }


def _last(paces: Sequence[float], findings: _Findings) -> Sequence[float]:
    return paces[-len(findings.now) :]


def _with_counts(calibrated: Calibrated, findings: _Findings, paces: Sequence[float]) -> list[PointTimes]:
    """Return the points with what a simulation of each counts: which work is done beside busy cores, how often threads sleep.

    Sleeps are what a prediction charges by the same count; of the measured ones it has up to two fewer a batch.
    """
    with tempfile.TemporaryDirectory() as place:
        profile = Path(place) / "profile.yaml"
        write_profile(profile, calibrated)
        scenarios = [
            _simulated(scenario, profile=str(profile), pace=pace, steps=_COUNTED_STEPS)
            for scenario, pace in zip(findings.scenarios, paces, strict=True)
        ]
        return [_counted(point, result) for point, result in zip(findings.now, parallel_map(simulate, scenarios), strict=True)]


def _counted(point: PointTimes, result: SimulationResult) -> PointTimes:
    sleeps = {(role, "main"): often for role, often in result.sleeps.items()}
    return replace(point, beside=result.beside, sleeps={**point.sleeps, **sleeps})


def _wake_s(calibrated: Calibrated, findings: _Findings, paces: Sequence[float]) -> float:
    """Return how long an idle core takes to wake, from the time from batch to batch where one thread after another works."""
    with tempfile.TemporaryDirectory() as place:

        def with_wait(scenario: Scenario, tried_s: float) -> Scenario:
            profile = Path(place) / f"{tried_s}.yaml"
            if not profile.exists():
                write_profile(profile, replace(calibrated, extra={**calibrated.extra, _WAKE: tried_s}))
            return _simulated(scenario, profile=str(profile))

        measured = [
            (_simulated(scenario, pace=pace, steps=_WAITING_STEPS), point.step_s)
            for scenario, point, pace in zip(findings.scenarios, findings.now, paces, strict=True)
            if scenario.schedule.mode == "sync" and not point.crowded
        ]
        return wait_s(measured, with_wait)


def _simulated(scenario: Scenario, **changes: object) -> Scenario:
    return scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update=changes)})


def _gathering() -> dict[str, float]:
    """Return what summing a step's gradients in a server costs, per row and per value of one batch."""
    sums = [Equation(dict(zip(SUMMING, (float(rows), float(rows * dim)), strict=True)), seconds) for rows, dim, seconds in gather_seconds()]
    fitted = fit(sums)
    return {name: fitted.constants.get(name, 0.0) for name in SUMMING}
