"""UCI Adult (census income): does a person earn more than 50,000 dollars a year?

A folder with `adult.data`, whose rows are trained in the order of the file, and `adult.test`, which is held out. Eight
columns are ID features: an ID is the place of the column's value among those of the training rows, in the order of
their first appearance; `?` is a value like any other, and a value that only test rows have gets UNSEEN_ID. Five columns
are dense features: capital gain and loss as log(1 + x), then all standardised with mean and deviation of the training rows.

Shapes: R rows of a file, B samples of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persia.data.batch import Batch, DataError, FeatureGroup, OnBadRow, one_id_bags

COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation", "relationship", "race"),
    *("gender", "capital_gain", "capital_loss", "hours_per_week", "native_country", "income_bracket"),
)
ID_COLUMNS = ("workclass", "education", "marital_status", "occupation", "relationship", "race", "gender", "native_country")
DENSE_COLUMNS = ("age", "education_num", "capital_gain", "capital_loss", "hours_per_week")
UNSEEN_ID = 1 << 32
_LOGARITHMIC = [name in ("capital_gain", "capital_loss") for name in DENSE_COLUMNS]
# The test file writes a full stop behind a label.
_LABELS = {"<=50K": 0.0, ">50K": 1.0, "<=50K.": 0.0, ">50K.": 1.0}
_FOREIGN = "Point workload.data.path at the folder that holds adult.data and adult.test of the UCI Machine Learning Repository."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The good rows of a file: labels f32[R], dense f32[R, 5], words of the ID columns, 8 lists of R."""

    labels: NDArray[np.float32]
    dense: NDArray[np.float32]
    words: list[list[str]]
    bad: int


class Adult:
    """The whole data set in memory: a few megabytes."""

    def __init__(self, *, path: Path, batch_size: int, groups: Sequence[FeatureGroup], held_out_samples: int, on_bad_row: OnBadRow) -> None:
        trained = _read(path / "adult.data", on_bad_row)
        tested = _read(path / "adult.test", on_bad_row)
        self._batch_size = batch_size
        self._groups = tuple(groups)
        self._batches = len(trained.labels) // batch_size
        if self._batches == 0:
            raise DataError(
                f"{path / 'adult.data'}: {len(trained.labels):,} samples do not fill a batch of {batch_size:,}. Lower workload.batch_size."
            )
        self.bad_rows = trained.bad + tested.bad
        vocabularies = [{word: index for index, word in enumerate(dict.fromkeys(column))} for column in trained.words]
        mean, deviation = trained.dense.mean(axis=0, dtype=np.float64), trained.dense.std(axis=0, dtype=np.float64)
        deviation[deviation == 0] = 1.0
        self._trained = _encode(trained, vocabularies, mean, deviation)
        labels, dense, ids = _encode(tested, vocabularies, mean, deviation)
        self._tested = labels[:held_out_samples], dense[:held_out_samples], ids[:, :held_out_samples]

    @property
    def samples(self) -> int:
        """Samples that one pass trains."""
        return self._batches * self._batch_size

    def batch(self, number: int) -> Batch:
        """Return the batch's rows of `adult.data`."""
        start = number % self._batches * self._batch_size
        return self._cut(self._trained, number, start, self._batch_size)

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Give the rows of `adult.test`."""
        for number, start in enumerate(range(0, len(self._tested[0]), batch_size)):
            yield self._cut(self._tested, number, start, batch_size)

    def best_auc(self) -> None:
        """Nobody knows it."""
        return

    def _cut(self, rows: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], number: int, start: int, size: int) -> Batch:
        """Return some rows as a batch."""
        labels, dense, ids = rows
        some = slice(start, start + size)
        return Batch(number=number, labels=labels[some], dense=dense[some], groups=one_id_bags(ids[:, some], self._groups))


def _read(path: Path, on_bad_row: OnBadRow) -> _Rows:
    """Return the good rows of a file; empty lines, and those that begin with `|` as the original's first, are no rows."""
    labels: list[float] = []
    dense: list[list[float]] = []
    words: list[list[str]] = [[] for _ in ID_COLUMNS]
    bad = 0
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}. {_FOREIGN}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(b"|"):
            continue
        try:
            label, numbers, names = _parsed(line)
        except ValueError as error:
            if on_bad_row == "error":
                raise DataError(f"{path}:{number}: {error}. Mend the row, or set workload.data.on_bad_row to skip.") from error
            bad += 1
            continue
        labels.append(label)
        dense.append(numbers)
        for column, name in zip(words, names, strict=True):
            column.append(name)
    if not labels:
        raise DataError(f"{path}: no row of UCI Adult in {len(lines):,} lines. {_FOREIGN}")
    values = np.array(dense)
    values[:, _LOGARITHMIC] = np.log1p(values[:, _LOGARITHMIC])
    return _Rows(labels=np.array(labels, dtype=np.float32), dense=values.astype(np.float32), words=words, bad=bad)


def _parsed(line: bytes) -> tuple[float, list[float], list[str]]:
    """Return label, dense features and words of a row; raises ValueError."""
    try:
        fields = [field.strip() for field in line.decode("utf-8").split(",")]
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is no UTF-8 text") from error
    if len(fields) != len(COLUMNS):
        raise ValueError(f"{len(fields)} fields; expected {len(COLUMNS)}, separated by commas")
    row = dict(zip(COLUMNS, fields, strict=True))
    label = _LABELS.get(row["income_bracket"])
    if label is None:
        raise ValueError(f"the label is {row['income_bracket'][:40]!r}; expected '<=50K' or '>50K'")
    numbers = []
    for name in DENSE_COLUMNS:
        # No sign, point or exponent: a column of this set is a count.
        if not (row[name].isascii() and row[name].isdigit() and len(row[name]) < 10):
            raise ValueError(f"{name} is {row[name][:40]!r}; expected a whole number")
        numbers.append(float(row[name]))
    for name in ID_COLUMNS:
        if not row[name]:
            raise ValueError(f"{name} is empty; expected a word, or `?`")
    return label, numbers, [row[name] for name in ID_COLUMNS]


def _encode(
    rows: _Rows, vocabularies: Sequence[dict[str, int]], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Return labels f32[R], standardised dense features f32[R, 5] and ids int64[8, R]."""
    ids = [[vocabulary.get(word, UNSEEN_ID) for word in column] for vocabulary, column in zip(vocabularies, rows.words, strict=True)]
    return rows.labels, ((rows.dense - mean) / deviation).astype(np.float32), np.array(ids, dtype=np.int64)
