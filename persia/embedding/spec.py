"""What an embedding table is: its rows, its optimizer, its capacity; and rows on their way in or out of one.

Shapes: M rows, D dimensions of an embedding, K floats of optimizer state in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from typing import Any, Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

Optimizer = Literal["sgd", "adagrad", "rowwise-adagrad", "adam"]

OPTIMIZERS: Final[tuple[str, ...]] = get_args(Optimizer)
KEY_BYTES: Final = 8
LINK_BYTES: Final = 8  # previous and next slot of the least-recently-used list
BUCKET_BYTES: Final = 8
BUCKETS_PER_ROW: Final = 1.5  # linear probing stays within a cache line at two thirds of a full index
CAPACITY_ROWS_MAX: Final = 2**31 - 2  # slots are 32-bit words


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """One embedding table: `capacity_rows` rows of `dim` values, and how they start, train and leave.

    `bytes_per_parameter` is 4 (fp32) or 2 (fp16 values; optimizer state stays fp32).  A row starts uniform in
    (-init_bound, init_bound), drawn from `seed` and its key alone.  `admission_probability` is the chance that a lookup
    of an unknown key inserts it.  Raises ValueError for values that no table can have.
    """

    name: str
    dim: int
    optimizer: Optimizer
    learning_rate: float
    capacity_rows: int
    seed: int
    bytes_per_parameter: int = 4
    init_bound: float = 0.01
    admission_probability: float = 1.0

    def __post_init__(self) -> None:
        checks = (
            (self.dim >= 1, f"dim must be at least 1, not {self.dim}"),
            (self.optimizer in OPTIMIZERS, f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}"),
            (isfinite(self.learning_rate), f"learning_rate must be finite, not {self.learning_rate}"),
            (
                1 <= self.capacity_rows <= CAPACITY_ROWS_MAX,
                f"capacity_rows must be 1 to {CAPACITY_ROWS_MAX:,}, not {self.capacity_rows:,}: use more servers or shards",
            ),
            (0 <= self.seed < 2**63, f"seed must be 0 to 2**63 - 1, not {self.seed}"),
            (self.bytes_per_parameter in (2, 4), f"bytes_per_parameter must be 2 or 4, not {self.bytes_per_parameter}"),
            (isfinite(self.init_bound) and self.init_bound >= 0, f"init_bound must be finite and >= 0, not {self.init_bound}"),
            (0.0 <= self.admission_probability <= 1.0, f"admission_probability must be 0 to 1, not {self.admission_probability}"),
        )
        for holds, complaint in checks:
            if not holds:
                raise ValueError(f"table {self.name!r}: {complaint}")

    @property
    def state_dim(self) -> int:
        """The floats of optimizer state in a row."""
        return {"sgd": 0, "adagrad": self.dim, "rowwise-adagrad": 1, "adam": 2 * self.dim}[self.optimizer]

    @property
    def value_floats(self) -> int:
        """The 4-byte words that a row's values take; an odd number of fp16 values is padded."""
        return (self.dim * self.bytes_per_parameter + 3) // 4

    @property
    def row_floats(self) -> int:
        """The 4-byte words of a row: its values, then its state."""
        return self.value_floats + self.state_dim

    @property
    def buckets(self) -> int:
        """The buckets of the hash index."""
        return int(self.capacity_rows * BUCKETS_PER_ROW) + 8

    @property
    def bytes_per_row(self) -> float:
        """The bytes that a row takes in a full table: values, state, key, links and its share of the index."""
        return 4 * self.row_floats + KEY_BYTES + LINK_BYTES + BUCKET_BYTES * BUCKETS_PER_ROW

    def with_capacity_bytes(self, capacity_bytes: float) -> Self:
        """Return this spec with as many rows as fit into `capacity_bytes`; ValueError where not one fits."""
        return replace(self, capacity_rows=min(int(capacity_bytes / self.bytes_per_row), CAPACITY_ROWS_MAX))

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the spec that `to_json` wrote; ValueError for missing or foreign fields and for wrong types."""
        wanted = {field.name for field in fields(cls)}
        if set(values) != wanted:
            raise ValueError(f"a table's spec has the fields {sorted(wanted)}, not {sorted(values)}")
        texts, reals = {"name", "optimizer"}, {"learning_rate", "init_bound", "admission_probability"}
        for name, value in values.items():
            kinds: tuple[type, ...] = (str,) if name in texts else (int, float) if name in reals else (int,)
            if not isinstance(value, kinds) or isinstance(value, bool):
                raise ValueError(f"a table's spec: {name} must be {kinds[-1].__name__}, not {value!r}")
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of a table, the least recently used first: a checkpoint's content.

    Shapes: `keys` u64[M], `values` f32 or f16[M, D], `state` f32[M, K].  `step` is the number of updates the table had
    seen (Adam's bias correction needs it).
    """

    keys: npt.NDArray[np.uint64]
    values: npt.NDArray[Any]
    state: npt.NDArray[np.float32]
    step: int = 0
