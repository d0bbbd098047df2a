"""A slice of the dense vector on a server: torch's optimizers, every batch once, alive after SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from persia.runtime.dense_shard import DenseShard, OptimizerKind

ROOT = Path(__file__).resolve().parents[2]
KINDS: tuple[OptimizerKind, ...] = ("sgd", "adagrad", "adam")
SIZE = 40_000  # more than two of the blocks in which a shard is updated


def gradient_of(rank: int, batch: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng([rank, batch]).standard_normal(size).astype(np.float32)


def shard_of(folder: Path | None, kind: OptimizerKind, *, ranks: int = 2, size: int = SIZE) -> DenseShard:
    shard = DenseShard.create(folder, optimizer=kind, learning_rate=0.05, ranks=ranks)
    shard.initialise(np.linspace(-1.0, 1.0, size, dtype=np.float32))
    return shard


def state_of(shard: DenseShard) -> dict[str, np.ndarray]:
    return {**shard.export(), "applied": np.array([shard.last_applied(rank) for rank in range(2)])}


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("kind", KINDS)
def test_formulas_are_those_of_torch(kind: OptimizerKind) -> None:
    torch = pytest.importorskip("torch")
    shard = shard_of(None, kind)
    parameter = torch.nn.Parameter(torch.from_numpy(shard.values()))
    makers = {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam}
    optimizer = makers[kind]([parameter], lr=0.05)
    for batch in range(30):
        gradient = gradient_of(batch % 2, batch)
        gradient[::7] = 0.0
        assert shard.apply(batch % 2, batch, gradient)
        parameter.grad = torch.from_numpy(gradient)
        optimizer.step()
    np.testing.assert_allclose(shard.values(), parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repetition_changes_nothing(kind: OptimizerKind) -> None:
    shard = shard_of(None, kind)
    assert shard.apply(0, 4, gradient_of(0, 4))
    before = state_of(shard)
    assert not shard.apply(0, 4, gradient_of(0, 4))
    assert not shard.apply(0, 2, gradient_of(0, 2))
    assert same(before, state_of(shard))
    assert shard.apply(1, 1, gradient_of(1, 1)), "each rank counts its own batches"
    assert (shard.last_applied(0), shard.last_applied(1)) == (4, 1)


def test_first_parameters_are_taken_once() -> None:
    shard = shard_of(None, "sgd", size=3)
    shard.initialise(np.zeros(3))
    assert shard.values().tolist() == [-1.0, 0.0, 1.0]


def test_values_are_a_copy() -> None:
    shard = shard_of(None, "sgd", size=3)
    shard.values()[:] = 7.0
    assert shard.values().tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_attached_again_it_goes_on(tmp_path: Path, kind: OptimizerKind) -> None:
    undisturbed, shard = shard_of(None, kind), shard_of(tmp_path / "dense", kind)
    for batch in range(6):
        assert undisturbed.apply(batch % 2, batch, gradient_of(batch % 2, batch))
        assert shard.apply(batch % 2, batch, gradient_of(batch % 2, batch))
        shard.close()
        shard = DenseShard.attach(tmp_path / "dense")
    assert same(state_of(undisturbed), state_of(shard))


def test_attached_before_its_first_parameters(tmp_path: Path) -> None:
    DenseShard.create(tmp_path, optimizer="adam", learning_rate=0.1, ranks=3)
    shard = DenseShard.attach(tmp_path)
    assert not shard.initialised
    assert shard.export() == {}
    assert shard.last_applied(2) is None
    shard.initialise(np.ones(5))
    assert DenseShard.attach(tmp_path).values().tolist() == [1.0] * 5


def test_created_anew_it_is_empty(tmp_path: Path) -> None:
    shard_of(tmp_path, "sgd")
    assert not DenseShard.create(tmp_path, optimizer="adam", learning_rate=0.1, ranks=1).initialised
    assert not DenseShard.attach(tmp_path).initialised


HAMMER = """
import itertools, sys
from pathlib import Path
import numpy as np
from persia.runtime.dense_shard import DenseShard

shard = DenseShard.attach(Path(sys.argv[1]))
print("attached", flush=True)
for batch in itertools.count((shard.last_applied(0) or 0) + 1):
    shard.apply(0, batch, np.random.default_rng([0, batch]).standard_normal(40_000).astype(np.float32))
"""


@pytest.mark.parametrize("kind", ["adam"])
def test_killed_at_any_moment_every_batch_counts_once(tmp_path: Path, kind: OptimizerKind) -> None:
    shard_of(tmp_path, kind).close()
    model, done = shard_of(None, kind), 0
    delays_s = np.random.default_rng(5).uniform(0.0, 0.03, 12)
    for delay_s in delays_s:
        command = [sys.executable, "-c", HAMMER, str(tmp_path)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        time.sleep(delay_s)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        shard = DenseShard.attach(tmp_path)
        last = shard.last_applied(0) or 0
        for batch in range(done + 1, last + 1):
            model.apply(0, batch, gradient_of(0, batch))
        done = last
        assert same(state_of(model), state_of(shard)), f"after batch {last}"
    assert done > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_can_be_cut_for_other_servers(kind: OptimizerKind) -> None:
    whole = shard_of(None, kind, size=7)
    whole.apply(0, 3, gradient_of(0, 3, 7))
    exported = whole.export()
    parts = []
    for part in (slice(0, 3), slice(3, 7)):
        shard = DenseShard.create(None, optimizer=kind, learning_rate=0.05, ranks=1)
        shard.restore({name: array[part] for name, array in exported.items()})
        assert shard.last_applied(0) is None
        assert shard.apply(0, 0, gradient_of(0, 4, 7)[part])
        parts.append(shard.values())
    whole.apply(0, 4, gradient_of(0, 4, 7))
    assert np.array_equal(np.concatenate(parts), whole.values())


def test_restored_into_a_folder_it_replaces_what_was_there(tmp_path: Path) -> None:
    shard = shard_of(tmp_path, "adagrad", size=7)
    other = shard_of(None, "adagrad", size=5)
    other.apply(1, 9, gradient_of(1, 9, 5))
    shard.restore(other.export())
    assert np.array_equal(DenseShard.attach(tmp_path).values(), other.values())


def test_wrong_sizes_and_names_are_refused(tmp_path: Path) -> None:
    shard = shard_of(None, "adam", size=3)
    with pytest.raises(ValueError, match="holds 3 parameters"):
        shard.initialise(np.zeros(4))
    with pytest.raises(ValueError, match="holds 3 parameters"):
        shard.apply(0, 0, np.zeros(2))
    with pytest.raises(ValueError, match="rank 2 of 2"):
        shard.apply(2, 0, np.zeros(3))
    with pytest.raises(ValueError, match="expected a vector"):
        shard_of(None, "sgd", size=0)
    with pytest.raises(ValueError, match="initialise it first"):
        DenseShard.create(None, optimizer="sgd", learning_rate=0.1, ranks=1).values()
    with pytest.raises(ValueError, match="exp_avg"):
        shard.restore(shard_of(None, "sgd").export())
    with pytest.raises(ValueError, match="one size"):
        shard.restore({**shard.export(), "step": np.zeros(2, np.int32)})
    with pytest.raises(ValueError, match="sgd, adagrad, adam"):
        DenseShard.create(None, optimizer="lamb", learning_rate=0.1, ranks=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        DenseShard.create(None, optimizer="sgd", learning_rate=0.0, ranks=1)
    with pytest.raises(ValueError, match="no dense shard"):
        DenseShard.attach(tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    shard_of(tmp_path, "sgd").close()
    data = tmp_path / "dense.bin"
    data.write_bytes(data.read_bytes()[:8192])
    with pytest.raises(ValueError, match="are not a dense shard"):
        DenseShard.attach(tmp_path)
