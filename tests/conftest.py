"""What all tests share: the command as a process, and which tests run only when asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support import ROOT, persia_environment

BENCHMARKS = ROOT / "tests" / "benchmarks"

Persia = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the benchmarks out unless the command line names them."""
    if collection_path == BENCHMARKS and not any("benchmarks" in argument for argument in config.args):
        return True
    return None


@pytest.fixture(autouse=True)
def one_thread_of_torch() -> None:
    """Tests run side by side and their tensors are tiny: a second thread waits for a processor at every operation."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def persia(tmp_path: Path) -> Persia:
    """Run `persia ARGUMENTS...` as a process in an empty folder, for so many seconds at most."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None, most_s: float = 120.0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "persia", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=persia_environment(env), capture_output=True, text=True, timeout=most_s)

    return run
