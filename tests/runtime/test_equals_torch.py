"""Sync mode trains what plain PyTorch trains in one process, parameter by parameter, and evaluates it the same.

Measured: values differ by at most 4e-6 of their size.
"""

from __future__ import annotations

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")
pytest.importorskip("torch")

import numpy as np

from persia.dense import auc, logloss
from tests.runtime.plain_torch import PlainTraining
from tests.runtime.runs import CASES, OPTIMIZERS, TOLERANCE, Run, assert_close, assert_equal, run_of, scenario_of, train

SYNC = "schedule.mode=sync"
TWO_RANKS = [(case, 2) for case in range(len(CASES) - 1)]
ONE_RANK = (len(CASES) - 1, 1)


@pytest.mark.parametrize(("case", "ranks"), [*TWO_RANKS, ONE_RANK])
def test_sync_equals_plain_pytorch(tmp_path_factory: pytest.TempPathFactory, case: int, ranks: int) -> None:
    run = run_of(tmp_path_factory, case, SYNC, ranks=ranks)
    plain = PlainTraining(run.plan).train()
    assert_equals_plain(run, plain)
    labels, probabilities = plain.held_out()
    quality = run.outcome.qualities[-1]
    assert quality["samples"] == len(labels) == 256
    assert quality["auc"] == pytest.approx(auc(labels, probabilities), abs=1e-4)  # two samples may change places
    assert quality["logloss"] == pytest.approx(logloss(labels, probabilities), rel=1e-5)


def assert_equals_plain(run: Run, plain: PlainTraining) -> None:
    dense = run.dense()
    for name, reference in plain.dense().items():
        assert_close(name, dense[name], reference)
    for place, optimizer in enumerate(OPTIMIZERS):
        rows, (keys, values, state) = run.rows(place), plain.rows(place)
        assert np.array_equal(rows.keys, keys)
        assert_close(f"rows under {optimizer}", rows.values, values)
        assert_close(f"state of {optimizer}", rows.state, state)


def test_training_moves_everything_far_more_than_the_tolerance(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = run_of(tmp_path_factory, 0, SYNC)
    untrained = PlainTraining(run.plan)
    for name, first in untrained.dense().items():
        assert np.abs(run.dense()[name] - first).max() > 100 * TOLERANCE, name
    for place in range(len(OPTIMIZERS)):
        rows = run.rows(place)
        first = untrained.tables[place].detach().numpy()[np.searchsorted(untrained.keys[place], rows.keys)]
        assert np.abs(rows.values - first).max() > 100 * TOLERANCE * 0.01


def test_one_rank_with_one_permit_is_sync(tmp_path_factory: pytest.TempPathFactory) -> None:
    case, ranks = ONE_RANK
    hybrid = run_of(tmp_path_factory, case, "schedule.mode=hybrid", "schedule.staleness_permits=1", ranks=ranks)
    assert_equal(hybrid, run_of(tmp_path_factory, case, SYNC, ranks=ranks))


def test_other_numbers_of_processes_and_threads_train_the_same(tmp_path_factory: pytest.TempPathFactory) -> None:
    threads = "cluster.tiers.parameter_server.threads_per_process=2"
    other = scenario_of(0, SYNC, threads, servers=3, workers=1, loaders=2)
    assert_equal(train(other, tmp_path_factory.mktemp("runs")), run_of(tmp_path_factory, 0, SYNC))


def test_evaluation_on_the_way_changes_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    evaluated = run_of(tmp_path_factory, 0, SYNC, "workload.evaluate_every_steps=5")
    assert len(evaluated.outcome.qualities) > 1
    assert_equal(evaluated, run_of(tmp_path_factory, 0, SYNC))
