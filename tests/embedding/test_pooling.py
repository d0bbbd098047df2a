"""Pooling and its gradients against plain numpy, and against torch's EmbeddingBag where it is installed."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from persia.embedding.plan import GroupPlan, plan_group
from persia.embedding.pooling import gather_raw, pool, scatter_raw, unpool, warm_up
from tests.embedding.bags import Bags, any_bags, bags_of, random_bags

POOLINGS = ("sum", "mean", "sqrtn")
# The vector loops take 64, 16, 4 and 1 columns at a time: all of them, some of them, and remainders.
DIMS = (1, 3, 4, 8, 16, 23, 64, 85, 128)


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    warm_up()  # outside the time that hypothesis allows an example


def plan_of(bags: Bags) -> GroupPlan:
    return plan_group(bags.ids, bags.offsets, first_feature=0, features=bags.features, servers=3)


def values(seed: int, *shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def factors(bags: Bags, pooling: str) -> npt.NDArray[np.float64]:
    """What each bag's sum is multiplied by: [F * B]."""
    counts = np.maximum(bags.counts, 1).astype(np.float64)
    return {"sum": np.ones_like(counts), "mean": 1 / counts, "sqrtn": 1 / np.sqrt(counts)}[pooling]


def pooled_plainly(rows: npt.NDArray[np.float32], plan: GroupPlan, bags: Bags, pooling: str) -> npt.NDArray[np.float64]:
    sums = np.zeros((bags.features * bags.batch, rows.shape[1]))
    np.add.at(sums, bags.bag_of, rows[plan.inverse].astype(np.float64))
    return (sums * factors(bags, pooling)[:, None]).reshape(bags.features, bags.batch, -1).transpose(1, 0, 2)


def unpooled_plainly(gradients: npt.NDArray[np.float32], plan: GroupPlan, bags: Bags, pooling: str) -> npt.NDArray[np.float64]:
    of_bags = gradients.transpose(1, 0, 2).reshape(bags.features * bags.batch, -1) * factors(bags, pooling)[:, None]
    sums = np.zeros((plan.keys.size, gradients.shape[2]))
    np.add.at(sums, plan.inverse, of_bags[bags.bag_of])
    return sums


@given(any_bags(), st.sampled_from(POOLINGS), st.sampled_from(DIMS), st.integers(0, 99))
def test_pool_is_what_the_definition_says(bags: Bags, pooling: str, dim: int, seed: int) -> None:
    plan = plan_of(bags)
    rows = values(seed, plan.keys.size, dim)
    out = np.full((bags.batch, bags.features, dim), np.nan, np.float32)
    pooled = pool(rows, plan.inverse, bags.offsets, features=bags.features, batch=bags.batch, pooling=pooling, out=out)
    assert pooled is out
    np.testing.assert_allclose(pooled, pooled_plainly(rows, plan, bags, pooling), rtol=1e-5, atol=1e-5)


@given(any_bags(), st.sampled_from(POOLINGS), st.sampled_from(DIMS), st.integers(0, 99))
def test_unpool_is_what_the_definition_says(bags: Bags, pooling: str, dim: int, seed: int) -> None:
    plan = plan_of(bags)
    gradients = values(seed, bags.batch, bags.features, dim)
    out = np.full((plan.keys.size, dim), np.nan, np.float32)
    sums = unpool(gradients, plan.inverse, bags.offsets, pooling=pooling, scale=0.25, unique=plan.keys.size, out=out)
    assert sums is out
    np.testing.assert_allclose(sums, 0.25 * unpooled_plainly(gradients, plan, bags, pooling), rtol=1e-5, atol=1e-5)


@given(any_bags(), st.sampled_from(DIMS), st.integers(0, 99))
def test_raw_rows_and_their_gradients(bags: Bags, dim: int, seed: int) -> None:
    plan = plan_of(bags)
    rows = values(seed, plan.keys.size, dim)
    assert np.array_equal(gather_raw(rows, plan.inverse), rows[plan.inverse])
    gradients = values(seed + 1, plan.inverse.size, dim)
    wanted = np.zeros((plan.keys.size, dim))
    np.add.at(wanted, plan.inverse, gradients)
    np.testing.assert_allclose(scatter_raw(gradients, plan.inverse, 0.5, plan.keys.size), 0.5 * wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_larger_batches(pooling: str) -> None:
    bags = random_bags(5, features=7, batch=64, ids_max=400, bag_max=12)
    plan = plan_of(bags)
    rows, gradients = values(1, plan.keys.size, 20), values(2, bags.batch, bags.features, 20)
    pooled = pool(rows, plan.inverse, bags.offsets, features=7, batch=64, pooling=pooling)
    np.testing.assert_allclose(pooled, pooled_plainly(rows, plan, bags, pooling), rtol=1e-5, atol=1e-5)
    sums = unpool(gradients, plan.inverse, bags.offsets, pooling=pooling, scale=1.0, unique=plan.keys.size)
    np.testing.assert_allclose(sums, unpooled_plainly(gradients, plan, bags, pooling), rtol=1e-4, atol=1e-5)


def test_an_id_twice_in_a_bag_counts_twice() -> None:
    bags = bags_of(1, 1, [[7, 7, 9]])
    plan = plan_of(bags)
    rows = np.zeros((2, 1), np.float32)
    rows[plan.inverse[0]], rows[plan.inverse[2]] = 3, 6
    pooled = pool(rows, plan.inverse, bags.offsets, features=1, batch=1, pooling="mean")
    assert pooled.tolist() == [[[4.0]]]
    sums = unpool(np.full((1, 1, 1), 3, np.float32), plan.inverse, bags.offsets, pooling="mean", scale=1.0, unique=2)
    assert sums[plan.inverse[[0, 2]]].tolist() == [[2.0], [1.0]]


def test_a_row_of_no_bag_gets_no_gradient() -> None:
    sums = unpool(np.ones((1, 1, 5), np.float32), np.array([2], np.int32), np.array([0, 1], np.int32), pooling="sum", scale=1.0, unique=4)
    assert sums.sum(axis=1).tolist() == [0.0, 0.0, 5.0, 0.0]


def test_batches_without_samples() -> None:
    offsets, inverse = np.zeros(1, np.int32), np.zeros(0, np.int32)
    pooled = pool(np.zeros((0, 4), np.float32), inverse, offsets, features=3, batch=0, pooling="sum")
    assert pooled.shape == (0, 3, 4)
    assert unpool(pooled, inverse, offsets, pooling="sum", scale=1.0, unique=0).shape == (0, 4)


def test_results_repeat_bit_by_bit() -> None:
    bags = random_bags(3, features=3, batch=50, ids_max=20, bag_max=10)
    plan = plan_of(bags)
    gradients = values(4, 50, 3, 16)
    first, second = (unpool(gradients, plan.inverse, bags.offsets, pooling="sqrtn", scale=0.5, unique=plan.keys.size) for _ in range(2))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_gradients_equal_those_of_torch(pooling: str) -> None:
    torch = pytest.importorskip("torch")
    bags = random_bags(8, features=2, batch=30, ids_max=25, bag_max=6)
    plan = plan_of(bags)
    rows, gradients = values(1, plan.keys.size, 24), values(2, bags.batch, 2, 24)
    weight = torch.tensor(rows, requires_grad=True)
    bag = torch.nn.functional.embedding_bag(
        torch.tensor(plan.inverse.astype(np.int64)), weight, torch.tensor(bags.offsets[:-1].astype(np.int64)), mode=pooling
    )
    theirs = bag.reshape(2, bags.batch, 24).transpose(0, 1)
    theirs.backward(torch.tensor(gradients))
    ours = pool(rows, plan.inverse, bags.offsets, features=2, batch=bags.batch, pooling=pooling)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    sums = unpool(gradients, plan.inverse, bags.offsets, pooling=pooling, scale=1.0, unique=plan.keys.size)
    np.testing.assert_allclose(sums, weight.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_wrong_arguments_are_refused() -> None:
    rows, inverse, offsets = np.zeros((1, 4), np.float32), np.zeros(1, np.int32), np.array([0, 1], np.int32)
    pooled = np.zeros((1, 1, 4), np.float32)
    with pytest.raises(ValueError, match="none of sum, mean, sqrtn"):
        pool(rows, inverse, offsets, features=1, batch=1, pooling="max")
    with pytest.raises(ValueError, match="offsets must have the shape"):
        pool(rows, inverse, offsets, features=2, batch=1, pooling="sum")
    with pytest.raises(ValueError, match="inverse must have the shape"):
        pool(rows, np.zeros(2, np.int32), offsets, features=1, batch=1, pooling="sum")
    with pytest.raises(ValueError, match="rows must be float32"):
        pool(rows.astype(np.float64), inverse, offsets, features=1, batch=1, pooling="sum")
    for out in (np.zeros((1, 1, 5), np.float32), np.zeros((1, 1, 8), np.float32)[:, :, ::2], np.frombuffer(bytes(16), np.float32)):
        with pytest.raises(ValueError, match="out must"):
            pool(rows, inverse, offsets, features=1, batch=1, pooling="sum", out=out)
    with pytest.raises(ValueError, match="out must have the shape"):
        unpool(pooled, inverse, offsets, pooling="sum", scale=1.0, unique=2, out=rows)
    with pytest.raises(ValueError, match="an array"):
        gather_raw([[1.0]], inverse)  # type: ignore[arg-type]
