"""Click logs drawn from a planted model, so that the best reachable AUC is known.

The model is logistic. Every ID has a hidden effect, uniform, computed from a hash of seed, feature and ID: no table is
stored, however many rows there are. Dense features are standard normal and have linear effects. A sample's score is

    BIAS + the effects of all its IDs, those that occur twice counted twice, + the effects of its dense features

and its label is 1 with probability sigmoid(score). Effects are scaled so that the score's standard deviation over
samples is SPREAD, DENSE_SHARE of its variance coming from the dense features; the true probabilities then reach an AUC
of about 0.83, whatever the features are. A network that sums rows of width one could learn the model exactly, as far as
the IDs occur often enough.

Shapes: B samples of a batch, D dense features, F features of a group, k IDs of a bag.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from persia.data.batch import MOST_IDS, Bags, Batch, DataError, FeatureGroup
from persia.data.cutting import take
from persia.data.ranking import auc
from persia.data.zipf import Zipf, make_zipf

BIAS = -1.0
SPREAD = 1.6
DENSE_SHARE = 0.2
HELD_OUT_BLOCK = 2048  # samples drawn at once: the held-out split does not depend on the batches it is read in
_EFFECT_BITS = 20
_EFFECT_VARIANCE = (4.0**_EFFECT_BITS - 1) / 12
_EFFECT_MEAN = (2.0**_EFFECT_BITS - 1) / 2
_IDS_AT_ONCE = 1 << 15  # so that the intermediate arrays stay in the processor's cache

# First words of the spawn keys: one stream of random numbers for each purpose, and for each batch.
_MODEL, _TRAIN, _HELD_OUT = range(3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Group:
    """A feature group with its part of the planted model; salts uint64[F], means f64[F] of the raw effects."""

    features: int
    ids_per_sample: float
    zipf: Zipf
    salts: NDArray[np.uint64]
    means: NDArray[np.float64]


class Synthetic:
    """An endless click log with a planted model; batch n depends on the seed and on n alone, not on who draws it.

    With `distinct_batches` only so many batches are drawn, kept in memory and repeated, so that drawing costs nothing.
    """

    bad_rows = 0

    def __init__(
        self,
        *,
        batch_size: int,
        groups: Sequence[FeatureGroup],
        dense_features: int,
        seed: int,
        held_out_samples: int,
        distinct_batches: int | None,
    ) -> None:
        for group in groups:
            ids = group.features * batch_size * math.ceil(group.ids_per_sample)
            if ids > MOST_IDS:
                raise DataError(
                    f"a batch with {ids:,} IDs of one feature group; expected at most {MOST_IDS:,}. "
                    "Lower workload.batch_size, or split the group."
                )
        self._batch_size = batch_size
        self._seed = seed
        self._held_out_samples = held_out_samples
        self._distinct_batches = distinct_batches
        self._kept: dict[int, Batch] = {}
        generator = self._generator(_MODEL)
        self._groups = _planted_groups(groups, generator)
        self._dense_effects = _scaled(generator.standard_normal(dense_features), SPREAD * math.sqrt(DENSE_SHARE))
        variance = sum(group.ids_per_sample * float(variances.sum()) for group, variances in self._groups)
        spread = SPREAD * math.sqrt(1 - DENSE_SHARE if dense_features else 1.0)
        self._id_scale = spread / math.sqrt(variance) if variance > 0 else 0.0

    @property
    def samples(self) -> int | None:
        """Samples of the distinct batches; None: endless."""
        return None if self._distinct_batches is None else self._distinct_batches * self._batch_size

    def batch(self, number: int) -> Batch:
        """Return a batch; it holds the same samples whoever asks, and whenever."""
        if self._distinct_batches is None:
            return self._draw(number, (_TRAIN, number), self._batch_size)[0]
        place = number % self._distinct_batches
        if place not in self._kept:
            self._kept[place] = self._draw(place, (_TRAIN, place), self._batch_size)[0]
        return replace(self._kept[place], number=number)

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Draw the held-out samples anew; the same ones whatever the batch size."""
        blocks: list[Batch] = []
        waiting = number = 0
        for block, _ in self._held_out_blocks():
            blocks.append(block)
            waiting += len(block.labels)
            while waiting >= batch_size:
                taken, blocks = take(number, blocks, batch_size)
                waiting -= batch_size
                number += 1
                yield taken
        if waiting:
            yield take(number, blocks, waiting)[0]

    def best_auc(self) -> float:
        """Return the AUC of the true probabilities on the held-out samples; no model can expect to do better."""
        return self._best_auc

    @cached_property
    def _best_auc(self) -> float:
        """The AUC, computed once."""
        blocks = [(block.labels, scores) for block, scores in self._held_out_blocks()]
        if not blocks:
            return float("nan")
        return auc(np.concatenate([labels for labels, _ in blocks]), np.concatenate([scores for _, scores in blocks]))

    def _held_out_blocks(self) -> Iterator[tuple[Batch, NDArray[np.float64]]]:
        """Give the held-out samples in blocks, with their scores."""
        for number, start in enumerate(range(0, self._held_out_samples, HELD_OUT_BLOCK)):
            yield self._draw(number, (_HELD_OUT, number), min(HELD_OUT_BLOCK, self._held_out_samples - start))

    def _generator(self, *stream: int) -> np.random.Generator:
        """Return the random numbers of one purpose and batch."""
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence(self._seed, spawn_key=stream)))

    def _draw(self, number: int, stream: tuple[int, int], samples: int) -> tuple[Batch, NDArray[np.float64]]:
        """Return a batch and the scores of its samples, f64[B]."""
        generator = self._generator(*stream)
        dense = generator.standard_normal((samples, len(self._dense_effects)), dtype=np.float32)
        scores = BIAS + (dense * self._dense_effects).sum(axis=1)
        groups = []
        for group, _ in self._groups:
            bags, effects = _draw_bags(group, generator, samples)
            groups.append(bags)
            scores += self._id_scale * effects
        labels = (generator.random(samples) * (1 + np.exp(-scores)) < 1).astype(np.float32)
        return Batch(number=number, labels=labels, dense=dense, groups=tuple(groups)), scores


def _scaled(values: NDArray[np.float64], norm: float) -> NDArray[np.float64]:
    """Return the values with the given Euclidean norm."""
    return values * (norm / max(float(np.linalg.norm(values)), 1e-300))


def _planted_groups(groups: Sequence[FeatureGroup], generator: np.random.Generator) -> list[tuple[_Group, NDArray[np.float64]]]:
    """Return every group with the variances f64[F] of its raw effects over the drawn IDs."""
    samplers: dict[tuple[int, float], Zipf] = {}
    planted = []
    for group in groups:
        law = (group.rows, group.zipf)
        if law not in samplers:
            samplers[law] = make_zipf(*law)
        salts = generator.integers(0, 1 << 64, group.features, dtype=np.uint64)
        moments = [_moments(samplers[law], salt) for salt in salts]
        means, variances = np.array(moments, dtype=np.float64).reshape(-1, 2).T
        place = _Group(features=group.features, ids_per_sample=group.ids_per_sample, zipf=samplers[law], salts=salts, means=means)
        planted.append((place, variances))
    return planted


def _moments(zipf: Zipf, salt: np.uint64) -> tuple[float, float]:
    """Return mean and variance of a feature's raw effects, weighted by popularity; those of the tail are the expected ones."""
    effects = _raw_effects(np.arange(zipf.head, dtype=np.int64), salt).astype(np.float64)
    weights = zipf.popularity[: zipf.head]
    tail = zipf.tail_popularity
    mean = float(effects @ weights) + tail * _EFFECT_MEAN
    square = float((effects**2) @ weights) + tail * (_EFFECT_VARIANCE + _EFFECT_MEAN**2)
    return mean, max(square - mean**2, 0.0)


def _raw_effects(ids: NDArray[np.int64], salt: np.uint64 | NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return a whole number below 2^_EFFECT_BITS for each ID: the upper bits of splitmix64, with the feature's salt added."""
    mixed = ids.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed += salt
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed >>= np.uint64(64 - _EFFECT_BITS)
    return mixed.view(np.int64)


def _draw_bags(group: _Group, generator: np.random.Generator, samples: int) -> tuple[Bags, NDArray[np.float64]]:
    """Return the bags of a group and the sums of their centred raw effects, f64[B].

    A bag holds ids_per_sample IDs where that is a whole number, else the whole number below or above, at random.
    """
    bag_count = group.features * samples
    least = math.floor(group.ids_per_sample)
    counts = np.full(bag_count, least, dtype=np.int64)
    if group.ids_per_sample > least:
        counts += generator.random(bag_count) < group.ids_per_sample - least
    offsets = np.zeros(bag_count + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    ids = np.empty(int(offsets[-1]), dtype=np.int64)
    total = np.zeros(samples, dtype=np.int64)
    features_at_once = max(1, _IDS_AT_ONCE // max(1, math.ceil(samples * group.ids_per_sample)))
    for first in range(0, group.features, features_at_once):
        last = min(first + features_at_once, group.features)
        start, end = int(offsets[first * samples]), int(offsets[last * samples])
        some = ids[start:end]
        some[:] = group.zipf.draw(generator, end - start)
        if least == group.ids_per_sample:
            effects = _raw_effects(some.reshape(last - first, -1), group.salts[first:last, None])
            total += effects.reshape(last - first, samples, least).sum(axis=(0, 2))
        else:
            bag_counts = counts[first * samples : last * samples]
            salts = np.repeat(np.repeat(group.salts[first:last], samples), bag_counts)
            owners = np.repeat(np.tile(np.arange(samples), last - first), bag_counts)
            # Sums of whole numbers far below 2^53 are exact in a double.
            total += np.bincount(owners, weights=_raw_effects(some, salts), minlength=samples).astype(np.int64)
    centres = group.means @ counts.reshape(group.features, samples)
    return Bags(ids=ids, offsets=offsets.astype(np.int32)), total - centres
