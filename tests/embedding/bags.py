"""Batches for the tests of the embedding worker's kernels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """The ids of one group's batch, feature-major: ids int64[N], offsets int32[F * B + 1]."""

    features: int
    batch: int
    ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int32]

    @property
    def counts(self) -> npt.NDArray[np.int32]:
        """Ids of each bag: int32[F * B]."""
        return np.diff(self.offsets)

    @property
    def bag_of(self) -> npt.NDArray[np.int64]:
        """Each occurrence's bag: int64[N]."""
        return np.repeat(np.arange(self.features * self.batch), self.counts)

    @property
    def feature_of(self) -> npt.NDArray[np.int64]:
        """Each occurrence's feature: int64[N]."""
        return self.bag_of // self.batch


def bags_of(features: int, batch: int, bags: list[list[int]]) -> Bags:
    counts = [len(bag) for bag in bags]
    return Bags(
        features=features,
        batch=batch,
        ids=np.array([one for bag in bags for one in bag], np.int64),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
    )


def random_bags(seed: int, *, features: int, batch: int, ids_max: int, bag_max: int) -> Bags:
    """A batch with bags of 0 to `bag_max` ids, the small ones often."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, bag_max + 1, features * batch)
    ids = (ids_max * generator.random(counts.sum()) ** 3).astype(np.int64)
    return Bags(features=features, batch=batch, ids=ids, offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))


@st.composite
def any_bags(draw: st.DrawFn) -> Bags:
    features, batch = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    identity = st.one_of(st.integers(0, 5), st.integers(0, 2**48 - 1))
    bag = st.lists(identity, max_size=6)
    return bags_of(features, batch, draw(st.lists(bag, min_size=features * batch, max_size=features * batch)))
