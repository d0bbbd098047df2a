"""The probe of a machine's speed: what it tells of a time."""

from __future__ import annotations

import time

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding.reads import read_at
from persia.runtime.probe import Probe


def test_it_reads_what_is_there() -> None:
    values = np.arange(100, dtype=np.float32)
    assert read_at(values, np.array([3, 3, 90])) == 96.0


def test_it_tells_of_the_time_that_is_asked_for_and_of_no_other() -> None:
    with Probe() as probe:
        began_s = time.time()
        time.sleep(0.3)
        ended_s = time.time()
    assert all(1e-6 < each_s < 0.1 for each_s in probe.mean(began_s, ended_s))
    with pytest.raises(ValueError, match="nothing was read"):
        probe.mean(ended_s + 1.0, ended_s + 2.0)
