"""`persia calibrate`: measures this machine, stage by stage, and writes the profile from which its runs are predicted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import log
from pathlib import Path
from statistics import median, pstdev
from time import monotonic

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import core_quota, machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.commands.rigging import measure_point, rig_scenario
from persia.runtime.attempt import RunFailed
from persia.runtime.interrupts import Interrupts
from persia.runtime.rig import Measured, Rig, open_rig
from persia.runtime.rig_pieces import draw_seconds_per_id, gather_seconds
from persia.scenario import Scenario
from simulator.calibration.design import CROWDED_REFERENCE, REFERENCE, Point, crowds, points, with_reference
from simulator.calibration.equations import (
    PointTimes,
    crowd_equations,
    crowded_points,
    equations,
    lookup_share,
    paces_around,
    reduction_equations,
    reference_s,
)
from simulator.calibration.fit import Fitted, bounded, fit, fit_all
from simulator.calibration.store import Calibrated, default_profile_path, read_points, write_points, write_profile
from simulator.calibration.waking import wait_s
from simulator.host_costs import REDUCTIONS, THREAD_OF_ROLE, THREADS, Quantities, quantities

_POINTS, _CROWDS = 30, 18
_REFERENCE_EVERY = 5  # points
_FEWEST, _CROWD_FEWEST = 4, 40  # batches
_SECONDS, _CROWD_SECONDS, _JITTER_SECONDS = 0.7, 1.4, 5.0
_REDUCE_CONSTANTS = ("host.reduce.overlapped_s_per_step", "host.reduce.after_backward_s_per_step")
_CROWDED_LEAST = 6  # points
_CROWD_FACTORS = 0.4, 2.0  # beyond these a factor is that of a part too small to be seen
_WAITING_POINTS, _WAITING_STEPS = 9, 30  # simulated to find a wait
_WAITS: Mapping[str, Callable[[Scenario, PointTimes], bool]] = {
    "host.wake_s": lambda scenario, point: scenario.schedule.mode == "sync" and not point.crowded,
    "host.reduce.delay_s_per_hop": lambda scenario, point: bool(point.reduction),
}
"""Waits, and the points that show them."""


_Paces = tuple[float, float]  # on an idle machine, on a crowded one


@dataclass(slots=True)
class _Findings:
    """What the points have shown."""

    now: list[PointTimes] = field(default_factory=list)  # in the order of time
    scenarios: list[Scenario] = field(default_factory=list)  # of the same
    background_cores: list[float] = field(default_factory=list)
    noise_cv: list[float] = field(default_factory=list)
    jitter: float = 0.0
    resident_gib: dict[str, float] = field(default_factory=dict)


def run(*, out: Path | None, as_json: bool, batch_sizes: Sequence[int] | None, add: bool) -> ExitCode:
    """Measure, fit, write; print where the profile is and how well its constants explain what was measured."""
    began_s = monotonic()
    path = default_profile_path() if out is None else out
    points_path = path.with_suffix(".points.json")
    earlier = read_points(points_path) if add and points_path.is_file() else []
    with Interrupts() as interrupts, progress_bar("calibrating") as progress:
        with open_rig(interrupts) as rig, _rig_failures():
            alone = with_reference(points(_POINTS, batch_sizes), _REFERENCE_EVERY, REFERENCE)
            crowded = with_reference(crowds(_CROWDS, batch_sizes), _REFERENCE_EVERY, CROWDED_REFERENCE)
            findings = _measure_points(rig, alone, crowded, progress)
        extra = {**_gathering(), "host.loader.draw_s_per_id": draw_seconds_per_id()}
        measured = [*earlier, *findings.now]
        write_points(points_path, measured)
        calibrated, paces = _fit(measured, findings, extra)
        _set_waits(calibrated, findings, paces[-len(findings.now) :])
        calibrated = replace(calibrated, seconds=monotonic() - began_s)
        progress(1.0)
    write_profile(path, calibrated)
    _print(path, calibrated, as_json)
    return ExitCode.OK


@contextmanager
def _rig_failures() -> Iterator[None]:
    try:
        yield
    except RunFailed as error:
        raise Failure(ExitCode.ENVIRONMENT, f"this machine could not be measured: {error}") from error


def _fit(measured: Sequence[PointTimes], findings: _Findings, extra: Mapping[str, float]) -> tuple[Calibrated, list[_Paces]]:
    """Return all constants but the waits, and every point's paces: on an idle machine and on a crowded one."""
    cores = machine_facts()["cores"]
    fitted, alone_paces = fit_all(equations(measured))
    around = paces_around(measured, alone_paces)
    crowded = crowded_points(measured, cores)
    if len(crowded) < _CROWDED_LEAST:  # so many cores that the points do not fill them, or only one
        crowded = []
    crowd, paces = fit_all(crowd_equations(measured, alone_paces, _constants(fitted), cores)) if crowded else ({}, [])
    fitted |= {f"crowd_{thread}": bounded(each, *_CROWD_FACTORS) for thread, each in crowd.items()}
    crowded_paces = dict(zip(crowded, paces, strict=True))
    neutral = {f"host.crowd.{thread}_{part}": 1.0 for thread in THREADS for part in ("fixed", "sized")}
    reduction = reduction_equations(measured, around, crowded_paces, {**neutral, **_constants(fitted)}, cores)
    fitted["reduction"] = fit([(terms, seconds) for terms, seconds, _ in reduction], [train_s for *_, train_s in reduction])
    alone = [point for point in measured if not point.crowded]
    extra = {
        **dict.fromkeys(_REDUCE_CONSTANTS, 0.0),
        **neutral,
        **extra,
        **_host(measured, findings),
        "host.drift": pstdev(map(log, alone_paces)),
        "host.reference_s": reference_s(alone, alone_paces, _quantities(REFERENCE)),
    }
    of_crowd, reference = [measured[number] for number in crowded], _quantities(CROWDED_REFERENCE)
    if any(point.quantities == reference for point in of_crowd):
        extra["host.crowded_reference_s"] = reference_s(of_crowd, paces, reference)
    covered = [point.quantities for point in measured]
    calibrated = Calibrated(fitted=fitted, extra=extra, quantities=covered, machine=machine_facts(), seconds=0.0)
    return calibrated, [(pace, crowded_paces.get(number, pace)) for number, pace in enumerate(around)]


def _quantities(point: Point) -> Quantities:
    return quantities(rig_scenario(point.overrides))


def _constants(fitted: Mapping[str, Fitted]) -> dict[str, float]:
    return {name: value for each in fitted.values() for name, value in each.constants.items()}


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
    print_text("\n".join(["Processor time of one batch, by stage:", *lines]))
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
    _, measured = measure_point(rig, REFERENCE, crowded=False, batches=_FEWEST, seconds=_JITTER_SECONDS)
    findings.jitter = measured.pace_cv
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
            span_s=measured.span_s,
            step_s=measured.step_s,
            crowded=crowded,
            reduction=REDUCTIONS.get(scenario.schedule.mode, "") if scenario.ranks > 1 else "",
        )
    )


def _host(points: Sequence[PointTimes], findings: _Findings) -> dict[str, float]:
    return {
        "host.cores": core_quota(),
        "host.server.lookup_share": lookup_share(points),
        "host.background_cores": max(0.0, median(findings.background_cores)),
        "host.noise_cv": median(findings.noise_cv),
        "host.jitter": findings.jitter,
        **{f"{THREAD_OF_ROLE[role]}.fixed_gib": gib for role, gib in findings.resident_gib.items()},
    }


def _set_waits(calibrated: Calibrated, findings: _Findings, paces: Sequence[_Paces]) -> None:
    """Set the waits that only the time from batch to batch shows: of waking cores, then of the all-reduce's messages."""
    calibrated.extra.update(dict.fromkeys(_WAITS, 0.0))
    with tempfile.TemporaryDirectory() as place:
        for name, chosen in _WAITS.items():

            def with_wait(scenario: Scenario, tried_s: float, name: str = name) -> Scenario:
                profile = Path(place) / f"{name}-{tried_s}.yaml"
                if not profile.exists():
                    write_profile(profile, replace(calibrated, extra={**calibrated.extra, name: tried_s}))
                return _simulated(scenario, profile=str(profile))

            measured = [
                (
                    _simulated(scenario, pace=paces[number][0], crowded_pace=paces[number][1], steps=_WAITING_STEPS),
                    findings.now[number].step_s,
                )
                for number, scenario in enumerate(findings.scenarios)
                if chosen(scenario, findings.now[number])
            ]
            calibrated.extra[name] = wait_s(measured[:: max(1, len(measured) // _WAITING_POINTS)], with_wait)


def _simulated(scenario: Scenario, **changes: object) -> Scenario:
    return scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update=changes)})


def _gathering() -> dict[str, float]:
    """Return what summing a step's gradients in a server costs, per row and per value of one batch."""
    names = ("host.server.gather_s_per_row", "host.server.gather_s_per_value")
    sums = [(dict(zip(names, (float(rows), float(rows * dim)), strict=True)), seconds) for rows, dim, seconds in gather_seconds()]
    fitted = fit(sums)
    return {name: fitted.constants.get(name, 0.0) for name in names}
