"""Ctrl-C leaves a valid partial run directory: exit code 130, no half-written file, and the run can be started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persia.commands.exits import ExitCode
from persia.scenario import load_scenario
from persia.schedule.log import read_log, replay
from tests.support import persia_environment

PATIENCE_S = 60


def wait_for_log(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the event log holds something, so that the signal comes in the middle of the simulation."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        assert process.poll() is None, "the run ended before it could be interrupted"
        if path.exists() and path.stat().st_size > 100_000:
            return
        time.sleep(0.02)
    pytest.fail("the simulation wrote no log")


@pytest.mark.parametrize("interrupts", [1, 3])
def test_interrupted_run_is_valid(tmp_path: Path, interrupts: int) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "persia", "simulate", "persia-100t", "--steps", "1000000", "--report", "--out", str(run)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=persia_environment(), stdout=pipe, stderr=pipe, text=True) as process:
        wait_for_log(run / "events.jsonl", process)
        for _ in range(interrupts):
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == ExitCode.INTERRUPTED
    assert out == ""
    assert "Traceback" not in err
    assert sorted(entry.name for entry in run.iterdir()) == ["events.jsonl", "run.json", "scenario.yaml"]
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    assert load_scenario(run / "scenario.yaml").simulation.steps == 1_000_000
    with (run / "events.jsonl").open(encoding="utf-8") as lines:
        header, entries = read_log(lines)
        assert replay(header, entries) is None
