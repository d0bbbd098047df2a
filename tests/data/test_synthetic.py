"""Synthetic clicks: the layout of batches, the same ones for whoever asks, and a planted model that can be learned."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from persia.data import Batch, DataError, DataSet, FeatureGroup, open_data
from persia.data.ranking import auc

GROUPS = (
    FeatureGroup(features=3, rows=1000, ids_per_sample=2, zipf=1.05),
    FeatureGroup(features=2, rows=30_000_000_000, ids_per_sample=0.6, zipf=1.0),
    FeatureGroup(features=1, rows=5, ids_per_sample=2.5, zipf=0.0),
)


def synthetic(
    *,
    groups: tuple[FeatureGroup, ...] = GROUPS,
    batch_size: int = 64,
    dense_features: int = 4,
    seed: int = 1,
    held_out_samples: int = 500,
    distinct_batches: int | None = None,
) -> DataSet:
    return open_data(
        kind="synthetic",
        path=None,
        batch_size=batch_size,
        groups=groups,
        dense_features=dense_features,
        seed=seed,
        held_out_samples=held_out_samples,
        on_bad_row="error",
        distinct_batches=distinct_batches,
    )


def assert_same(first: Batch, second: Batch) -> None:
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.dense, second.dense)
    for ours, others in zip(first.groups, second.groups, strict=True):
        np.testing.assert_array_equal(ours.ids, others.ids)
        np.testing.assert_array_equal(ours.offsets, others.offsets)


def bag(batch: Batch, group: int, feature: int, sample: int) -> list[int]:
    bags, index = batch.groups[group], feature * len(batch.labels) + sample
    found: list[int] = bags.ids[bags.offsets[index] : bags.offsets[index + 1]].tolist()
    return found


def test_layout_and_types() -> None:
    batch = synthetic().batch(3)
    assert batch.number == 3
    assert batch.labels.dtype == batch.dense.dtype == np.float32
    assert batch.labels.shape == (64,)
    assert batch.dense.shape == (64, 4)
    assert set(np.unique(batch.labels)) == {0.0, 1.0}
    for group, bags in zip(GROUPS, batch.groups, strict=True):
        assert bags.ids.dtype == np.int64
        assert bags.offsets.dtype == np.int32
        assert bags.offsets.shape == (group.features * 64 + 1,)
        assert bags.offsets[0] == 0
        assert bags.offsets[-1] == len(bags.ids)
        assert bags.ids.min() >= 0
        assert bags.ids.max() < group.rows
    assert set(np.diff(batch.groups[0].offsets)) == {2}
    assert set(np.diff(batch.groups[1].offsets)) == {0, 1}
    assert set(np.diff(batch.groups[2].offsets)) == {2, 3}


def test_the_mean_number_of_ids_is_the_one_asked_for() -> None:
    batch = synthetic(batch_size=20_000).batch(0)
    assert [np.diff(bags.offsets).mean() for bags in batch.groups] == pytest.approx([2, 0.6, 2.5], abs=0.02)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    one, other = synthetic(), synthetic()
    forth = [one.batch(number) for number in range(6)]
    for number in (5, 1, 4, 2, 0, 3, 3):
        assert_same(other.batch(number), forth[number])
    assert not np.array_equal(forth[0].groups[0].ids, forth[1].groups[0].ids)
    assert not np.array_equal(synthetic(seed=2).batch(0).groups[0].ids, forth[0].groups[0].ids)
    assert one.samples is None
    assert one.bad_rows == 0


@pytest.mark.parametrize("batch_size", [1, 64, 499, 500, 3000])
def test_held_out_samples_do_not_depend_on_how_they_are_read(batch_size: int) -> None:
    # More than one block is drawn, and batches reach over the ends of blocks.
    samples = 2600 if batch_size > 1 else 40
    data = synthetic(held_out_samples=samples)
    (whole,) = data.held_out(samples)
    batches = list(data.held_out(batch_size))
    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert all(len(batch.labels) == batch_size for batch in batches[:-1])
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), whole.labels)
    np.testing.assert_array_equal(np.concatenate([batch.dense for batch in batches]), whole.dense)
    for group, shape in enumerate(GROUPS):
        for feature in range(shape.features):
            found = [bag(batch, group, feature, sample) for batch in batches for sample in range(len(batch.labels))]
            assert found == [bag(whole, group, feature, sample) for sample in range(samples)]
    assert data.best_auc() == synthetic(held_out_samples=samples, batch_size=7).best_auc()


def test_nothing_held_out() -> None:
    data = synthetic(held_out_samples=0)
    assert list(data.held_out(10)) == []
    assert np.isnan(data.best_auc() or 0.0)


def test_distinct_batches_are_drawn_once_and_repeated() -> None:
    data = synthetic(distinct_batches=3)
    every = synthetic()
    assert data.samples == 3 * 64
    for number in (0, 1, 2, 3, 100):
        batch = data.batch(number)
        assert batch.number == number
        assert_same(batch, every.batch(number % 3))
    assert data.batch(5).groups[0].ids is data.batch(2).groups[0].ids


def test_a_batch_too_large_for_its_offsets_is_refused() -> None:
    with pytest.raises(DataError, match=r"expected at most .* Lower workload\.batch_size"):
        synthetic(batch_size=1 << 30)
    with pytest.raises(DataError, match="rows"):
        synthetic(groups=(FeatureGroup(features=1, rows=1 << 49, ids_per_sample=1, zipf=1),))


@pytest.mark.parametrize(
    ("features", "rows", "ids_per_sample", "dense_features"),
    [(26, 100_000, 1, 13), (26, 40_000, 10, 13), (8, 1000, 2, 4), (8, 1000, 2.5, 0)],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_best_auc_is_that_of_click_logs(features: int, rows: int, ids_per_sample: float, dense_features: int, seed: int) -> None:
    groups = (FeatureGroup(features=features, rows=rows, ids_per_sample=ids_per_sample, zipf=1.05),)
    data = synthetic(groups=groups, dense_features=dense_features, seed=seed, held_out_samples=8000)
    assert 0.80 < (data.best_auc() or 0.0) < 0.85
    rate = np.mean([batch.labels.mean() for batch in data.held_out(4000)])
    assert 0.25 < rate < 0.42


def test_the_planted_model_can_be_learned_and_not_outdone() -> None:
    """The log-odds of every ID, counted on the training split, added up on the held-out one."""
    features, rows = 6, 20
    groups = (FeatureGroup(features=features, rows=rows, ids_per_sample=1, zipf=0.5),)
    data = synthetic(groups=groups, dense_features=0, batch_size=50_000, held_out_samples=20_000)
    trained = data.batch(0)
    (held_out,) = data.held_out(20_000)

    def columns(batch: Batch) -> NDArray[np.int64]:
        return batch.groups[0].ids.reshape(features, -1)

    scores = np.zeros(20_000)
    for ours, others in zip(columns(trained), columns(held_out), strict=True):
        clicks = np.bincount(ours, weights=trained.labels, minlength=rows)
        shown = np.bincount(ours, minlength=rows)
        scores += np.log((clicks + 1) / (shown - clicks + 1))[others]
    found, best = auc(held_out.labels, scores), data.best_auc()
    assert best is not None
    assert best - 0.02 < found < best + 0.003


def test_auc_counts_ties_half() -> None:
    labels = np.array([0, 1, 0, 1], dtype=np.float32)
    assert auc(labels, np.array([0.1, 0.9, 0.2, 0.8])) == 1.0
    assert auc(labels, np.array([0.9, 0.1, 0.8, 0.2])) == 0.0
    assert auc(labels, np.full(4, 0.5)) == 0.5
    assert auc(labels, np.array([0.1, 0.1, 0.0, 0.5])) == (0.5 + 1 + 1 + 1) / 4
    assert np.isnan(auc(np.ones(4, dtype=np.float32), np.zeros(4)))
