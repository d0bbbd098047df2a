"""`persia calibrate`: measures this machine, stage by stage, and writes the profile from which its runs are predicted."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import log, sqrt
from pathlib import Path
from statistics import fmean, median

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.fingerprint import core_quota, machine_facts
from persia.commands.output import print_json, print_text
from persia.commands.progress import progress_bar
from persia.commands.simulate import resolved_yaml
from persia.runtime.interrupts import Interrupts
from persia.runtime.rig import Measured, Rig, open_rig
from persia.runtime.rig_pieces import busy_neighbour, draw_seconds_per_id, gather_seconds, reduce_seconds
from persia.scenario import Scenario, load_scenario
from simulator.calibration.design import Point, points
from simulator.calibration.fit import Fitted, fit
from simulator.calibration.store import Calibrated, default_profile_path, write_profile
from simulator.host_costs import Quantities, Terms, quantities, stage_terms

_POINTS = 36
_NEIGHBOUR_POINTS = 6
_AGAIN_POINTS = 4  # measured once more at the end: how far the machine has drifted
_DISTINCT, _WARM, _FEWEST = 8, 12, 4
_SECONDS = 0.8
_HOPS = 10.0  # a batch of mode sync waits for eight messages and two threads, one after another
_REDUCTIONS = {"overlapped": "hybrid", "after_backward": "naive-hybrid"}
_REDUCE_DIMS = (8, 128)
Equations = dict[str, list[tuple[Terms, float]]]


@dataclass(slots=True)
class _Findings:
    """What the points have shown."""

    equations: Equations = field(default_factory=lambda: defaultdict(list))
    waits_s: list[float] = field(default_factory=list)
    background_cores: list[float] = field(default_factory=list)
    slowdown: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    drift: list[float] = field(default_factory=list)  # logarithms of ratios
    quantities: list[Quantities] = field(default_factory=list)


def run(*, out: Path | None, as_json: bool, batch_sizes: Sequence[int] | None) -> ExitCode:
    """Measure, fit, write; print where the profile is and how well its constants explain what was measured."""
    began_s = time.monotonic()
    path = default_profile_path() if out is None else out
    plan = points(_POINTS, batch_sizes)
    with Interrupts() as interrupts, progress_bar("calibrating") as progress:
        with open_rig(interrupts) as rig:
            findings = _measure_points(rig, plan, progress)
        extra = {**_reduction(), **_gathering(), "host.loader.draw_s_per_id": draw_seconds_per_id()}
        progress(1.0)
    fitted = {stage: fit(equations) for stage, equations in findings.equations.items()}
    calibrated = Calibrated(
        fitted=fitted,
        extra={**extra, **_host(findings)},
        quantities=findings.quantities,
        machine=machine_facts(),
        seconds=time.monotonic() - began_s,
    )
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


def _measure_points(rig: Rig, plan: Sequence[Point], progress: Callable[[float], None]) -> _Findings:
    findings = _Findings()
    total = len(plan) + _NEIGHBOUR_POINTS + _AGAIN_POINTS + 4
    alone: list[tuple[Scenario, Measured]] = []
    for number, point in enumerate(plan):
        scenario = rig_scenario(point.overrides)
        measured = _measure(rig, scenario)
        _note_point(findings, scenario, measured)
        alone.append((scenario, measured))
        progress((number + 1) / total)
    with busy_neighbour():
        for number, (scenario, measured) in enumerate(alone[:: max(1, len(alone) // _NEIGHBOUR_POINTS)][:_NEIGHBOUR_POINTS]):
            beside = _measure(rig, scenario)
            for role in ("loader", "embedding_worker", "parameter_server", "nn_worker"):
                findings.slowdown[role].append(_role_s(beside, role) / _role_s(measured, role))
            progress((len(plan) + number + 1) / total)
    for number, (scenario, measured) in enumerate(alone[1 :: max(1, len(alone) // _AGAIN_POINTS)][:_AGAIN_POINTS]):
        again = _measure(rig, scenario)
        findings.drift.append(log(sum(again.thread_s.values()) / sum(measured.thread_s.values())))
        progress((len(plan) + _NEIGHBOUR_POINTS + number + 1) / total)
    return findings


def _measure(rig: Rig, scenario: Scenario) -> Measured:
    return rig.measure(scenario, resolved_yaml(scenario), warm_batches=_WARM, batches=_FEWEST, seconds=_SECONDS)


def _role_s(measured: Measured, role: str) -> float:
    return sum(seconds for (of, _), seconds in measured.thread_s.items() if of == role)


def _note_point(findings: _Findings, scenario: Scenario, measured: Measured) -> None:
    """Turn a point into an equation for each stage."""
    q = quantities(scenario)
    findings.quantities.append(q)
    thread, span = measured.thread_s, measured.span_s
    worker = sum(span.get(stage, 0.0) for stage in ("dedup", "pool", "un-pool"))
    server = sum(span.get(stage, 0.0) for stage in ("lookup", "update", "dense update"))
    seconds = {
        "loader": thread["loader", "main"],
        **{stage: span.get(stage, 0.0) for stage in ("dedup", "pool", "un-pool", "lookup", "update", "dense update")},
        "worker rest": max(0.0, thread["embedding_worker", "main"] - worker),
        "server rest": max(0.0, thread["parameter_server", "main"] - server),
        "train": thread["nn_worker", "other"],
        "rank rest": thread["nn_worker", "main"],
        "io": sum(spent for (role, kind), spent in thread.items() if kind == "io" or (kind == "other" and role != "nn_worker")),
    }
    for stage, terms in stage_terms(q).items():
        if any(terms.values()):
            findings.equations[stage].append((terms, seconds[stage]))
    findings.background_cores.append(measured.coordinator_cores)
    if not q.dense_on_servers and q.servers == 1:
        own_s = (
            thread["embedding_worker", "main"]
            + thread["parameter_server", "main"]
            + thread["nn_worker", "main"]
            + thread["nn_worker", "other"]
        )
        io_s = 0.5 * sum(spent for (role, kind), spent in thread.items() if kind == "io" and role != "loader")
        findings.waits_s.append((measured.step_s - own_s - io_s) / _HOPS)


def _host(findings: _Findings) -> dict[str, float]:
    quota = core_quota()
    found = {
        "host.cores": quota,
        "host.background_cores": median(findings.background_cores),
        "host.wake_s": max(0.0, median(findings.waits_s)),
    }
    found["host.drift"] = sqrt(fmean([each**2 for each in findings.drift]))
    return found | {f"host.slowdown.{role}": max(1.0, median(ratios)) for role, ratios in findings.slowdown.items()}


def _reduction() -> dict[str, float]:
    """Return what the all-reduce of dense gradients costs a rank, per step, hop and byte."""
    equations: list[tuple[Terms, float]] = []
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
                equations.append((terms, max(1e-6, line["cpu_s"])))
                if ranks == 2:  # more would wait for a core as well
                    waits_s.append(max(0.0, line["wall_s"] - line["cpu_s"]) / 2.0)
    fitted = fit(equations)
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
    equations = [(dict(zip(names, (float(rows), float(rows * dim)), strict=True)), seconds) for rows, dim, seconds in gather_seconds()]
    fitted = fit(equations)
    return {name: fitted.constants.get(name, 0.0) for name in names}
