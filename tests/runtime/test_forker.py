"""Processes forked from one that has imported everything: their output, their end, and the end of the forker itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.runtime.forker import Child, Forker
from persia.runtime.processes import child_environment
from tests.runtime.faults import children_of, gone_within

PATIENCE_S = 30.0
LASTING = "import signal, sys\nfrom persia.runtime import node\nnode.main = lambda arguments: signal.pause() or 0\n"


@pytest.fixture
def forker() -> Iterator[Forker]:
    made = Forker(child_environment(), torch=False)
    yield made
    made.close()


def fork(forker: Forker, folder: Path, *arguments: str) -> Child:
    with (folder / "output").open("ab") as output:
        return forker.fork(arguments, output.fileno())


def test_a_process_runs_in_this_folder_writes_where_it_should_and_tells_its_end(
    forker: Forker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    child = fork(forker, tmp_path, "no-session.json", "loader", "0", "0")
    assert child.wait(PATIENCE_S) == 1
    assert child.poll() == child.returncode == 1
    assert "loader 0: [Errno 2] No such file or directory: 'no-session.json'" in (tmp_path / "output").read_text()


def test_the_next_process_starts_in_a_moment(forker: Forker, tmp_path: Path) -> None:
    fork(forker, tmp_path, "no-session.json", "loader", "0", "0").wait(PATIENCE_S)  # the forker is prepared now
    began_s = time.process_time()
    children = [fork(forker, tmp_path, "no-session.json", "embedding_worker", str(index), "0") for index in range(8)]
    assert [child.wait(PATIENCE_S) for child in children] == [1] * 8
    assert len({child.pid for child in children}) == 8
    assert time.process_time() - began_s < 2.0


def test_its_processes_share_the_cores_with_all_others_but_do_not_get_the_terminals_signals(lasting: tuple[Forker, Child]) -> None:
    _, child = lasting
    assert os.getsid(child.pid) == os.getsid(0)
    assert os.getpgid(child.pid) != os.getpgid(0)


@pytest.fixture
def lasting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Forker, Child]]:
    """A process that does nothing until it is killed."""
    (tmp_path / "sitecustomize.py").write_text(LASTING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    made = Forker(child_environment(), torch=False)
    yield made, fork(made, tmp_path, "session.json", "loader", "0", "0")
    made.close()


def test_killing_a_process_is_seen(lasting: tuple[Forker, Child]) -> None:
    _, child = lasting
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.2)
    assert child.poll() is None
    child.kill()
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    child.kill()  # once more is nothing


def test_without_its_forker_a_process_counts_as_dead_and_no_other_can_be_had(lasting: tuple[Forker, Child], tmp_path: Path) -> None:
    forker, child = lasting
    (forker_pid,) = [pid for pid in children_of(os.getpid()) if child.pid in children_of(pid)]
    os.kill(forker_pid, signal.SIGKILL)
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    assert forker.gone
    with pytest.raises(OSError, match=r"gone|closed|Bad file|ended"):
        fork(forker, tmp_path, "session.json", "loader", "0", "0")
    os.kill(child.pid, signal.SIGKILL)  # its own look at its parent is `node.main`'s


def test_the_forker_ends_with_whoever_started_it(tmp_path: Path) -> None:
    text = (
        "import sys, time\nfrom persia.runtime.forker import forker_of\nfrom persia.runtime.processes import child_environment\n"
        "forker = forker_of(child_environment(), torch=False)\nprint(forker._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env=child_environment()) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
    gone_within([pid], PATIENCE_S)
