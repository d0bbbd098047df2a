"""Writes logs in Criteo's layout and reads them the plain way, row by row."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from persia.data import Batch, DataSet, FeatureGroup, open_data
from persia.data.criteo import HELD_OUT_EVERY

GROUPS = (
    FeatureGroup(features=10, rows=1000, ids_per_sample=1, zipf=1),
    FeatureGroup(features=16, rows=1000, ids_per_sample=1, zipf=1),
)
Row = tuple[float, list[float], list[int]]


def lines(count: int, seed: int = 1) -> list[str]:
    """Rows of random fields, a fifth of them empty."""
    generator = np.random.default_rng(seed)
    numbers = generator.integers(-2, 100_000, (count, 13))
    categories = generator.integers(0, 1 << 32, (count, 26))
    found = []
    for row in range(count):
        fields = [*(str(number) for number in numbers[row]), *(f"{category:08x}" for category in categories[row])]
        kept = ["" if empty else field for field, empty in zip(fields, generator.random(39) < 0.2, strict=True)]
        found.append("\t".join([str(generator.integers(0, 2)), *kept]))
    return found


def write(path: Path, rows: Sequence[str]) -> Path:
    """Write lines, compressed where the name ends in .gz."""
    data = "".join(f"{row}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, compresslevel=1) if path.suffix == ".gz" else data)
    return path


def criteo(path: Path, *, batch_size: int = 10, held_out_samples: int = 1000, on_bad_row: Literal["error", "skip"] = "error") -> DataSet:
    """Open a log."""
    return open_data(
        kind="criteo-tsv",
        path=path,
        batch_size=batch_size,
        groups=GROUPS,
        dense_features=13,
        seed=1,
        held_out_samples=held_out_samples,
        on_bad_row=on_bad_row,
        distinct_batches=None,
    )


def read_plainly(line: str) -> Row:
    """One row by the obvious code; raises ValueError for a bad one."""
    label, *fields = line.split("\t")
    if label not in ("0", "1") or len(fields) != 39:
        raise ValueError(line)
    dense = [float(np.log1p(np.float32(max(int(field or 0), 0)))) for field in fields[:13]]
    return float(label), dense, [int(field, 16) if field else 1 << 32 for field in fields[13:]]


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a log of these files holds, line for line."""

    trained: list[Row]
    held_out: list[Row]


def expected(*files: Sequence[str]) -> Expected:
    """Read files the plain way; rows that cannot be read are left out."""
    trained, held_out = [], []
    for file in files:
        for number, line in enumerate(file, start=1):
            try:
                row = read_plainly(line)
            except ValueError:
                continue
            (held_out if number % HELD_OUT_EVERY == 0 else trained).append(row)
    return Expected(trained=trained, held_out=held_out)


def assert_holds(batch: Batch, rows: Sequence[Row]) -> None:
    """A batch holds just these rows."""
    size = len(rows)
    assert batch.labels.tolist() == [label for label, _, _ in rows]
    assert batch.labels.dtype == batch.dense.dtype == np.float32
    np.testing.assert_allclose(batch.dense, np.array([dense for _, dense, _ in rows]).reshape(size, 13), rtol=1e-6)
    first = 0
    for group, bags in zip(GROUPS, batch.groups, strict=True):
        assert bags.offsets.tolist() == list(range(group.features * size + 1))
        assert bags.ids.dtype == np.int64
        assert bags.ids.tolist() == [ids[feature] for feature in range(first, first + group.features) for _, _, ids in rows]
        first += group.features
