"""A process that changes a table is killed at any instruction: nothing is lost, torn, doubled or applied twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from tests.embedding.stepped import NOT_ALLOWED
from tests.support import ROOT


def program(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program that forks, away from the threads of this process."""
    command = [sys.executable, "-m", f"tests.embedding.{name}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("keys", "capacity", "bytes_per_parameter"), [(3000, 4000, 4), (3000, 1500, 2)])
def test_killed_at_random_moments(tmp_path: Path, keys: int, capacity: int, bytes_per_parameter: int) -> None:
    done = program("kill_rounds", tmp_path, 25, keys, capacity, bytes_per_parameter)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("25 kills")


@pytest.mark.slow
def test_killed_after_each_instruction(tmp_path: Path) -> None:
    done = program("stepped", tmp_path)
    if done.returncode == NOT_ALLOWED:
        pytest.skip("no process may be traced here")
    assert done.returncode == 0, done.stderr
    states = {name: int(count.split()[0]) for name, count in (line.split(": ") for line in done.stdout.splitlines())}
    assert states["lookup"] > 50
    assert states["update"] > 600
