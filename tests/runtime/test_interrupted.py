"""Ctrl-C and SIGTERM end a real run within seconds: no process, no shared file is left, and the run directory is valid."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.commands.exits import ExitCode
from persia.runtime.records import TRACES
from persia.scenario import load_scenario
from persia.trace import read_trace
from tests.runtime.faults import Command, check_logs_replay, gone_within, small, state_folders, write_scenario

LONG = small("schedule.mode=hybrid", "schedule.checkpoint_every_steps=40", steps=50_000)
EVALUATED = small("schedule.mode=sync", "workload.data.held_out_samples=1000000", steps=8)
ENDS_WITHIN_S = 3.0
TRIES = 3  # where other tests have the processors, all of it takes longer: once must do
Moment = Callable[[Path, Command], bool]


def preparing(run: Path, command: Command) -> bool:
    """No process runs yet."""
    return (run / "scenario.yaml").exists()


def starting(run: Path, command: Command) -> bool:
    return len(command.roles()) == 9  # two forkers among them


def meeting(run: Path, command: Command) -> bool:
    """Some processes wait for the others."""
    return any(path.stat().st_size for path in (run / "attempts" / "001").glob("logs/*"))


def training(run: Path, command: Command) -> bool:
    return any((run / "checkpoints").glob("step-*"))


def evaluating(run: Path, command: Command) -> bool:
    """All batches are applied, says the loader's offset."""
    offsets = [folder / "loader-0" / "offset" for folder in state_folders(command.popen.pid)]
    return any(offset.exists() and offset.read_text() == "16\n" for offset in offsets)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "number", "times"),
    [
        (preparing, signal.SIGINT, 1),
        (starting, signal.SIGINT, 2),
        (meeting, signal.SIGTERM, 1),
        (training, signal.SIGINT, 1),
        (training, signal.SIGINT, 20),
        (evaluating, signal.SIGINT, 1),
    ],
)
def test_interrupted_run_leaves_a_valid_directory_and_nothing_else(tmp_path: Path, moment: Moment, number: int, times: int) -> None:
    took_s: list[float] = []
    while len(took_s) < TRIES and min(took_s, default=math.inf) >= ENDS_WITHIN_S:
        folder = tmp_path / str(len(took_s))
        folder.mkdir()
        took_s.append(interrupt(folder, moment, number, times))
    print(f"{moment.__name__}: all ended after {signal.Signals(number).name} x {times} within {took_s} s")
    assert min(took_s) < ENDS_WITHIN_S


def interrupt(folder: Path, moment: Moment, number: int, times: int) -> float:
    """Start a run, interrupt it at its moment, see what it leaves; return the seconds until no process lived any more."""
    scenario = EVALUATED if moment is evaluating else LONG
    run = folder / "run"
    with Command(folder, write_scenario(scenario, folder / "scenario.yaml"), "--out", run) as command:
        command.wait_until(lambda: moment(run, command), moment.__name__)
        roles = command.roles()
        began_s = time.monotonic()
        for _ in range(times):
            os.killpg(command.popen.pid, number)
            time.sleep(0.1 if times > 1 else 0.0)
            if command.popen.poll() is not None:
                break
        code = command.end()
        gone_within(roles)
        took_s = time.monotonic() - began_s
    assert code == ExitCode.INTERRUPTED, command.complaint
    assert command.output == ""
    assert "Traceback" not in command.complaint
    assert not state_folders(command.popen.pid)
    check_directory(run, scenario.name)
    return took_s


def check_directory(run: Path, name: str) -> None:
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    assert load_scenario(run / "scenario.yaml").name == name
    assert not (run / "result.json").exists()
    assert not list(run.rglob(".*"))  # no half-written file or folder
    for attempt in run.glob("attempts/*"):
        check_logs_replay(attempt)
        for path in (attempt / TRACES).glob("*"):
            list(read_trace(path))
