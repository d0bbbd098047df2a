"""From the last checkpoint: after the death of an NN worker by itself, after that of everything with `persia train --resume`."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.exits import ExitCode
from persia.runtime import coordinator
from persia.runtime.checkpoint import MANIFEST, latest
from persia.runtime.coordinator import Attempt, Options, RunFailed
from persia.scenario import load_scenario
from tests.runtime.faults import (
    ONE_OF_EACH,
    Command,
    Kill,
    Killer,
    check_exactly_once,
    check_logs_replay,
    gone_within,
    let_die,
    same_weights,
    small,
    state_folders,
    train,
    write_scenario,
)
from tests.runtime.runs import Run, shared

SYNC = small("schedule.mode=sync", "schedule.checkpoint_every_steps=20", steps=120)
SAMPLES = SYNC.workload.samples
THREE_SERVERS = "cluster.tiers.parameter_server.processes_per_machine=3"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return shared(tmp_path_factory, "undisturbed", lambda folder: train(SYNC, folder / "run"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The directory of a run of which everything was killed when it had two checkpoints, and its coordinator's process."""
    return shared(tmp_path_factory, "killed", kill)


def kill(folder: Path) -> tuple[Path, int]:
    with Command(folder, write_scenario(SYNC, folder / "sync.yaml"), "--out", folder / "run") as command:
        command.wait_until(lambda: len(list((folder / "run" / "checkpoints").glob(f"step-*/{MANIFEST}"))) >= 2, "two checkpoints")
        command.kill_everything()
    return folder / "run", command.popen.pid


@pytest.fixture
def run_directory(killed: tuple[Path, int], tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(killed[0], tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("every", [20, 0])
def test_death_of_a_rank_restarts_all_from_the_last_checkpoint(tmp_path: Path, undisturbed: Run, every: int) -> None:
    killer = Killer([Kill(fraction=0.6, victims=(("nn_worker", 1),))])
    run = train(load_scenario(undisturbed.folder / "scenario.yaml", [f"schedule.checkpoint_every_steps={every}"]), tmp_path / "run", killer)
    assert (run.outcome.attempts, run.outcome.restarts) == (2, 0)
    assert run.outcome.samples == SAMPLES
    assert (run.plan.header.first_step > 0) is (every > 0)
    assert run.plan.header.first_step % max(every, 1) == 0
    check_exactly_once(run, killer)
    check_logs_replay(run.folder / "attempts" / "001")
    same_weights(run, undisturbed)


def test_run_that_was_killed_after_its_last_checkpoint_is_only_evaluated(tmp_path: Path, undisturbed: Run) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    outcome = coordinator.run(SYNC, folder, options=Options())
    assert outcome.samples == SAMPLES
    assert outcome.trained_s == []
    assert outcome.checkpoint == folder / "checkpoints" / "step-00000119"
    assert outcome.qualities == undisturbed.outcome.qualities


def test_rank_that_always_dies_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_die(monkeypatch, {"nn_worker-0": ["persia.runtime.trainer:Trainer.train before 3"]})
    monkeypatch.setattr(coordinator, "_ATTEMPTS_WITHOUT_PROGRESS", 2)
    scenario = small("schedule.mode=hybrid", *ONE_OF_EACH, steps=20)
    with pytest.raises(RunFailed, match=r"no attempt gets further than step 0. nn_worker 0 ended with -9") as failed:
        train(scenario, tmp_path / "run")
    assert not failed.value.mistake
    assert len(list((tmp_path / "run" / "attempts").iterdir())) == 2


def test_server_that_always_dies_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_die(monkeypatch, {"parameter_server-0": ["persia.runtime.make_server:warm_up before 1"] * 9})
    with pytest.raises(RunFailed, match="parameter_server 0 dies again and again"):
        train(small("schedule.mode=hybrid", *ONE_OF_EACH, steps=20), tmp_path / "run")


def test_checkpoint_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    class Obstacle(Killer):
        def started(self, attempt: Attempt) -> None:
            super().started(attempt)
            (tmp_path / "run" / "checkpoints" / ".step-00000009.partial").touch()

    scenario = small("schedule.mode=hybrid", "schedule.checkpoint_every_steps=10", *ONE_OF_EACH, steps=20)
    with pytest.raises(RunFailed, match=r"step-00000009.partial"):
        train(scenario, tmp_path / "run", Obstacle([]))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("--set", THREE_SERVERS)], ids=["same", "three servers"])
def test_resumed_run_ends_like_an_undisturbed_one(
    killed: tuple[Path, int], run_directory: Path, undisturbed: Run, overrides: tuple[str, ...]
) -> None:
    checkpoint = latest(run_directory / "checkpoints")
    assert checkpoint is not None
    command = Command(run_directory.parent, "--resume", run_directory, "--json", *overrides)
    assert command.run() == ExitCode.OK, command.complaint
    result = json.loads(command.output)
    assert result["samples"] == SAMPLES
    assert (result["attempts"], result["restarts"]) == (1, 0)
    assert json.loads((run_directory / "run.json").read_text())["state"] == "complete"
    scenario = load_scenario(run_directory / "scenario.yaml")
    run = Run(scenario=scenario, folder=run_directory, outcome=undisturbed.outcome)
    header, _ = run.logs()["nn_worker-0"]
    assert header.first_step == checkpoint.step + 1
    assert header.worker.servers == (3 if overrides else 2)
    same_weights(run, undisturbed)
    check_logs_replay(run_directory / "attempts" / "001")
    assert not state_folders(killed[1], command.popen.pid)
    assert not list((run_directory / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "training"])
def test_roles_end_soon_after_their_coordinator(tmp_path: Path, moment: str) -> None:
    scenario = write_scenario(small("schedule.mode=hybrid", steps=20_000), tmp_path / "small.yaml")
    rank_log = tmp_path / "run" / "attempts" / "001" / "logs" / "nn_worker-0.jsonl"
    with Command(tmp_path, scenario, "--out", tmp_path / "run") as command:
        command.wait_until(lambda: len(command.roles()) == 9, "seven roles and two forkers")
        if moment == "training":
            command.wait_until(lambda: rank_log.exists() and rank_log.stat().st_size > 30_000, "training")
        roles = command.roles()
        command.popen.kill()
        command.end()
        took_s = gone_within(roles)
    print(f"{moment}: all roles ended {took_s:.2f} s after their coordinator")
    assert took_s < 30.0
    if moment == "starting":
        for folder in state_folders(command.popen.pid):  # the next run takes it away, but there is none
            shutil.rmtree(folder)
        return
    assert check_logs_replay(rank_log.parents[1]) > 1000
    again = Command(tmp_path, "--resume", tmp_path / "run", "--steps", "5")
    assert again.run() == ExitCode.OK, again.complaint
    assert "holds no checkpoint: training begins again" in again.complaint
    assert not state_folders(command.popen.pid, again.popen.pid)


def damage_manifest(run: Path) -> None:
    checkpoint = latest(run / "checkpoints")
    assert checkpoint is not None
    (checkpoint.folder / MANIFEST).write_text('{"schema_version": 1, "st')


def damage_rows(run: Path) -> None:
    checkpoint = latest(run / "checkpoints")
    assert checkpoint is not None
    rows = checkpoint.folder / "server-1" / "group-0.npz"
    os.truncate(rows, rows.stat().st_size // 2)


def complete(run: Path) -> None:
    (run / "result.json").write_text("{}")


def not_a_run(run: Path) -> None:
    (run / "run.json").unlink()


def nothing(run: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("change", "overrides", "words"),
    [
        (nothing, ["--set", "model.dense.layers=[16, 16]"], "does not match the scenario: dense.layers[1] was 8, is 16"),
        (nothing, ["--steps", "10"], "steps, the scenario trains 10. Raise workload.samples"),
        (damage_manifest, [], "manifest.json: not a checkpoint's manifest"),
        (damage_rows, [], "group-0.npz: this part of the checkpoint is damaged"),
        (complete, [], "holds a complete run: there is nothing to resume"),
        (not_a_run, [], "is not a run directory: it holds no run.json"),
    ],
)
def test_resume_is_refused(run_directory: Path, change: Callable[[Path], None], overrides: list[str], words: str) -> None:
    change(run_directory)
    scenario = (run_directory / "scenario.yaml").read_bytes()
    command = Command(run_directory.parent, "--resume", run_directory, *overrides)
    assert command.run() == ExitCode.USAGE, command.complaint
    assert words in command.complaint
    assert "Traceback" not in command.complaint
    assert (run_directory / "scenario.yaml").read_bytes() == scenario  # it still fits the checkpoint


def test_two_commands_do_not_train_into_one_directory(tmp_path: Path) -> None:
    scenario = write_scenario(small("schedule.mode=hybrid", *ONE_OF_EACH, steps=20_000), tmp_path / "small.yaml")
    with Command(tmp_path, scenario, "--out", tmp_path / "run") as first:
        first.wait_until(first.roles, "the start")
        second = Command(tmp_path, "--resume", tmp_path / "run")
        assert second.run() == ExitCode.USAGE
        assert "another process is training into this directory" in second.complaint
        assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "running"
