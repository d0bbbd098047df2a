"""A calibration as a profile: constants with their intervals, the machine's fingerprint, the domain that was covered."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from persia.readings import Readings
from persia.scenario import load_profile
from simulator.calibration.equations import PointTimes
from simulator.calibration.fit import Fitted, interval
from simulator.host_costs import Quantities

_BASE = "persia-original"  # what a calibration does not measure: memory, prices of literature
DOMAIN = ("samples", "bags", "ids", "rows", "id_values", "row_values", "pooled_values", "parameters", "flops", "servers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was measured: each stage's fit, further constants by name, the quantities of all points, the machine."""

    fitted: Mapping[str, Fitted]
    extra: dict[str, float]
    quantities: Sequence[Quantities]
    machine: Mapping[str, Any]
    seconds: float

    def constants(self) -> dict[str, float]:
        """Return all constants by name, in seconds (per what the name says), cores, or times."""
        constants = dict(self.extra)
        for each in self.fitted.values():
            constants |= each.constants
        return constants


def default_profile_path() -> Path:
    """Return where this user's calibration of this machine is kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "persia" / "profile.yaml"


def write_profile(path: Path, calibrated: Calibrated) -> None:
    """Write the profile, whole or not at all; raises OSError."""
    _write(path, yaml.safe_dump(_tree(calibrated), sort_keys=False, width=160, allow_unicode=True))


def write_points(path: Path, points: Sequence[PointTimes]) -> None:
    """Write what was measured at each point beside the profile: whoever doubts a fit can make it again."""
    rows = [
        {
            "quantities": asdict(point.quantities),
            "step_s": point.step_s,
            "crowded": point.crowded,
            "reduction": point.reduction,
            "gathered": point.gathered,
            "unrest": point.unrest,
            "thread_s": _joined(point.thread_s),
            "sleeps": _joined(point.sleeps),
            "readings": point.readings._asdict(),
            "span_s": dict(point.span_s),
            "beside": dict(point.beside),
        }
        for point in points
    ]
    _write(path, json.dumps(rows, indent=1) + "\n")


def read_points(path: Path) -> list[PointTimes]:
    """Return what `write_points` has written."""
    return [
        PointTimes(
            quantities=Quantities(**row["quantities"]),
            step_s=row["step_s"],
            crowded=row["crowded"],
            reduction=row["reduction"],
            thread_s=_split(row["thread_s"]),
            sleeps=_split(row["sleeps"]),
            span_s=row["span_s"],
            readings=Readings(**row["readings"]),
            beside=row["beside"],
            gathered=row["gathered"],
            unrest=row["unrest"],
        )
        for row in json.loads(path.read_text(encoding="utf-8"))
    ]


def _joined(by_thread: Mapping[tuple[str, str], float]) -> dict[str, float]:
    return {f"{role}/{kind}": value for (role, kind), value in by_thread.items()}


def _split(by_thread: Mapping[str, float]) -> dict[tuple[str, str], float]:
    return {(role, kind): value for (role, _, kind), value in ((key.partition("/"), value) for key, value in by_thread.items())}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _tree(calibrated: Calibrated) -> dict[str, Any]:
    machine = calibrated.machine
    base = {name: each.model_dump(exclude_none=True, mode="json") for name, each in load_profile(_BASE).constants.items()}
    return {
        "name": "this-machine",
        "description": f"Measured on {machine['cpu']}, {machine['cores']} cores, by persia calibrate in {calibrated.seconds:.0f} s",
        "machine": {
            "cpu": str(machine["cpu"]),
            "cores": machine["cores"],
            "ram_gib": machine["ram_gib"],
            "kernel": str(machine["system"]),
            "python": machine["python"],
            "packages": {name: str(version) for name, version in machine["packages"].items()},
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "domain": {name: _range([float(getattr(q, name)) for q in calibrated.quantities]) for name in DOMAIN},
        "constants": base | _measured(calibrated),
    }


def _range(values: Sequence[float]) -> dict[str, float]:
    return {"low": min(values), "high": max(values)}


def _measured(calibrated: Calibrated) -> dict[str, dict[str, Any]]:
    errors = {name: error for each in calibrated.fitted.values() for name, error in each.errors.items()}
    written: dict[str, dict[str, Any]] = {}
    for name, value in calibrated.constants().items():
        unit = _unit(name)
        written[name] = {"value": value, "unit": unit, "evidence": "S", "source": "persia calibrate on this machine"}
        if name in errors:
            low, high = interval(value, errors[name])
            written[name] |= {"low": low, "high": high}
    return written


def _unit(name: str) -> str:
    """Return the unit that a constant's name ends with."""
    if "_s_per_" in name or ".s_per_" in name:
        return f"s/{name.split('s_per_')[-1].split('.')[0]}"
    return "s" if name.endswith("_s") else "cores" if name.endswith("cores") else "1"
