"""Little's law inside a running simulation: what is in flight is throughput times time, counted in three independent ways."""

from __future__ import annotations

import io
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from persia.schedule import messages as m
from persia.schedule.log import read_log
from simulator import SimulationResult
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL, rate

STEPS = 120


@dataclass
class Visits:
    """When each batch of the log reached each stage at its rank, in seconds."""

    asked_s: dict[int, float] = field(default_factory=dict)
    looked_up_s: dict[int, float] = field(default_factory=dict)
    begun_s: dict[int, float] = field(default_factory=dict)
    trained_s: dict[int, float] = field(default_factory=dict)
    pushed_s: dict[int, float] = field(default_factory=dict)


def visits_of(log: str) -> Visits:
    visits = Visits()
    heard = {m.LookedUp: visits.looked_up_s, m.DenseDone: visits.trained_s, m.Pushed: visits.pushed_s}
    said = {m.Lookup: visits.asked_s, m.TrainDense: visits.begun_s}
    for entry in read_log(log.splitlines())[1]:
        if entry.role == "nn_worker":
            for word, table in [(entry.event, heard), *((command, said) for command in entry.commands)]:
                if type(word) in table:
                    table[type(word)][word.batch] = entry.time_s  # type: ignore[index]
    return visits


def mean_in_system(arrived_s: dict[int, float], left_s: dict[int, float], start_s: float, end_s: float) -> float:
    """The time average, over the window, of how many have arrived and not left."""
    held_s = 0.0
    for batch, since_s in arrived_s.items():
        held_s += max(0.0, min(end_s, left_s.get(batch, end_s)) - max(start_s, since_s))
    return held_s / (end_s - start_s)


def mean_between(since_s: dict[int, float], until_s: dict[int, float], start_s: float) -> float:
    waits = [until_s[batch] - since_s[batch] for batch in until_s if since_s[batch] >= start_s]
    return sum(waits) / len(waits)


def run(mode: str, *more: str) -> tuple[SimulationResult, Visits]:
    log = io.StringIO()
    result = simulate(SMALL, overrides=(f"schedule.mode={mode}", *more), steps=STEPS, log=log)
    return result, visits_of(log.getvalue())


SERVERS_BIND = "cluster.tiers.parameter_server.threads_per_process=1"
CASES = [("sync",), ("async",), ("naive-hybrid",), ("hybrid",), ("hybrid", SERVERS_BIND), ("async", "schedule.staleness_permits=2")]


@pytest.mark.parametrize("case", CASES)
def test_batches_in_flight_are_throughput_times_their_time(case: tuple[str, ...]) -> None:
    result, visits = run(*case)
    end_s = result.simulated_s
    start_s = 0.2 * end_s
    batches_per_s = sum(start_s <= at_s <= end_s for at_s in visits.pushed_s.values()) / (end_s - start_s)
    stages = {
        "lookup": (visits.asked_s, visits.looked_up_s),
        "wait": (visits.looked_up_s, visits.begun_s),
        "dense": (visits.begun_s, visits.trained_s),
        "push": (visits.trained_s, visits.pushed_s),
        "all": (visits.asked_s, visits.pushed_s),
    }
    sums: dict[str, float] = defaultdict(float)
    for name, (since_s, until_s) in stages.items():
        mean_s = mean_between(since_s, until_s, start_s)
        in_stage = mean_in_system(since_s, until_s, start_s, end_s)
        assert in_stage == pytest.approx(batches_per_s * mean_s, rel=0.03, abs=0.01), name
        sums["stages" if name != "all" else "all"] += in_stage
    assert sums["stages"] == pytest.approx(sums["all"], rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_what_the_result_says_agrees_with_the_log(case: tuple[str, ...]) -> None:
    result, visits = run(*case)
    start_s = sorted(visits.trained_s.values())[result.warmup_steps * result.ranks - 1]
    assert result.latency_s["lookup"] == pytest.approx(mean_between(visits.asked_s, visits.looked_up_s, start_s), rel=0.05)
    assert result.latency_s["push"] == pytest.approx(mean_between(visits.trained_s, visits.pushed_s, start_s), rel=0.05)
    trained = sum(at_s > start_s for at_s in visits.trained_s.values())
    assert rate(result) == pytest.approx(trained * result.batch_size / (result.simulated_s - start_s), rel=0.01)
