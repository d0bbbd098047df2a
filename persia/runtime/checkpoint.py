"""Checkpoints: every table, the dense model and its optimizer, at one step that all roles agree on.

A checkpoint is a folder `step-000123`: `manifest.json`, `dense.npz`, and a `server-I` folder for each parameter server.
It is written under a hidden name and renamed when it is whole.  Arrays only, no pickle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from persia.embedding.spec import Rows
from persia.runtime.plan import Plan

if TYPE_CHECKING:
    from persia.runtime.tables import Shard

Array = np.ndarray[Any, Any]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: the message names it, says what does not match and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint on disk; every batch of steps up to `step` is in it."""

    folder: Path
    step: int
    servers: int

    @classmethod
    def of(cls, folder: Path) -> Checkpoint:
        """Return the checkpoint in a folder; raises CheckpointError where its manifest is damaged or of another version."""
        manifest = _read_manifest(folder / MANIFEST)
        return cls(folder=folder, step=int(manifest["step"]), servers=int(manifest["servers"]))


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder of a whole checkpoint."""
    return checkpoints / f"step-{step:08d}"


def partial_of(checkpoints: Path, step: int) -> Path:
    """Return the folder in which a checkpoint is being written."""
    return checkpoints / f".step-{step:08d}.partial"


def write_shard(checkpoints: Path, step: int, server: int, shard: Shard) -> None:
    """Write one server's part."""
    folder = partial_of(checkpoints, step) / f"server-{server}"
    folder.mkdir(parents=True, exist_ok=True)
    for place, rows in enumerate(shard.tables):
        _save(folder / f"group-{place}.npz", {"keys": rows.keys, "values": rows.values, "state": rows.state, "step": np.array(rows.step)})
    _save(folder / "dense.npz", shard.dense)


def write_dense(checkpoints: Path, step: int, arrays: Mapping[str, Array]) -> None:
    """Write the dense model and its optimizer."""
    folder = partial_of(checkpoints, step)
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "dense.npz", arrays)


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **dict(arrays))


def complete(checkpoints: Path, step: int, plan: Plan) -> Path:
    """Make a written checkpoint valid: add its manifest, give it its name."""
    partial, folder = partial_of(checkpoints, step), folder_of(checkpoints, step)
    manifest = {"schema_version": SCHEMA_VERSION, "step": step, **description(plan), "servers": plan.servers}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    partial.rename(folder)
    return folder


def description(plan: Plan) -> dict[str, Any]:
    """Return what must be the same in the run that wrote a checkpoint and in the one that reads it."""
    scenario = plan.scenario
    return {
        "mode": "async" if scenario.schedule.mode == "async" else "all-reduce",
        "ranks": plan.ranks,
        "batch_size": plan.batch_size,
        "seed": plan.seed,
        "data": scenario.workload.data.kind,
        "features": [
            {"name": f.name, "count": f.count, "dim": f.dim, "optimizer": f.optimizer, "bytes_per_parameter": f.bytes_per_parameter}
            for f in scenario.model.features
        ],
        "dense": {
            "dense_features": scenario.model.dense.dense_features,
            "layers": list(scenario.model.dense.layers),
            "bottom_layers": list(scenario.model.dense.bottom_layers or ()),
            "architecture": scenario.model.dense.architecture,
            "projection_dim": scenario.model.dense.projection_dim,
            "optimizer": scenario.model.dense.optimizer,
        },
    }


def latest(checkpoints: Path) -> Checkpoint | None:
    """Return the last whole checkpoint of a folder, or None.

    Raises:
        CheckpointError: its manifest is damaged or of another version.
    """
    manifests = sorted(checkpoints.glob(f"step-*/{MANIFEST}"))
    if not manifests:
        return None
    return Checkpoint.of(manifests[-1].parent)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a checkpoint's manifest ({error}). Remove its folder to go on from an earlier one.") from error
    if version != SCHEMA_VERSION:
        raise CheckpointError(f"{path}: schema_version {version!r}; this program reads {SCHEMA_VERSION}.")
    return dict(manifest)


def check_matches(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse a checkpoint of another model, data set or batch.

    Raises:
        CheckpointError: names everything that differs.
    """
    manifest = _read_manifest(checkpoint.folder / MANIFEST)
    differences = list(_differences(manifest, json.loads(json.dumps(description(plan)))))
    if differences:
        raise CheckpointError(
            f"{checkpoint.folder}: the checkpoint does not match the scenario: {'; '.join(differences)}. "
            "Resume with the scenario it was written with (only the number of servers and workers may change), or start a new run."
        )


def _differences(written: Any, wanted: Any, path: str = "") -> Iterator[str]:
    if isinstance(wanted, dict) and isinstance(written, dict):
        for key, value in wanted.items():
            yield from _differences(written.get(key), value, f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(written, list) and len(wanted) == len(written):
        for place, (old, new) in enumerate(zip(written, wanted, strict=True)):
            yield from _differences(old, new, f"{path}[{place}]")
    elif written != wanted:
        yield f"{path} was {written!r}, is {wanted!r}"


def read_dense(checkpoint: Checkpoint) -> dict[str, Array]:
    """Return the dense model and its optimizer."""
    with np.load(checkpoint.folder / "dense.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def read_dense_shards(checkpoint: Checkpoint) -> list[dict[str, Array]]:
    """Return the servers' slices of the dense vector in order; empty ones outside mode async."""
    shards = []
    for server in range(checkpoint.servers):
        with np.load(checkpoint.folder / f"server-{server}" / "dense.npz", allow_pickle=False) as arrays:
            shards.append(dict(arrays))
    return shards


def read_rows(checkpoint: Checkpoint, group: int) -> Iterable[Rows]:
    """Yield a group's rows of every server that wrote the checkpoint, each oldest first."""
    for server in range(checkpoint.servers):
        with np.load(checkpoint.folder / f"server-{server}" / f"group-{group}.npz", allow_pickle=False) as arrays:
            yield Rows(keys=arrays["keys"], values=arrays["values"], state=arrays["state"], step=int(arrays["step"]))


def sweep(checkpoints: Path, keep: int) -> None:
    """Remove all but the last `keep` whole checkpoints, and what a killed run left unfinished before the last."""
    whole = sorted(path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}"))
    for folder in whole[: max(0, len(whole) - keep)]:
        shutil.rmtree(folder)


def sweep_partial(checkpoints: Path) -> None:
    """Remove unfinished checkpoints: nobody writes them any more."""
    for folder in checkpoints.glob(".step-*.partial"):
        shutil.rmtree(folder)
