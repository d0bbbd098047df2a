"""A slice of the dense parameters on a parameter server (mode async): applies each rank's gradients, once, in arrival order.

Two copies of everything that changes lie in one memory-mapped file. An update writes the copy that is not valid, all of
it, and then flips one 8-byte word that says which is. A process killed at any instruction leaves one whole copy: that of
before the update or that of after it, the last applied batch of each rank included. Mapped pages outlive the process,
not the machine.

Shapes: P parameters of the slice, R ranks.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

FORMAT_VERSION: Final = 1
_MANIFEST: Final = "dense.json"
_DATA: Final = "dense.bin"
_PAGE_BYTES: Final = 4096
_NONE_APPLIED: Final = -(2**63)  # below every batch
_BLOCK: Final = 1 << 14  # parameters updated at a time: what an optimizer reads and writes of them fits in a core's cache
_STATES: Final[dict[str, tuple[str, ...]]] = {"sgd": (), "adagrad": ("sum",), "adam": ("exp_avg", "exp_avg_sq")}
_ADAGRAD_EPSILON: Final = 1e-10
_ADAM_BETAS: Final = (0.9, 0.999)
_ADAM_EPSILON: Final = 1e-8

OptimizerKind = Literal["sgd", "adagrad", "adam"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    format_version: int
    optimizer: OptimizerKind
    learning_rate: float
    ranks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copy:
    """One of the two copies: `applied` int64 [R], `step` int64 [1], `values` and each state fp32 [P]."""

    applied: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    values: Floats
    states: tuple[Floats, ...]


class DenseShard:
    """One server's slice; make one with `create` or `attach`. Not thread-safe."""

    def __init__(self, manifest: _Manifest, folder: Path | None) -> None:
        self._manifest = manifest
        self._folder = folder
        self._map: mmap.mmap | None = None
        self._size = 0
        self._active: npt.NDArray[np.int64] = np.zeros(1, np.int64)
        self._copies: tuple[_Copy, ...] = ()

    @classmethod
    def create(cls, folder: Path | None, *, optimizer: OptimizerKind, learning_rate: float, ranks: int) -> Self:
        """Make an empty shard in private memory (`folder` None) or in a folder, replacing what an earlier one left there.

        Raises:
            ValueError: An unknown optimizer, a learning rate that is not positive, fewer than one rank.
        """
        if optimizer not in _STATES:
            raise ValueError(f"optimizer: one of {', '.join(_STATES)}; got {optimizer!r}")
        if not learning_rate > 0.0 or ranks < 1:
            raise ValueError(f"learning_rate must be positive, ranks at least 1; got {learning_rate} and {ranks}")
        manifest = _Manifest(format_version=FORMAT_VERSION, optimizer=optimizer, learning_rate=learning_rate, ranks=ranks)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_MANIFEST, _DATA):
                (folder / name).unlink(missing_ok=True)
            _write(folder / _MANIFEST, json.dumps(asdict(manifest)).encode())
        return cls(manifest, folder)

    @classmethod
    def attach(cls, folder: Path) -> Self:
        """Return the shard that a process, dead or alive no longer, left in a folder.

        Raises:
            ValueError: There is none, or it is damaged or of another version.
        """
        try:
            manifest = _Manifest(**json.loads((folder / _MANIFEST).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{folder}: no dense shard to attach to ({error})") from error
        if manifest.format_version != FORMAT_VERSION:
            raise ValueError(f"{folder}: a dense shard of format {manifest.format_version}; this program reads {FORMAT_VERSION}")
        shard = cls(manifest, folder)
        if (folder / _DATA).exists():
            shard._open()
        return shard

    @property
    def initialised(self) -> bool:
        """Return whether the shard has its parameters."""
        return bool(self._copies)

    def initialise(self, values: npt.ArrayLike) -> None:
        """Take the first parameters [P]; a shard that has some keeps its own.

        Raises:
            ValueError: Not a vector, empty, or of another size than those it has.
        """
        given = np.asarray(values, dtype=np.float32)
        if given.ndim != 1 or not len(given):
            raise ValueError(f"dense parameters of shape {list(given.shape)}; expected a vector of at least one")
        if self.initialised:
            self._check_size("dense parameters", given)
            return
        self._begin(given, tuple(np.zeros_like(given) for _ in self._state_names), step=0)

    def apply(self, rank: int, batch: int, gradient: npt.ArrayLike) -> bool:
        """Step the optimizer with a rank's gradient [P]; return False, and change nothing, if it was applied before.

        `batch` is the last batch in the gradient: a repetition is known by a batch not above that rank's last.

        Raises:
            ValueError: A rank that is not one of the shard's, a gradient of another size, or no parameters yet.
        """
        if not 0 <= rank < self._manifest.ranks:
            raise ValueError(f"rank {rank} of {self._manifest.ranks}")
        old, new = self._current(), self._copies[1 - int(self._active[0])]
        given = np.asarray(gradient, dtype=np.float32)
        self._check_size("a dense gradient", given)
        if batch <= old.applied[rank]:
            return False
        new.applied[:] = old.applied
        new.applied[rank] = batch
        new.step[0] = old.step[0] + 1
        step = _OPTIMIZERS[self._manifest.optimizer]
        for low in range(0, self._size, _BLOCK):
            step(self._manifest.learning_rate, int(new.step[0]), slice(low, low + _BLOCK), given, old, new)
        self._active[0] ^= 1
        return True

    def values(self) -> Floats:
        """Return a copy of the parameters [P]; raises ValueError where there are none yet."""
        return self._current().values.copy()

    def last_applied(self, rank: int) -> int | None:
        """Return the last batch applied of a rank, or None."""
        last = int(self._current().applied[rank]) if self.initialised else _NONE_APPLIED
        return None if last == _NONE_APPLIED else last

    def export(self) -> dict[str, Array]:
        """Return copies for a checkpoint, each an array [P] that can be joined and cut as the parameters are; {} if there are none.

        `values` and the optimizer's state have torch's meaning; `step` int32 is how often each parameter was stepped.
        """
        if not self.initialised:
            return {}
        copy = self._current()
        arrays: dict[str, Array] = {"values": copy.values.copy()}
        arrays.update({name: state.copy() for name, state in zip(self._state_names, copy.states, strict=True)})
        arrays["step"] = np.full(self._size, copy.step[0], np.int32)
        return arrays

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take what `export` returned, cut to this server's slice, instead of all the shard has; no batch counts as applied.

        Parameters that came from servers which were not stepped equally often all get the largest step.

        Raises:
            ValueError: Names of another optimizer, or arrays of unequal or wrong sizes.
        """
        wanted = ("values", *self._state_names, "step")
        if set(arrays) != set(wanted):
            raise ValueError(f"a dense shard of {self._manifest.optimizer} has {', '.join(wanted)}; got {', '.join(sorted(arrays))}")
        shapes = {arrays[name].shape for name in wanted}
        if len(shapes) != 1 or arrays["values"].ndim != 1 or not len(arrays["values"]):
            raise ValueError(f"arrays of a dense shard must be vectors of one size; got {sorted(map(list, shapes))}")
        values, *states = (np.asarray(arrays[name], dtype=np.float32) for name in wanted[:-1])
        self._close_map()
        if self._folder is not None:
            (self._folder / _DATA).unlink(missing_ok=True)
        self._begin(values, tuple(states), step=int(arrays["step"].max()))

    def close(self) -> None:
        """Unmap the file; the shard can be attached to again."""
        self._close_map()

    @property
    def _state_names(self) -> tuple[str, ...]:
        return _STATES[self._manifest.optimizer]

    def _current(self) -> _Copy:
        if not self._copies:
            raise ValueError("the dense shard has no parameters yet: initialise it first")
        return self._copies[int(self._active[0])]

    def _check_size(self, what: str, given: Array) -> None:
        if given.shape != (self._size,):
            raise ValueError(f"{what} of shape {list(given.shape)}; the shard holds {self._size} parameters")

    # --- memory: a page with the active copy's number and P, then two copies ----------------------------------

    def _copy_bytes(self, size: int) -> int:
        applied_bytes = 8 * (self._manifest.ranks + 1)
        return _pages(applied_bytes) + (1 + len(self._state_names)) * _pages(4 * size)

    def _begin(self, values: Floats, states: tuple[Floats, ...], *, step: int) -> None:
        """Make copy 0 of these arrays; in a folder the file gets its name when it is whole."""
        size_bytes = _PAGE_BYTES + 2 * self._copy_bytes(len(values))
        if self._folder is None:
            self._adopt(mmap.mmap(-1, size_bytes), len(values))
        else:
            partial = self._folder / f".{_DATA}.partial"
            with partial.open("wb+") as file:
                _reserve(file.fileno(), size_bytes)
                self._adopt(mmap.mmap(file.fileno(), size_bytes), len(values))
        copy = self._copies[0]
        copy.applied.fill(_NONE_APPLIED)
        copy.step[0] = step
        copy.values[:] = values
        for own, state in zip(copy.states, states, strict=True):
            own[:] = state
        if self._folder is not None:
            (self._folder / f".{_DATA}.partial").rename(self._folder / _DATA)

    def _open(self) -> None:
        assert self._folder is not None
        path = self._folder / _DATA
        with path.open("rb+") as file:
            mapped = mmap.mmap(file.fileno(), 0)
        size = int(np.frombuffer(mapped, np.int64, 1, 8)[0])
        if size < 1 or len(mapped) != _PAGE_BYTES + 2 * self._copy_bytes(size):
            raise ValueError(f"{path}: {len(mapped)} bytes are not a dense shard of {size} parameters")
        self._adopt(mapped, size)

    def _adopt(self, mapped: mmap.mmap, size: int) -> None:
        """Lay the arrays over the mapped bytes."""
        self._map, self._size = mapped, size
        self._active = np.frombuffer(mapped, np.int64, 1, 0)
        np.frombuffer(mapped, np.int64, 1, 8)[0] = size
        self._copies = tuple(self._lay_copy(mapped, _PAGE_BYTES + index * self._copy_bytes(size), size) for index in range(2))

    def _lay_copy(self, mapped: mmap.mmap, start: int, size: int) -> _Copy:
        ranks = self._manifest.ranks
        words = np.frombuffer(mapped, np.int64, ranks + 1, start)
        first = start + _pages(8 * (ranks + 1))
        vectors = [np.frombuffer(mapped, np.float32, size, first + index * _pages(4 * size)) for index in range(1 + len(self._state_names))]
        return _Copy(applied=words[:ranks], step=words[ranks:], values=vectors[0], states=tuple(vectors[1:]))

    def _close_map(self) -> None:
        """Drop the arrays, which hold the map open, and with the last of them the map itself."""
        self._copies, self._size, self._active, self._map = (), 0, np.zeros(1, np.int64), None


def _pages(size_bytes: int) -> int:
    return -(-size_bytes // _PAGE_BYTES) * _PAGE_BYTES


def _reserve(descriptor: int, size_bytes: int) -> None:
    """Take the file's space now: a full disk is then an OSError and not a dead process."""
    os.posix_fallocate(descriptor, 0, size_bytes)


def _write(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    partial.rename(path)


# --- optimizers: torch's formulas, in fp32; each reads the old copy and writes the new one ------------------------


def _sgd(learning_rate: float, step: int, part: slice, gradient: Floats, old: _Copy, new: _Copy) -> None:
    """Torch.optim.SGD: p -= lr g."""
    np.subtract(old.values[part], np.float32(learning_rate) * gradient[part], out=new.values[part])


def _adagrad(learning_rate: float, step: int, part: slice, gradient: Floats, old: _Copy, new: _Copy) -> None:
    """Torch.optim.Adagrad: s += g^2, p -= lr g / (sqrt(s) + eps)."""
    g, total = gradient[part], new.states[0][part]
    np.add(old.states[0][part], g * g, out=total)
    root = np.sqrt(total)
    root += np.float32(_ADAGRAD_EPSILON)
    np.divide(g, root, out=root)
    root *= np.float32(learning_rate)
    np.subtract(old.values[part], root, out=new.values[part])


def _adam(learning_rate: float, step: int, part: slice, gradient: Floats, old: _Copy, new: _Copy) -> None:
    """Torch.optim.Adam: m and v are running means of g and g^2, p -= lr m' / (sqrt(v') + eps), bias corrected."""
    first, second = _ADAM_BETAS
    g, mean, square = gradient[part], new.states[0][part], new.states[1][part]
    moved = g - old.states[0][part]
    moved *= np.float32(1.0 - first)
    np.add(old.states[0][part], moved, out=mean)
    np.multiply(g, g, out=moved)
    moved *= np.float32(1.0 - second)
    np.multiply(old.states[1][part], np.float32(second), out=square)
    square += moved
    root = np.sqrt(square, out=moved)
    root /= np.float32(sqrt(1.0 - second**step))
    root += np.float32(_ADAM_EPSILON)
    np.divide(mean, root, out=root)
    root *= np.float32(learning_rate / (1.0 - first**step))
    np.subtract(old.values[part], root, out=new.values[part])


_OPTIMIZERS: Final[dict[str, Callable[[float, int, slice, Floats, _Copy, _Copy], None]]] = {
    "sgd": _sgd,
    "adagrad": _adagrad,
    "adam": _adam,
}
