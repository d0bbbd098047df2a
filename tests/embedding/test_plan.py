"""Unique rows of a batch, grouped by server, against plain numpy."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("numba")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from persia.embedding.placement import FEATURES_MAX, row_keys, server_of
from persia.embedding.plan import GroupPlan, PlanWorkspace, check_bags, plan_group, server_of_key, warm_up
from tests.embedding.bags import Bags, any_bags, bags_of, random_bags


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    warm_up()  # outside the time that hypothesis allows an example


def plan_of(bags: Bags, *, first_feature: int = 0, servers: int = 1, workspace: PlanWorkspace | None = None) -> GroupPlan:
    return plan_group(bags.ids, bags.offsets, first_feature=first_feature, features=bags.features, servers=servers, workspace=workspace)


def occurrence_keys(bags: Bags, first_feature: int) -> list[int]:
    return [int(row_keys(first_feature + int(f), [one])[0]) for f, one in zip(bags.feature_of, bags.ids, strict=True)]


def expected(keys: list[int], servers: int) -> tuple[list[int], list[int], list[int]]:
    """Keys, starts and inverse by the definition."""
    in_order = list(dict.fromkeys(keys))
    server = server_of(np.array(in_order, np.uint64), servers).tolist()
    by_server = [[key for key, of in zip(in_order, server, strict=True) if of == index] for index in range(servers)]
    unique = [key for group in by_server for key in group]
    place = {key: index for index, key in enumerate(unique)}
    return unique, [sum(map(len, by_server[:index])) for index in range(servers + 1)], [place[key] for key in keys]


def assert_plan(plan: GroupPlan, keys: list[int], servers: int) -> None:
    unique, starts, inverse = expected(keys, servers)
    assert plan.keys.tolist() == unique
    assert plan.starts.tolist() == starts
    assert plan.inverse.tolist() == inverse
    assert (plan.keys.dtype, plan.starts.dtype, plan.inverse.dtype) == (np.uint64, np.int32, np.int32)


@given(any_bags(), st.integers(1, 7), st.sampled_from([0, 1, 300, FEATURES_MAX - 4]))
def test_plan_is_what_the_definition_says(bags: Bags, servers: int, first_feature: int) -> None:
    plan = plan_of(bags, first_feature=first_feature, servers=servers)
    assert_plan(plan, occurrence_keys(bags, first_feature), servers)


@settings(max_examples=20)
@given(st.lists(any_bags(), min_size=2, max_size=6))
def test_a_used_workspace_changes_nothing(batches: list[Bags]) -> None:
    workspace = PlanWorkspace()
    for bags in batches:
        assert_plan(plan_of(bags, servers=3, workspace=workspace), occurrence_keys(bags, 0), 3)


def test_tables_that_grow_and_shrink_lose_no_row() -> None:
    workspace = PlanWorkspace()
    for features, ids_max in [(2, 20_000), (12, 3), (1, 2**48), (3, 2_000)]:
        bags = random_bags(features, features=features, batch=200, ids_max=ids_max, bag_max=20)
        plan = plan_of(bags, servers=4, workspace=workspace)
        keys = np.array(bags.feature_of << 48 | bags.ids, np.uint64)
        assert np.array_equal(plan.keys[plan.inverse], keys)
        assert plan.keys.size == np.unique(keys).size


def test_stamps_that_run_out_start_again() -> None:
    workspace = PlanWorkspace()
    bags = random_bags(1, features=5, batch=4, ids_max=8, bag_max=4)
    plan_of(bags, workspace=workspace)
    workspace.state[0] = 2**16 - 3
    for _ in range(2):
        assert_plan(plan_of(bags, servers=2, workspace=workspace), occurrence_keys(bags, 0), 2)
    assert workspace.state[0] < 20


def test_small_ids_and_read_only_arrays_give_the_same_plan() -> None:
    bags = random_bags(2, features=3, batch=8, ids_max=50, bag_max=5)
    wanted = plan_of(bags, servers=2)
    spaced = np.repeat(bags.ids, 2)[::2]
    frozen = np.frombuffer(bags.ids.tobytes(), np.int64)
    for ids in (bags.ids.astype(np.int32), spaced, frozen):
        plan = plan_group(ids, bags.offsets, first_feature=0, features=3, servers=2)
        assert np.array_equal(plan.keys, wanted.keys)
        assert np.array_equal(plan.inverse, wanted.inverse)


def test_batches_without_ids_or_samples_have_an_empty_plan() -> None:
    for bags in (bags_of(2, 2, [[], [], [], []]), bags_of(3, 0, [])):
        assert_plan(plan_of(bags, servers=3), [], 3)


def test_threads_do_not_disturb_each_other() -> None:
    batches = [random_bags(seed, features=6, batch=64, ids_max=3_000, bag_max=8) for seed in range(4)]
    wanted = [plan_of(bags, servers=3) for bags in batches]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            plan = plan_of(batches[index], servers=3)
            if not (np.array_equal(plan.keys, wanted[index].keys) and np.array_equal(plan.inverse, wanted[index].inverse)):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@given(st.integers(0, 2**64 - 1), st.integers(1, 2**16))
def test_kernels_place_rows_as_the_simulator_does(key: int, servers: int) -> None:
    assert server_of_key(np.uint64(key), servers) == server_of(np.array([key], np.uint64), servers)[0]


@given(any_bags())
def test_sound_bags_pass(bags: Bags) -> None:
    check_bags(bags.ids, bags.offsets, bags.features, bags.batch)


@pytest.mark.parametrize(
    ("ids", "offsets", "complaint"),
    [
        ([1, 2], [0, 2, 1, 2, 2], "offset 2 is 1, less than 2 before it"),
        ([1, 2], [0, -5, 1, 2, 2], "offset 1 is -5"),
        ([1, 2], [0, 9, 9, 9, 2], "offset 4 is 2"),
        ([1, 2], [1, 1, 1, 2, 2], "from 1 to 2"),
        ([1, 2], [0, 0, 1, 2, 3], "the number of ids, 2"),
        ([1, 2], [0, 1, 2], "must have the shape"),
        ([1, -2], [0, 1, 1, 2, 2], "id 1 is -2"),
        ([2**48, 2], [0, 1, 1, 2, 2], "id 0 is 281474976710656"),
        ([-(2**63), 2], [0, 1, 1, 2, 2], "id 0 is -9223372036854775808"),
    ],
)
def test_unsound_bags_are_refused_with_the_place(ids: list[int], offsets: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_bags(np.array(ids, np.int64), np.array(offsets, np.int32), 2, 2)


def test_wrong_types_are_refused() -> None:
    ids, offsets = np.zeros(1, np.int64), np.array([0, 1], np.int32)
    for bad_ids, bad_offsets in [(ids.astype(np.float64), offsets), (ids, offsets.astype(np.int64)), (ids.astype(">i8"), offsets)]:
        with pytest.raises(ValueError, match="must be"):
            check_bags(bad_ids, bad_offsets, 1, 1)
        with pytest.raises(ValueError, match="must be"):
            plan_group(bad_ids, bad_offsets, first_feature=0, features=1, servers=1)
    with pytest.raises(ValueError, match="cannot be"):
        check_bags(ids, offsets, 0, 1)


@pytest.mark.parametrize(
    ("offsets", "first_feature", "features", "servers"),
    [([0, 1], 0, 1, 0), ([0, 1], -1, 1, 1), ([0, 1], 0, 0, 1), ([0, 1], FEATURES_MAX, 1, 1), ([0, 1], 0, 2, 1), ([0, 2], 0, 1, 1)],
)
def test_impossible_groups_are_refused(offsets: list[int], first_feature: int, features: int, servers: int) -> None:
    with pytest.raises(ValueError, match=r".+"):
        plan_group(np.zeros(1, np.int64), np.array(offsets, np.int32), first_feature=first_feature, features=features, servers=servers)


def test_offsets_that_fall_between_features_are_refused() -> None:
    with pytest.raises(ValueError, match="rise from 0"):
        plan_group(np.zeros(1, np.int64), np.array([0, 2, 1], np.int32), first_feature=0, features=2, servers=1)
