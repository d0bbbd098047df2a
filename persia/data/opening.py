"""Opens the data set that a scenario names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from persia.data.adult import DENSE_COLUMNS, ID_COLUMNS, Adult
from persia.data.batch import ID_LIMIT, DataError, DataSet, FeatureGroup, OnBadRow
from persia.data.criteo import DENSE_FEATURES, ID_FEATURES, CriteoTsv
from persia.data.synthetic import Synthetic

# Kind of a data set that is read from files -> its ID features and its dense features.
FILE_SHAPES = {"criteo-tsv": (ID_FEATURES, DENSE_FEATURES), "adult": (len(ID_COLUMNS), len(DENSE_COLUMNS))}


def open_data(
    *,
    kind: str,
    path: str | Path | None,
    batch_size: int,
    groups: Sequence[FeatureGroup],
    dense_features: int,
    seed: int,
    held_out_samples: int,
    on_bad_row: OnBadRow,
    distinct_batches: int | None,
) -> DataSet:
    """Return a data set whose batches fit the model.

    Args:
        kind: `synthetic`, `criteo-tsv` or `adult`.
        path: file or folder, relative to the working directory; None for synthetic data.
        batch_size: samples of a batch.
        groups: the model's feature groups; a file's ID columns are dealt out to them in order.
        dense_features: dense features of a sample.
        seed: of everything that is drawn; files are read in their order.
        held_out_samples: at most so many samples are held out; with 0 a Criteo log is trained whole.
        on_bad_row: whether a row that cannot be read ends the run or is counted and left out.
        distinct_batches: draw only so many synthetic batches and repeat them; None draws every one.

    Raises:
        DataError: unknown kind, missing or foreign files, or features that the files do not have.
    """
    if batch_size < 1:
        raise DataError(f"a batch of {batch_size} samples; expected at least 1. Raise workload.batch_size.")
    if kind == "synthetic":
        for group in groups:
            if not 1 <= group.rows <= ID_LIMIT:
                raise DataError(f"a feature of {group.rows:,} rows; expected 1 to 2^48. Change model.features[].rows.")
        if distinct_batches is not None and distinct_batches < 1:
            raise DataError(f"{distinct_batches} distinct batches; expected at least 1. Change workload.data.distinct_batches.")
        return Synthetic(
            batch_size=batch_size,
            groups=groups,
            dense_features=dense_features,
            seed=seed,
            held_out_samples=held_out_samples,
            distinct_batches=distinct_batches,
        )
    if kind not in FILE_SHAPES:
        raise DataError(f"unknown data set {kind!r}; expected synthetic, {' or '.join(FILE_SHAPES)}. Set workload.data.kind.")
    if not path:
        raise DataError(f"data of kind {kind} without a path. Set workload.data.path.")
    shape = sum(group.features for group in groups), dense_features
    if shape != FILE_SHAPES[kind]:
        wanted = FILE_SHAPES[kind]
        raise DataError(
            f"a model of {shape[0]} categorical and {shape[1]} dense features; {kind} has {wanted[0]} and {wanted[1]}. "
            "Change model.features[].count and model.dense.dense_features."
        )
    opened = CriteoTsv if kind == "criteo-tsv" else Adult
    return opened(path=Path(path), batch_size=batch_size, groups=groups, held_out_samples=held_out_samples, on_bad_row=on_bad_row)
