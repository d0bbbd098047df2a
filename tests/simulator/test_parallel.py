"""Work side by side: in order, with its errors, and gone when its parent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persia.scenario import ScenarioError
from simulator.parallel import parallel_map
from tests.support import persia_environment

_KILLED = """
import os, time
from simulator.parallel import parallel_map

def sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(parallel_map(sleep, [60.0, 60.0]))
"""
several_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core: everything is done in this process")


def _inverse(number: float) -> float:
    return 1.0 / number


def _refuse(name: str) -> float:
    raise ScenarioError(
        f"no {name}", file="a.yaml", line=3, column=4, remedy="Take another.", more=[ScenarioError("b", file="b", remedy="c")]
    )


def _process(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def test_results_come_in_the_order_of_items() -> None:
    assert list(parallel_map(_inverse, [4.0, 2.0, 1.0])) == [0.25, 0.5, 1.0]
    assert list(parallel_map(_inverse, [])) == []


def test_what_is_raised_is_raised_behind_the_results_before_it() -> None:
    results = parallel_map(_inverse, [2.0, 0.0, 1.0])
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_mistake_of_the_user_is_told_from_another_process() -> None:
    with pytest.raises(ScenarioError) as told:
        list(parallel_map(_refuse, ["one", "other"]))
    assert told.value.lines() == ["a.yaml:3:4: no one. Take another.", "b: b. c"]


@several_cores
def test_items_are_dealt_to_other_processes() -> None:
    assert os.getpid() not in set(parallel_map(_process, range(6)))


@several_cores
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(_KILLED, encoding="utf-8")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=persia_environment()) as parent:
        assert parent.stdout is not None
        started = [parent.stdout.readline() for _ in range(2)]
        parent.send_signal(signal.SIGKILL)
        parent.communicate(timeout=20.0)  # returns once nobody holds the pipe any more
    assert len(set(started)) == 2
