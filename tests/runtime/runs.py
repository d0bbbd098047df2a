"""What the tests of whole runs share: a small scenario trained for real in a folder, and everything it leaves there."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from persia.embedding.spec import Rows
from persia.runtime import coordinator
from persia.runtime.checkpoint import Checkpoint, latest, read_dense, read_dense_shards, read_rows
from persia.runtime.coordinator import Options, Outcome
from persia.runtime.plan import Plan
from persia.runtime.records import LOGS, TRACES
from persia.scenario import Scenario, load_scenario
from persia.schedule.log import Entry, Header, read_log
from persia.trace import Record, StalenessRecord, read_trace

Array = npt.NDArray[Any]
T = TypeVar("T")

OPTIMIZERS = ("sgd", "adagrad", "rowwise-adagrad", "adam")
POOLINGS = ("sum", "mean", "sqrtn", "raw")
# Dense part of each case; in case c the group of sparse optimizer o has pooling c + o: each optimizer meets each pooling.
CASES = (
    "{dense_features: 3, layers: [16, 8], optimizer: sgd, learning_rate: 0.1}",
    "{dense_features: 3, layers: [16, 8], optimizer: adam, learning_rate: 0.001, architecture: dlrm}",
    "{dense_features: 3, layers: [16], optimizer: adagrad, learning_rate: 0.01, architecture: dlrm, projection_dim: 5}",
    "{dense_features: 3, layers: [16, 8], optimizer: adam, learning_rate: 0.001, projection_dim: 5}",
)
STEPS = 50
TOLERANCE = 1e-5
# Patient time-outs: on a machine that is busy with other tests nothing is to be taken for lost.
SMALL = (
    "model.embedding_learning_rate=0.02",
    "workload.batch_size=16",
    "workload.evaluate_every_steps=0",
    "workload.data.held_out_samples=256",
    "schedule.precision={server_worker: fp32, worker_rank: fp32}",
    "schedule.request_timeout=60s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has ended well."""

    scenario: Scenario
    folder: Path
    outcome: Outcome

    @property
    def plan(self) -> Plan:
        return self.outcome.plan

    @property
    def attempt(self) -> Path:
        """The folder of the last attempt."""
        return sorted((self.folder / "attempts").iterdir())[-1]

    @property
    def auc(self) -> float:
        return float(self.outcome.qualities[-1]["auc"])

    def checkpoint(self) -> Checkpoint:
        """The last checkpoint, which holds the trained model."""
        found = latest(self.folder / "checkpoints")
        assert found is not None
        assert found.step == self.plan.stop_batch // self.plan.ranks - 1
        return found

    def dense(self) -> dict[str, Array]:
        """Every dense parameter and optimizer state, by the checkpoint's name."""
        return read_dense(self.checkpoint())

    def dense_vector(self) -> Array:
        """All dense parameters [P], in mode async those of the servers."""
        if self.scenario.schedule.mode == "async":
            return np.concatenate([shard["values"] for shard in read_dense_shards(self.checkpoint())])
        return np.concatenate([array.reshape(-1) for name, array in self.dense().items() if name.startswith("parameter/")])

    def rows(self, group: int) -> Rows:
        """All servers' rows of a group, by ascending key."""
        parts = list(read_rows(self.checkpoint(), group))
        keys = np.concatenate([part.keys for part in parts])
        order = np.argsort(keys)
        values, state = (np.concatenate([getattr(part, name) for part in parts])[order] for name in ("values", "state"))
        return Rows(keys=keys[order], values=values, state=state, step=max(part.step for part in parts))

    def weights(self) -> dict[str, Array]:
        """Everything that was trained and its optimizer state, by name: for comparing whole runs."""
        arrays = self.dense()
        for group in range(len(self.plan.groups)):
            rows = self.rows(group)
            arrays.update({f"group {group} {name}": getattr(rows, name) for name in ("keys", "values", "state")})
        return arrays

    def logs(self) -> dict[str, tuple[Header, list[Entry]]]:
        """The event log of every process of the last attempt, by its file's name."""
        found = {}
        for path in sorted((self.attempt / LOGS).iterdir()):
            with path.open(encoding="utf-8") as lines:
                header, entries = read_log(lines)
                found[path.stem] = header, list(entries)
        return found

    def trace(self) -> Iterator[Record]:
        """The records of every process of the last attempt, file by file."""
        for path in sorted((self.attempt / TRACES).iterdir()):
            yield from read_trace(path)

    def reported_staleness(self, name: str = "version", role: str = "parameter_server") -> Counter[int]:
        """The histogram that the processes reported to the coordinator."""
        histogram: Counter[int] = Counter()
        for (reporter, _), lives in self.outcome.stats.items():
            if reporter == role:
                for life in lives:
                    histogram.update({int(value): count for value, count in life[name].items()})
        return histogram

    def traced_staleness(self) -> Counter[int]:
        """The histogram of the staleness records on disk."""
        return Counter(record.version for record in self.trace() if isinstance(record, StalenessRecord))


def scenario_of(
    case: int, *overrides: str, steps: int = STEPS, ranks: int = 2, servers: int = 2, workers: int = 2, loaders: int = 1
) -> Scenario:
    """A case's scenario: a group for each sparse optimizer, some of whose bags are empty or repeat an ID; it trains in a moment."""
    one_dim = CASES[case].endswith("architecture: dlrm}")
    features = [
        {
            "name": f"{optimizer}-group",
            "count": 1 + place % 2,
            "rows": 40,
            "dim": 4 if one_dim else 3 + place,
            "ids_per_sample": (0.8, 1.5, 2.5, 2)[place],
            "pooling": POOLINGS[(case + place) % len(POOLINGS)],
            "optimizer": optimizer,
        }
        for place, optimizer in enumerate(OPTIMIZERS)
    ]
    tiers = {"nn_worker": ranks, "parameter_server": servers, "embedding_worker": workers, "loader": loaders}
    changes = [
        *SMALL,
        f"model.features={yaml.safe_dump(features, default_flow_style=True, width=10_000).strip()}",
        f"model.dense={CASES[case]}",
        *(f"cluster.tiers.{tier}.processes_per_machine={count}" for tier, count in tiers.items()),
        *overrides,
    ]
    scenario = load_scenario("planted-small", changes)
    return load_scenario("planted-small", [*changes, f"workload.samples={steps * ranks * scenario.workload.batch_size}"])


def train(scenario: Scenario, folder: Path, *, options: Options | None = None) -> Run:
    """Train a scenario in this process's coordinator, into a new run directory below `folder`."""
    run_folder = Path(tempfile.mkdtemp(prefix="run-", dir=folder))
    text = yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False)
    (run_folder / "scenario.yaml").write_text(text, encoding="utf-8")
    outcome = coordinator.run(scenario, run_folder, options=options or Options())
    return Run(scenario=scenario, folder=run_folder, outcome=outcome)


_SHARED: dict[str, Any] = {}


def shared(folders: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """What `make` makes in a folder, made once for all the processes that share the tests out (a run takes some seconds to start)."""
    if name not in _SHARED:
        base = folders.getbasetemp()
        folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        folder.mkdir(exist_ok=True)
        kept = folder / "made.pickle"
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                kept.write_bytes(pickle.dumps(make(folder)))
            _SHARED[name] = pickle.loads(kept.read_bytes())
    return cast(T, _SHARED[name])


def run_of(folders: pytest.TempPathFactory, case: int, *overrides: str, ranks: int = 2) -> Run:
    """The run of a case, trained when a test first asks for it."""
    return shared(folders, repr((case, ranks, *overrides)), lambda folder: train(scenario_of(case, *overrides, ranks=ranks), folder))


def assert_equal(run: Run, other: Run) -> None:
    """Bit for bit, optimizer state included."""
    weights, others = run.weights(), other.weights()
    assert weights.keys() == others.keys()
    assert [name for name in weights if not np.array_equal(weights[name], others[name])] == []


def differences(values: Array, reference: Array) -> Array:
    """Parts of a value's size; where it is small, of 0.01 (rows begin within 0.01 of zero) or a tenth of its row's largest."""
    largest = np.abs(reference).max(axis=-1, keepdims=True, initial=0.0)
    return np.abs(values - reference) / np.maximum(np.abs(reference), np.maximum(0.01, largest / 10))


def assert_close(name: str, values: Array, reference: Array, tolerance: float = TOLERANCE) -> None:
    """No difference above the tolerance."""
    assert values.shape == reference.shape, name
    worst = differences(values, reference)
    assert worst.max(initial=0.0) <= tolerance, f"{name}: {worst.max():.1e} at {np.unravel_index(worst.argmax(), worst.shape)}"
