"""A process that changes a table is killed at any instruction: nothing is lost, torn, doubled or applied twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding import layout, update_kernels, upkeep_kernels
from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import check, looked_up, ones, peeked, spec_of, u64
from tests.support import ROOT


@pytest.mark.parametrize(("keys", "capacity", "bytes_per_parameter"), [(3000, 4000, 4), (3000, 1500, 4), (3000, 1500, 2)])
def test_killed_at_random_moments(tmp_path: Path, keys: int, capacity: int, bytes_per_parameter: int) -> None:
    command = [sys.executable, "-m", "tests.embedding.kill_rounds", tmp_path, 15, keys, capacity, bytes_per_parameter]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("15 kills")
