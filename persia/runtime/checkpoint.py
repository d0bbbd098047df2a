"""Checkpoints: every table, the dense model and its optimizer, at one step that all roles agree on.

A checkpoint is a folder `step-000123`: `manifest.json`, `dense.npz`, and a `server-I` folder for each parameter server.
It is written under a hidden name and renamed when it is whole.  Arrays only, no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from persia.embedding.spec import Rows
from persia.runtime.plan import Plan

if TYPE_CHECKING:
    from persia.runtime.tables import Shard

Array = np.ndarray[Any, Any]

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_REMEDY = "Remove the checkpoint's folder to go on from an earlier one."


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
        return cls(folder=folder, step=manifest["step"], servers=manifest["servers"])


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
    with path.open("wb") as file:
        np.savez(file, **dict(arrays))
        _to_disk(file)


def _to_disk(file: IO[Any]) -> None:
    """Wait until the machine's death, too, would leave the file whole."""
    file.flush()
    os.fsync(file.fileno())


def complete(checkpoints: Path, step: int, plan: Plan) -> Path:
    """Make a written checkpoint valid: add its manifest, give it its name."""
    partial, folder = partial_of(checkpoints, step), folder_of(checkpoints, step)
    manifest = {"schema_version": SCHEMA_VERSION, "step": step, **description(plan), "servers": plan.servers}
    with (partial / MANIFEST).open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest, indent=2) + "\n")
        _to_disk(file)
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
        "emulated": scenario.simulation.emulated_accelerator,
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
        if not isinstance(manifest, dict) or "schema_version" not in manifest:
            raise ValueError("it has no schema_version")
        if manifest["schema_version"] != SCHEMA_VERSION:
            raise CheckpointError(f"{path}: schema_version {manifest['schema_version']!r}; this program reads {SCHEMA_VERSION}.")
        for name, least in (("step", 0), ("servers", 1)):
            if not isinstance(manifest.get(name), int) or manifest[name] < least:
                raise ValueError(f"its {name} is {manifest.get(name)!r}")
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a checkpoint's manifest: {error}. {_REMEDY}") from error
    return manifest


def check_matches(checkpoint: Checkpoint, plan: Plan) -> None:
    """Refuse a checkpoint of another model, data set or batch, or one from beyond the end of the run.

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
    steps = plan.stop_batch // plan.ranks
    if checkpoint.step >= steps:
        raise CheckpointError(
            f"{checkpoint.folder}: the checkpoint holds {checkpoint.step + 1} steps, the scenario trains {steps}. Raise workload.samples."
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
    return _load(checkpoint.folder / "dense.npz")


def read_dense_shards(checkpoint: Checkpoint) -> list[dict[str, Array]]:
    """Return the servers' slices of the dense vector in order; empty ones outside mode async."""
    return [_load(checkpoint.folder / f"server-{server}" / "dense.npz") for server in range(checkpoint.servers)]


def read_rows(checkpoint: Checkpoint, group: int) -> Iterable[Rows]:
    """Yield a group's rows of every server that wrote the checkpoint, each oldest first."""
    for server in range(checkpoint.servers):
        arrays = _load(checkpoint.folder / f"server-{server}" / f"group-{group}.npz", ("keys", "values", "state", "step"))
        yield Rows(keys=arrays["keys"], values=arrays["values"], state=arrays["state"], step=int(arrays["step"]))


def _load(path: Path, names: Sequence[str] = ()) -> dict[str, Array]:
    """Return a file's arrays; raises CheckpointError where it is missing, damaged, or lacks one of `names`."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        missing = [name for name in names if name not in arrays]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path}: this part of the checkpoint is damaged: {error}. {_REMEDY}") from error
    return arrays


def sweep(checkpoints: Path, keep: int) -> None:
    """Remove all but the last `keep` whole checkpoints, and what a killed run left unfinished before the last."""
    whole = sorted(path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}"))
    for folder in whole[: max(0, len(whole) - keep)]:
        hidden = folder.with_name(f".{folder.name}.partial")  # never half a checkpoint under a whole one's name
        folder.rename(hidden)
        shutil.rmtree(hidden)


def sweep_partial(checkpoints: Path) -> None:
    """Remove unfinished checkpoints: nobody writes them any more."""
    for folder in checkpoints.glob(".step-*.partial"):
        shutil.rmtree(folder, ignore_errors=True)
