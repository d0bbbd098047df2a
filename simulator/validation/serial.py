"""A validation as the JSON object of `persia validate --json`, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from persia.readings import Readings
from persia.trace import Span
from simulator.result import Interval, Staleness, StepTime
from simulator.validation.noise import Noise
from simulator.validation.result import Ablation, CaseResult, Reference, Repeat, Validation, World

SCHEMA_VERSION = 2


def to_json(validation: Validation) -> dict[str, Any]:
    """Return the object; what a case lacks is null, never absent; spans are those of the cases shown."""
    shown = {case.name for case in validation.shown}
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": validation.kind,
        "seed": validation.seed,
        "machine": dict(validation.machine),
        "date": validation.date,
        "profile": validation.profile,
        "command": validation.command,
        **asdict(validation.summary),
        "passed": validation.passed,
        "misses": validation.misses,
        "cases": [_case(case, spans=case.name in shown) for case in validation.cases],
        "ablation": [asdict(row) for row in validation.ablation],
        "references": [{**asdict(each), "readings": each.readings._asdict()} for each in validation.references],
    }


def _case(case: CaseResult, *, spans: bool) -> dict[str, Any]:
    return {
        "name": case.name,
        "mode": case.mode,
        "settings": dict(case.settings),
        "ranks": case.ranks,
        "measured": _world(case.measured, spans=spans),
        "simulated": _world(case.simulated, spans=spans),
        "predicted_90": None if case.predicted is None else asdict(case.predicted),
        "error_pct": case.error_pct,
        "covered": case.covered,
        "step_time_error_pct": dict(case.step_time_error_pct) or None,
        "staleness_w1": case.staleness_w1,
        "staleness_ks": case.staleness_ks,
        "staleness_w1_most": case.staleness_most,
        "disturbed": case.disturbed,
        "readings": _readings(case.readings),
        "pace": case.pace,
        "repeats": [_repeat(repeat) for repeat in case.repeats],
        "failure": case.failure,
        "misses": case.misses,
    }


def _repeat(repeat: Repeat) -> dict[str, Any]:
    return {**asdict(repeat), "readings": _readings(repeat.readings), "disturbance": repeat.noise.disturbance}


def _readings(readings: Readings | None) -> dict[str, float] | None:
    return None if readings is None else readings._asdict()


def _world(world: World | None, *, spans: bool) -> dict[str, Any] | None:
    if world is None:
        return None
    return {
        **world.facts,
        "throughput": {"samples_per_s": asdict(world.samples_per_s)},
        "step_time_s": asdict(world.step_time_s),
        "staleness": {"version": asdict(world.version), "in_flight": asdict(world.in_flight), "row": None},
        "stages_s": dict(world.stages_s),
        "spans": [[span.tier, span.index, span.name, span.batch, span.start_s, span.end_s] for span in world.spans if spans],
    }


def from_json(data: Mapping[str, Any]) -> Validation:
    """Return the validation that `to_json` made the object of.

    Raises:
        ValueError: it is an object of another version.
        KeyError: something is missing.
    """
    if data.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"schema_version {data.get('schema_version')!r}; this program reads {SCHEMA_VERSION}")
    return Validation(
        kind=data["kind"],
        seed=data["seed"],
        machine=data["machine"],
        date=data["date"],
        profile=data["profile"],
        command=data["command"],
        cases=[_read_case(case) for case in data["cases"]],
        ablation=[Ablation(**row) for row in data["ablation"]],
        references=[Reference(**{**row, "readings": Readings(**row["readings"])}) for row in data.get("references", ())],
    )


def _read_case(data: Mapping[str, Any]) -> CaseResult:
    return CaseResult(
        name=data["name"],
        mode=data["mode"],
        settings=data["settings"],
        ranks=data["ranks"],
        measured=_read_world(data["measured"]),
        simulated=_read_world(data["simulated"]),
        predicted=None if data["predicted_90"] is None else Interval(**data["predicted_90"]),
        repeats=[_read_repeat(repeat) for repeat in data["repeats"]],
        failure=data["failure"],
        pace=data.get("pace"),
    )


def _read_repeat(data: Mapping[str, Any]) -> Repeat:
    return Repeat(
        samples_per_s=Interval(**data["samples_per_s"]),
        steps=data["steps"],
        seconds=data["seconds"],
        noise=Noise(**data["noise"]),
        used=data["used"],
        readings=None if data["readings"] is None else Readings(**data["readings"]),
        at_s=data.get("at_s"),
    )


_WORLD_KEYS = frozenset({"throughput", "step_time_s", "staleness", "stages_s", "spans"})


def _read_world(data: Mapping[str, Any] | None) -> World | None:
    if data is None:
        return None
    return World(
        samples_per_s=Interval(**data["throughput"]["samples_per_s"]),
        step_time_s=StepTime(**data["step_time_s"]),
        version=_read_staleness(data["staleness"]["version"]),
        in_flight=_read_staleness(data["staleness"]["in_flight"]),
        stages_s=data["stages_s"],
        spans=[_read_span(*row) for row in data["spans"]],
        facts={key: value for key, value in data.items() if key not in _WORLD_KEYS},
    )


def _read_staleness(data: Mapping[str, Any]) -> Staleness:
    return Staleness(**{**data, "histogram": {int(value): weight for value, weight in data["histogram"].items()}})


def _read_span(tier: str, index: int, name: str, batch: int, start_s: float, end_s: float) -> Span:
    return Span(tier=tier, index=index, name=name, batch=batch, start_s=start_s, end_s=end_s)
