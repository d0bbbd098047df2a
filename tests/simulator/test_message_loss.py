"""Lost requests and answers between workers and servers: asked again, applied once, and slower."""

from __future__ import annotations

import io
from collections import Counter

import pytest

from persia.schedule import messages as m
from persia.schedule.log import Entry, read_log, replay
from simulator import SimulationResult
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL, rate

MODES = ("sync", "async", "naive-hybrid", "hybrid")
STEPS = 40
RANKS, SERVERS = 4, 2


def run(mode: str, loss: float) -> tuple[SimulationResult, str]:
    """One permit, so that nothing hides a retry; the log is kept."""
    log = io.StringIO()
    overrides = (
        f"schedule.mode={mode}",
        "simulation.fidelity=message",
        f"simulation.message_loss={loss}",
        "schedule.staleness_permits=1",
        "schedule.request_timeout=5ms",
        "schedule.retry_backoff=1ms",
    )
    return simulate(SMALL, overrides=overrides, steps=STEPS, log=log, check_invariants=True), log.getvalue()


def entries(log: str) -> list[Entry]:
    return list(read_log(log.splitlines())[1])


@pytest.mark.parametrize("mode", MODES)
def test_losses_slow_a_run_down_and_lose_nothing(mode: str) -> None:
    lossless, _ = run(mode, 0.0)
    lossy, log = run(mode, 0.02)
    assert lossy.steps == STEPS
    assert 0.3 * rate(lossless) < rate(lossy) < 0.95 * rate(lossless)  # time-outs of 5 ms, not of the 1,000 s of a forgotten batch
    heard = entries(log)
    failed = [entry for entry in heard if isinstance(entry.event, m.ServerFailed)]
    assert len(failed) > 5
    applied = Counter((entry.index, entry.event.batch) for entry in heard if isinstance(entry.event, m.UpdateApplied))
    assert set(applied.values()) == {1}
    pushed = {entry.event.batch for entry in heard if isinstance(entry.event, m.Pushed)}
    for rank in range(RANKS):
        own = sorted(batch for batch in pushed if batch % RANKS == rank)
        assert own == [rank + step * RANKS for step in range(len(own))]  # none is left out
    assert {(server, batch) for batch in pushed for server in range(SERVERS)} <= set(applied)


@pytest.mark.parametrize("mode", MODES)
def test_a_lossy_run_replays_and_repeats(mode: str) -> None:
    lossy, log = run(mode, 0.02)
    assert replay(*read_log(log.splitlines())) is None
    again, log_again = run(mode, 0.02)
    assert again.digest == lossy.digest
    assert log_again == log


def test_a_lost_request_is_asked_again_after_the_time_out_and_the_back_off() -> None:
    _, log = run("sync", 0.02)
    heard = entries(log)
    for failed in heard:
        if isinstance(failed.event, m.ServerFailed) and failed.time_s < heard[-1].time_s - 0.1:
            asked = [m.RetryLookup(failed.event.batch, failed.event.server), m.RetryUpdate(failed.event.batch, failed.event.server)]
            first = next(entry for entry in heard if entry.time_s >= failed.time_s and any(command in asked for command in entry.commands))
            assert first.time_s - failed.time_s + 1e-9 >= 1e-3
            assert first.time_s - failed.time_s < 10e-3
