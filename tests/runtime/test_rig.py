"""The rig on which a machine is measured: real processes, one batch at a time, and the clocks of their threads."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("numba")
pytest.importorskip("zmq")
pytest.importorskip("scipy")

from persia.commands.rigging import rig_scenario
from persia.commands.simulate import resolved_yaml
from persia.runtime.interrupts import Interrupts
from persia.runtime.rig import open_rig
from persia.runtime.rig_pieces import share_of_wakes_that_move


def test_clocks_of_the_threads_tell_what_a_batch_costs() -> None:
    small, large = (
        rig_scenario(("schedule.mode=sync", f"workload.batch_size={size}", "model.features[0].ids_per_sample=10")) for size in (64, 2048)
    )
    with Interrupts() as interrupts, open_rig(interrupts) as rig:
        one = rig.measure(small, resolved_yaml(small), warm_batches=10, batches=4, seconds=0.3)
        other = rig.measure(large, resolved_yaml(large), warm_batches=10, batches=4, seconds=0.3)
        resident_gib = rig.resident_gib
    assert set(resident_gib) == {"loader", "embedding_worker", "parameter_server", "nn_worker"}
    assert one.batches > 0
    for key in (("nn_worker", "other"), ("embedding_worker", "main"), ("parameter_server", "main"), ("embedding_worker", "io")):
        assert 0.0 < one.thread_s[key] < other.thread_s[key], key
    assert {"dedup", "pool", "un-pool", "lookup", "update"} <= set(other.span_s)
    assert other.step_s > one.step_s
    # Both are processor time, of windows that differ by a batch at each end.
    assert other.span_s["lookup"] + other.span_s["update"] <= other.thread_s["parameter_server", "main"] * 1.3
    assert min(other.readings) > 0.0
    assert 0.0 <= other.unrest < 1.0  # of one half of the measurement against the other
    assert one.sleeps["embedding_worker", "main"] >= 1.0  # it waits for servers in each batch
    # One batch after another: its threads' work is what a batch takes, but for what two cores do side by side, and for what other
    # work of the machine keeps it waiting.
    busy = sum(other.thread_s.values()) / other.step_s
    assert busy < 1.7
    assert busy + other.other_cores > 0.5


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_how_often_a_woken_thread_moves_is_a_share_and_nothing_is_left_behind() -> None:
    before, fds = os.sched_getaffinity(0), _open_files()
    assert 0.0 <= share_of_wakes_that_move() <= 1.0
    assert os.sched_getaffinity(0) == before
    assert _open_files() <= fds + 1  # spawn's own resource tracker stays
    assert not multiprocessing.active_children()


def test_on_one_core_a_woken_thread_has_nowhere_to_go() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert share_of_wakes_that_move() == 1.0
    finally:
        os.sched_setaffinity(0, before)
