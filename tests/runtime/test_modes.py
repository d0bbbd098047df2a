"""Every mode trains exactly what its logs say: carried out once more in their order, plain PyTorch gets the same weights."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")
pytest.importorskip("torch")

import numpy as np

from tests.runtime.log_driven import LogDriven
from tests.runtime.runs import OPTIMIZERS, assert_close, run_of
from tests.runtime.test_logs_replay import MODES


@pytest.mark.parametrize("mode", MODES)
def test_the_logs_tell_what_was_trained(tmp_path_factory: pytest.TempPathFactory, mode: str) -> None:
    run = run_of(tmp_path_factory, MODES[mode], f"schedule.mode={mode}")
    again = LogDriven(run).train()
    assert_close("dense parameters", run.dense_vector(), again.dense())
    for place, optimizer in enumerate(OPTIMIZERS):
        keys, values = again.rows(place)
        rows = run.rows(place)
        assert np.array_equal(rows.keys, keys)
        assert_close(f"rows under {optimizer}", rows.values, values)
