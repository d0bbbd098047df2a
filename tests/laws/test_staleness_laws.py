"""Laws of staleness: who trains with how old rows follows from how many batches are in flight, and from nothing else."""

from __future__ import annotations

import pytest

from simulator.statistics import replication_interval
from tests.simulator.small_clusters import TIERS, run_small, sizes

SEEDS = (1, 2, 3, 4)
# Between an applied update and the lookup that its permit lets go lie three hops and a command, 0.4 ms: these ranks
# need more than 40 ms for a batch, so that a permit is idle for less than one part in a hundred.
IDLE = 0.01


def slow_ranks(ranks: int) -> str:
    """Let every rank take ten times as long, and all the same."""
    return f"simulation.slow_machines=[{', '.join(f'{{tier: nn_worker, index: {rank}, factor: 10}}' for rank in range(ranks))}]"


def asynchronous(ranks: int, permits: int, fidelity: str) -> tuple[str, ...]:
    return (
        *sizes(ranks, 2, 2),
        f"{TIERS}.loader.count={ranks}",
        "schedule.mode=async",
        f"schedule.staleness_permits={permits}",
        f"simulation.fidelity={fidelity}",
        "simulation.step_noise_cv=0.2",  # ranks that all start at once soon go their own ways
        slow_ranks(ranks),
    )


@pytest.mark.parametrize(
    ("ranks", "permits", "fidelity"),
    [
        (2, 1, "phase"),
        (4, 1, "phase"),
        (8, 1, "phase"),
        (16, 1, "phase"),
        (2, 6, "phase"),
        (4, 3, "phase"),
        (8, 5, "phase"),
        (4, 1, "message"),
        (3, 2, "message"),
    ],
)
def test_equal_asynchronous_ranks_are_stale_by_all_other_batches_in_flight(ranks: int, permits: int, fidelity: str) -> None:
    """N ranks of S permits each: N S - 1 versions; with one permit N - 1.

    While a batch is in flight each of the other N S - 1 permits passes once from lookup to update, in the long run: the
    ranks are equal, and no permit is idle for long.
    """
    steps = 80 if fidelity == "phase" else 30
    means = [run_small(asynchronous(ranks, permits, fidelity), steps, seed).staleness.version.mean for seed in SEEDS]
    interval = replication_interval(means)
    expected = ranks * permits - 1
    half = interval.high - interval.mean
    assert (1.0 - IDLE) * expected - half <= interval.mean <= expected + half
    assert half <= max(0.1, 0.05 * expected)


@pytest.mark.parametrize("mode", ["async", "hybrid"])
def test_permits_that_do_not_bind_leave_staleness_to_the_time_in_flight(mode: str) -> None:
    """With more permits than lookup and push can fill, it is the prefetch that binds: 20 batches waiting, and those between."""
    held = [run_small((f"schedule.mode={mode}", f"schedule.staleness_permits={permits}"), 150) for permits in (40, 80)]
    assert held[0].staleness.version.mean == pytest.approx(held[1].staleness.version.mean, rel=0.02)
    assert held[0].staleness.in_flight.max < 40


@pytest.mark.parametrize("fidelity", ["phase", "message"])
@pytest.mark.parametrize("ranks", [2, 5])
def test_sync_is_never_stale(ranks: int, fidelity: str) -> None:
    result = run_small((*sizes(ranks, 2, 3), "schedule.mode=sync", f"simulation.fidelity={fidelity}"), 40)
    assert set(result.staleness.version.histogram) == {0}
    assert set(result.staleness.row.histogram) == {0}
    assert set(result.staleness.in_flight.histogram) == {1}


@pytest.mark.parametrize("mode", ["async", "naive-hybrid", "hybrid"])
def test_staleness_never_exceeds_the_permits(mode: str) -> None:
    """A batch's staleness is at most what is in flight at its lookup and what its peers begin before its update."""
    for permits in (1, 4):
        version = run_small((f"schedule.mode={mode}", f"schedule.staleness_permits={permits}")).staleness.version
        assert version.mean <= 4 * permits
        assert version.max <= 3 * 4 * permits
