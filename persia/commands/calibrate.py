"""`persia calibrate`: measures this machine, stage by stage, and writes the profile from which its runs are predicted."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from math import sqrt
from pathlib import Path
from statistics import median
from time import monotonic

import numpy as np

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import core_quota, machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.commands.simulate import resolved_yaml
from persia.runtime.interrupts import Interrupts
from persia.runtime.rig import Measured, Rig, open_rig
from persia.runtime.rig_pieces import draw_seconds_per_id, gather_seconds, reduce_seconds
from persia.scenario import Scenario, load_scenario
from simulator.calibration.design import REFERENCE, Point, crowds, points, with_reference
from simulator.calibration.equations import PointTimes, crowd_equations, equations, lookup_share, reference_s
from simulator.calibration.fit import Fitted, fit, fit_all
from simulator.calibration.store import Calibrated, default_profile_path, read_points, write_points, write_profile
from simulator.calibration.waking import TRIED_S, wake_s
from simulator.host_costs import Terms, quantities

_POINTS, _CROWDS = 35, 16
_REFERENCE_EVERY = 5  # points
_DISTINCT, _WARM, _FEWEST = 8, 12, 4
_SECONDS, _CROWD_SECONDS, _CROWD_WARM = 0.7, 1.8, 40
_WAKING_POINTS, _WAKING_STEPS = 10, 40  # simulated to find how long a core takes to wake
_REDUCTIONS = {"overlapped": "hybrid", "after_backward": "naive-hybrid"}
_REDUCE_DIMS = (8, 128)


@dataclass(slots=True)
class _Findings:
    """What the points have shown."""

    points: list[PointTimes] = field(default_factory=list)  # in the order of time
    alone: list[Scenario] = field(default_factory=list)  # of those that are not crowded
    background_cores: list[float] = field(default_factory=list)
    noise_cv: list[float] = field(default_factory=list)
    resident_gib: dict[str, float] = field(default_factory=dict)


def run(*, out: Path | None, as_json: bool, batch_sizes: Sequence[int] | None, add: bool) -> ExitCode:
    """Measure, fit, write; print where the profile is and how well its constants explain what was measured."""
    began_s = monotonic()
    path = default_profile_path() if out is None else out
    points_path = path.with_suffix(".points.json")
    earlier = read_points(points_path) if add and points_path.is_file() else []
    with Interrupts() as interrupts, progress_bar("calibrating") as progress:
        with open_rig(interrupts) as rig:
            findings = _measure_points(
                rig, with_reference(points(_POINTS, batch_sizes), _REFERENCE_EVERY), crowds(_CROWDS, batch_sizes), progress
            )
        extra = {**_reduction(), **_gathering(), "host.loader.draw_s_per_id": draw_seconds_per_id()}
        progress(1.0)
    findings.points = [*earlier, *findings.points]
    write_points(points_path, findings.points)
    fitted, paces = fit_all(equations(findings.points))
    constants = {name: value for each in fitted.values() for name, value in each.constants.items()}
    crowd = crowd_equations(findings.points, paces, constants, machine_facts()["cores"])
    crowded = {f"crowd_{thread}": fit(each) for thread, each in crowd.items()}
    calibrated = Calibrated(
        fitted={**fitted, **crowded},
        extra={**extra, **_host(findings, paces), "host.wake_s": 0.0},
        quantities=[point.quantities for point in findings.points],
        machine=machine_facts(),
        seconds=monotonic() - began_s,
    )
    calibrated.extra["host.wake_s"] = _wake_s(findings, paces[-len(findings.alone) :], calibrated)
    write_profile(path, calibrated)
    _print(path, calibrated, fitted, as_json)
    return ExitCode.OK


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


def _print(path: Path, calibrated: Calibrated, fitted: Mapping[str, Fitted], as_json: bool) -> None:
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


def rig_scenario(overrides: Sequence[str]) -> Scenario:
    """Return the rig's scenario: the validation cases' base, one process of each role."""
    base = str(files("scenarios") / "validation" / "base.yaml")
    common = ("workload.evaluate_every_steps=0", "workload.data.held_out_samples=64", "workload.samples=1 billion")
    return load_scenario(base, [*common, f"workload.data.distinct_batches={_DISTINCT}", *overrides])


def _measure_points(rig: Rig, alone: Sequence[Point], crowds: Sequence[Point], progress: Callable[[float], None]) -> _Findings:
    """Measure all points, crowded ones between the others, so that the machine's pace around them is known."""
    findings = _Findings()
    total = len(alone) + 2 * len(crowds) + 8
    taken = 0
    for number, point in enumerate(alone):
        findings.points.append(_alone(rig, point, findings))
        while taken < (number + 1) * len(crowds) // len(alone):
            findings.points.append(_crowded(rig, crowds[taken], findings))
            taken += 1
        progress((number + 1 + 2 * taken) / total)
    findings.resident_gib = rig.resident_gib
    return findings


def _alone(rig: Rig, point: Point, findings: _Findings) -> PointTimes:
    scenario = rig_scenario(point.overrides)
    measured = rig.measure(scenario, resolved_yaml(scenario), warm_batches=_WARM, batches=_FEWEST, seconds=_SECONDS)
    findings.noise_cv.append(measured.noise_cv)
    findings.alone.append(scenario)
    return _times(scenario, measured)


def _crowded(rig: Rig, point: Point, findings: _Findings) -> PointTimes:
    scenario = rig_scenario(point.overrides)
    measured = rig.measure(scenario, resolved_yaml(scenario), warm_batches=_CROWD_WARM, batches=_CROWD_WARM, seconds=_CROWD_SECONDS)
    findings.background_cores.append(measured.other_cores)
    return _times(scenario, measured, crowded=True)


def _times(scenario: Scenario, measured: Measured, *, crowded: bool = False) -> PointTimes:
    return PointTimes(
        quantities=quantities(scenario), thread_s=measured.thread_s, span_s=measured.span_s, step_s=measured.step_s, crowded=crowded
    )


def _host(findings: _Findings, paces: Sequence[float]) -> dict[str, float]:
    quota = core_quota()
    logs = np.log(paces)
    found = {
        "host.cores": quota,
        "host.server.lookup_share": lookup_share(findings.points),
        "host.background_cores": max(0.0, median(findings.background_cores)),
        "host.noise_cv": median(findings.noise_cv),
    }
    found |= {
        "host.drift": float(logs.std()),
        "host.jitter": float(np.diff(logs).std() / sqrt(2.0)),
        "host.reference_s": reference_s(findings.points, paces, quantities(rig_scenario(REFERENCE.overrides))),
    }
    fixed = {"loader": "loader", "embedding_worker": "worker", "parameter_server": "server", "nn_worker": "rank"}
    found |= {f"{fixed[role]}.fixed_gib": gib for role, gib in findings.resident_gib.items()}
    return found


def _wake_s(findings: _Findings, paces: Sequence[float], calibrated: Calibrated) -> float:
    """Return how long an idle core takes to wake, from the steps of mode sync."""
    steps_s = [point.step_s for point in findings.points if not point.crowded][-len(findings.alone) :]  # those of now
    with tempfile.TemporaryDirectory() as place:
        profiles = []
        for number, tried_s in enumerate(TRIED_S):
            profiles.append(Path(place) / f"wakes-{number}.yaml")
            write_profile(profiles[-1], replace(calibrated, extra={**calibrated.extra, "host.wake_s": tried_s}))
        chosen = []
        for scenario, pace, step_s in zip(findings.alone, paces, steps_s, strict=True):
            if scenario.schedule.mode == "sync":
                changes = {"pace": pace, "steps": _WAKING_STEPS}
                tried = [
                    scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update={**changes, "profile": str(profile)})})
                    for profile in profiles
                ]
                chosen.append((tried[0], tried[1], step_s))
        return wake_s(chosen[:: max(1, len(chosen) // _WAKING_POINTS)])


def _reduction() -> dict[str, float]:
    """Return what the all-reduce of dense gradients costs a rank, per step, hop and byte."""
    steps: list[tuple[Terms, float]] = []
    waits_s: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        paths: dict[str, tuple[str, Scenario]] = {}
        for kind, mode in _REDUCTIONS.items():
            for dim in _REDUCE_DIMS:
                scenario = rig_scenario(
                    (f"schedule.mode={mode}", "workload.batch_size=16", f"model.features[0].dim={dim}", "model.features[0].count=26")
                )
                path = Path(folder) / f"{kind}-{dim}.yaml"
                path.write_text(resolved_yaml(scenario), encoding="utf-8")
                paths[path.name] = (kind, scenario)
        for ranks in (2, 4):
            for line in reduce_seconds(ranks, [str(Path(folder) / name) for name in paths], folder):
                kind, scenario = paths[line["scenario"]]
                moved_bytes = 4.0 * quantities(scenario).parameters * 2.0 * (ranks - 1) / ranks
                terms = {
                    f"host.reduce.{kind}_s_per_step": 1.0,
                    "host.reduce.s_per_hop": 2.0 * (ranks - 1),
                    "host.reduce.s_per_byte": moved_bytes,
                }
                steps.append((terms, max(1e-6, line["cpu_s"])))
                if ranks == 2:  # more would wait for a core as well
                    waits_s.append(line["idle_s"] / 2.0)
    fitted = fit(steps)
    names = (
        "host.reduce.overlapped_s_per_step",
        "host.reduce.after_backward_s_per_step",
        "host.reduce.s_per_hop",
        "host.reduce.s_per_byte",
    )
    return {**{name: fitted.constants.get(name, 0.0) for name in names}, "host.reduce.delay_s_per_hop": median(waits_s)}


def _gathering() -> dict[str, float]:
    """Return what summing a step's gradients in a server costs, per row and per value of one batch."""
    names = ("host.server.gather_s_per_row", "host.server.gather_s_per_value")
    sums = [(dict(zip(names, (float(rows), float(rows * dim)), strict=True)), seconds) for rows, dim, seconds in gather_seconds()]
    fitted = fit(sums)
    return {name: fitted.constants.get(name, 0.0) for name in names}
