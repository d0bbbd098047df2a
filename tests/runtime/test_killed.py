"""A worker, server or loader is killed while training: the run goes on by itself, nothing is lost, nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.runtime.checkpoint import read_dense_shards
from persia.runtime.coordinator import Options
from persia.schedule.messages import ExchangeDense
from tests.runtime.faults import (
    Kill,
    Killer,
    Name,
    check_exactly_once,
    let_die,
    random_kills,
    same_weights,
    seconds_to_come_back,
    small,
    train,
)
from tests.runtime.runs import Run

VICTIMS: tuple[Name, ...] = (
    ("embedding_worker", 0),
    ("embedding_worker", 1),
    ("parameter_server", 0),
    ("parameter_server", 1),
    ("loader", 0),
)
COME_BACK_S = 5.0


def check_times(run: Run, killer: Killer) -> None:
    times_s = seconds_to_come_back(run, killer.killed)
    print(f"{len(times_s)} of {len(killer.killed)} killed processes worked again after at most {max(times_s):.2f} s: {sorted(times_s)}")
    assert max(times_s) < COME_BACK_S


@pytest.mark.slow
def test_sync_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    scenario = small("schedule.mode=sync", steps=300)
    killer = Killer(random_kills(5, VICTIMS, seed=1), seed=1)
    run = train(scenario, tmp_path / "killed", killer)
    assert run.outcome.restarts == len(killer.killed) == 5
    check_exactly_once(run, killer)
    same_weights(run, train(scenario, tmp_path / "undisturbed"))
    check_times(run, killer)


@pytest.mark.slow
def test_hybrid_run_learns_as_much_with_20_kills(tmp_path: Path) -> None:
    threads = "cluster.tiers.parameter_server.threads_per_process=2"
    # Requests that are answered late, too, are asked again: what arrives twice must not count twice.
    scenario = small("schedule.mode=hybrid", threads, "schedule.request_timeout=0.3s", "workload.data.held_out_samples=4000", steps=500)
    both = Kill(fraction=0.97, victims=(("embedding_worker", 1), ("parameter_server", 0)))
    kills = [*random_kills(18, VICTIMS, seed=2), both]
    killer = Killer(kills, seed=2)
    run = train(scenario, tmp_path / "killed", killer)
    assert run.outcome.restarts == len(killer.killed) == 20
    check_exactly_once(run, killer)
    check_times(run, killer)
    undisturbed = train(scenario, tmp_path / "undisturbed")
    print(f"AUC {run.auc:.4f}, undisturbed {undisturbed.auc:.4f}")
    assert run.auc == pytest.approx(undisturbed.auc, abs=0.02)


@pytest.mark.slow
def test_processes_that_die_while_starting_come_back_at_other_ports(tmp_path: Path) -> None:
    kills = [
        Kill(fraction=0.0, victims=(("parameter_server", 0), ("loader", 0))),  # before they are more than an interpreter
        Kill(fraction=0.2, victims=(("embedding_worker", 0), ("loader", 0))),
        Kill(fraction=0.5, victims=(("parameter_server", 0), ("parameter_server", 1))),
    ]
    killer = Killer(kills, seed=3)
    scenario = small("schedule.mode=naive-hybrid", steps=250)
    run = train(scenario, tmp_path / "run", killer, options=Options(rendezvous="127.0.0.1:0"))
    assert run.outcome.restarts == len(killer.killed) == 6
    check_exactly_once(run, killer)


# Where each life of a process ends; every list is followed by a life that lasts.
SERVER_0 = (
    "persia.runtime.tables:Tables.mark_ready before 1",  # the tables are there, the next process makes them anew
    "persia.embedding.sharded:ShardedTable.update after 11",  # of one group: the other group's part of the step is missing
    "persia.runtime.applied:AppliedLog.append after 13",  # of one of a step's two batches
)
SERVER_1 = (
    "persia.runtime.tables:Tables.update after 7",  # applied, but no line says so
    "persia.runtime.applied:AppliedLog.append before 9",  # the line is there, the list beside the tables lacks it
    "persia.runtime.make_server:reconcile after 1",
)
WORKER_0 = (
    "persia.runtime.worker:Worker._ask_rows after 21",  # one server is asked, the other not
    "persia.runtime.worker:Worker._send_update after 5",  # one server has the update, the other not
    "persia.runtime.worker:Worker._reply_ack before 4",
)
WORKER_1 = (
    "persia.runtime.worker:Worker._reply_ack after 9",  # the acknowledgement may be lost
    "persia.runtime.make_worker:warm_up after 1",  # nobody has heard that it is back
    "persia.runtime.worker:Worker._reply_rows before 3",
)
LOADER = (
    "persia.runtime.loader:keep_number before 1",
    "persia.runtime.loader:Loader._send after 3",
    "persia.runtime.loader:keep_number after 1",
)
MORE_SERVER_0 = (
    "persia.runtime.tables:Tables.forget before 6",  # noted, still in the journal
    "persia.runtime.tables:Tables.forget after 5",  # not acknowledged
    "persia.runtime.server:keep_number before 1",  # a snapshot is copied, and lost
)
MORE_SERVER_1 = (
    "persia.runtime.server:keep_number after 1",  # no rank has heard of the snapshot
    "persia.runtime.server:write_shard before 1",  # every rank may have
    "persia.runtime.server:Server._acknowledge after 5",
)


@pytest.mark.slow
def test_dying_at_the_worst_moments_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small("schedule.mode=sync", "schedule.checkpoint_every_steps=10", steps=80)
    undisturbed = train(scenario, tmp_path / "undisturbed")
    names = ("parameter_server-0", "parameter_server-1", "embedding_worker-0", "embedding_worker-1", "loader-0")
    all_places = (SERVER_0, SERVER_1, WORKER_0, WORKER_1, LOADER), (MORE_SERVER_0, MORE_SERVER_1)
    for number, places in enumerate(all_places):
        let_die(monkeypatch, dict(zip(names, places, strict=False)))
        killer = Killer([])
        run = train(scenario, tmp_path / f"dying-{number}", killer)
        assert run.outcome.restarts == sum(map(len, places))
        check_exactly_once(run, killer)
        same_weights(run, undisturbed)


# In mode async: around a dense update, in the final evaluation, and while the trained model is saved.
ASYNC_SERVER_0 = (
    "persia.runtime.dense_shard:DenseShard.initialise after 1",
    "persia.runtime.dense_shard:DenseShard.apply after 9",  # applied, not answered
    "persia.runtime.tables:Tables.peek after 2",
)
ASYNC_SERVER_1 = (
    "persia.runtime.dense_shard:DenseShard.apply before 7",
    "persia.runtime.server:write_shard before 1",  # the model's part is copied and lost
    "persia.runtime.server:Server._written before 1",  # written, and nobody knows
)
ASYNC_WORKER_0 = ("persia.runtime.worker:Worker._peek after 1",)
ASYNC_WORKER_1 = ("persia.runtime.worker:Worker._peeked after 1",)


@pytest.mark.slow
def test_async_run_applies_dense_gradients_once_and_saves_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = small("schedule.mode=async", "workload.data.held_out_samples=9000", steps=60)
    let_die(
        monkeypatch,
        {
            "parameter_server-0": ASYNC_SERVER_0,
            "parameter_server-1": ASYNC_SERVER_1,
            "embedding_worker-0": ASYNC_WORKER_0,
            "embedding_worker-1": ASYNC_WORKER_1,
        },
    )
    killer = Killer([])
    run = train(scenario, tmp_path / "run", killer)
    assert run.outcome.restarts == 8
    check_exactly_once(run, killer)
    ranks = [entries for name, (_, entries) in run.logs().items() if name.startswith("nn_worker")]
    exchanges = sum(isinstance(command, ExchangeDense) for entries in ranks for entry in entries for command in entry.commands)
    for shard in read_dense_shards(run.checkpoint()):
        assert set(shard["step"]) == {exchanges}
    assert run.outcome.qualities[-1]["samples"] == 9000
