"""The probe of the memory's speed: what it tells of a time."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding.reads import read_at
from persia.runtime.memory_probe import MemoryProbe


def test_it_reads_what_is_there() -> None:
    values = np.arange(100, dtype=np.float32)
    assert read_at(values, np.array([3, 3, 90])) == 96.0


def test_it_tells_of_the_time_that_is_asked_for_and_of_no_other() -> None:
    with MemoryProbe() as probe:
        began_s = time.time()
        time.sleep(0.3)
        ended_s = time.time()
    assert 1e-6 < probe.mean_s(began_s, ended_s) < 0.1
    with pytest.raises(ValueError, match="nothing was read"):
        probe.mean_s(ended_s + 1.0, ended_s + 2.0)
