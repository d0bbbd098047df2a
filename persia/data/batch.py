"""What every data set gives: batches of samples, and the words they are described in.

Shapes: B samples of a batch, D dense features, F features of a group, N IDs of a group in a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

OnBadRow = Literal["error", "skip"]
# A key holds the feature in its upper 16 bits and the ID in the others; offsets are 32 bits wide.
ID_LIMIT = 1 << 48
MOST_IDS = (1 << 31) - 1


class DataError(ValueError):
    """A data set cannot be read as the scenario asks; the message names file and line, and says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGroup:
    """Identical categorical features: how many, the IDs of each, and for synthetic data how many a sample has and how they are spread."""

    features: int
    rows: int
    ids_per_sample: float
    zipf: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bags:
    """The IDs of one feature group in a batch, feature-major: all samples of the first feature, then of the second, ...

    Shapes: ids int64[N]; offsets int32[F*B+1]. Feature f of sample s has ids[offsets[f*B+s]:offsets[f*B+s+1]], which may
    be none, and may hold an ID twice.
    """

    ids: NDArray[np.int64]
    offsets: NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Samples that are trained or evaluated at once.

    Shapes: labels f32[B], 0 or 1; dense f32[B, D]; one Bags for every feature group, in the order of the groups.
    """

    number: int
    labels: NDArray[np.float32]
    dense: NDArray[np.float32]
    groups: tuple[Bags, ...]


class DataSet(Protocol):
    """Batches to train, in an order that never changes, and samples that are never trained."""

    @property
    def samples(self) -> int | None:
        """Samples that one pass trains, a whole number of batches; None: endless."""
        ...

    @property
    def bad_rows(self) -> int:
        """Rows of the files skipped so far, each counted once."""
        ...

    def batch(self, number: int) -> Batch:
        """Return a batch of the endless repetition of the training split.

        A batch never holds samples of two passes: the last samples of a pass that do not fill a batch are left out.
        Any number may be asked for; growing numbers, with or without gaps, are quick.
        """
        ...

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Give the samples that are never trained, always the same ones; the last batch may be short."""
        ...

    def best_auc(self) -> float | None:
        """Return the AUC of the true probabilities on the held-out samples, where they are known."""
        ...


def one_id_bags(ids: NDArray[np.int64], groups: Sequence[FeatureGroup]) -> tuple[Bags, ...]:
    """Return the bags of samples with exactly one ID of each feature; ids int64[all features, B]."""
    bags = []
    first = 0
    for group in groups:
        last = first + group.features
        offsets = np.arange(group.features * ids.shape[1] + 1, dtype=np.int32)
        bags.append(Bags(ids=np.ascontiguousarray(ids[first:last]).reshape(-1), offsets=offsets))
        first = last
    return tuple(bags)
