"""Cuts batches with bags of any size apart and joins them.

Shapes: B samples of a batch, F features of a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from persia.data.batch import Bags, Batch


def take(number: int, blocks: Sequence[Batch], samples: int) -> tuple[Batch, list[Batch]]:
    """Return the first samples of some blocks as one batch, and the blocks that are left."""
    pieces, left = [], []
    for block in blocks:
        size = len(block.labels)
        taken = min(samples, size)
        samples -= taken
        if taken:
            pieces.append(_cut(block, 0, taken))
        if taken < size:
            left.append(_cut(block, taken, size))
    return _joined(number, pieces), left


def _cut(batch: Batch, start: int, end: int) -> Batch:
    """Return samples start..end-1 of a batch."""
    if (start, end) == (0, len(batch.labels)):
        return batch
    groups = []
    for bags in batch.groups:
        starts = bags.offsets[:-1].reshape(-1, len(batch.labels))
        ends = bags.offsets[1:].reshape(-1, len(batch.labels))
        ids = [bags.ids[low:high] for low, high in zip(starts[:, start], ends[:, end - 1], strict=True)]
        groups.append(Bags(ids=np.concatenate(ids), offsets=_offsets((ends - starts)[:, start:end])))
    return Batch(number=batch.number, labels=batch.labels[start:end], dense=batch.dense[start:end], groups=tuple(groups))


def _joined(number: int, pieces: Sequence[Batch]) -> Batch:
    """Return one batch of all samples of the pieces."""
    if len(pieces) == 1:
        return replace(pieces[0], number=number)
    groups = []
    for parts in zip(*(piece.groups for piece in pieces), strict=True):
        sizes = [np.diff(bags.offsets).reshape(-1, len(piece.labels)) for bags, piece in zip(parts, pieces, strict=True)]
        ids = [
            bags.ids[bags.offsets[feature * size.shape[1]] : bags.offsets[(feature + 1) * size.shape[1]]]
            for feature in range(len(sizes[0]))
            for bags, size in zip(parts, sizes, strict=True)
        ]
        groups.append(Bags(ids=np.concatenate(ids), offsets=_offsets(np.concatenate(sizes, axis=1))))
    return Batch(
        number=number,
        labels=np.concatenate([piece.labels for piece in pieces]),
        dense=np.concatenate([piece.dense for piece in pieces]),
        groups=tuple(groups),
    )


def _offsets(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the offsets of bags with these numbers of IDs, int32[F, B]."""
    offsets = np.zeros(counts.size + 1, dtype=np.int32)
    np.cumsum(counts.reshape(-1), out=offsets[1:])
    return offsets
