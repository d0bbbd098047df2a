"""The all-reduce of ranks that share a machine."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from simulator.core import Job, Thread
from simulator.engine import HeapEngine
from simulator.host_ring import Ring
from simulator.processor import Processor


class _Machine:
    """What a ring needs of a host: threads that work."""

    def __init__(self, cores: float) -> None:
        self.engine = HeapEngine()
        self.processor = Processor(self.engine, cores)
        self.worked_s = 0.0

    def run(self, thread: Thread, work_s: float, then: Callable[..., None], *args: Any) -> None:
        self.worked_s += work_s
        self.processor.run(thread, Job(work_s, then, args))


def _ends(
    cores: float, ranks: int, reduce_s: float, joins: dict[float, list[int]], *, steps: int = 1
) -> tuple[dict[int, list[float]], _Machine]:
    machine = _Machine(cores)
    ends: dict[int, list[float]] = {rank: [] for rank in range(ranks)}

    def done(rank: int, batch: int, since_s: float) -> None:
        ends[rank].append(machine.engine.now_s)
        if len(ends[rank]) < steps:
            ring.join(rank, batch + ranks, machine.engine.now_s)

    processes: list[Any] = [SimpleNamespace(main=Thread(machine.processor.group())) for _ in range(ranks)]
    host: Any = machine
    ring = Ring(host, processes, reduce_s, done)
    for at_s, who in joins.items():
        for rank in who:
            machine.engine.call_later(at_s, ring.join, rank, rank, at_s)
    machine.engine.run()
    return ends, machine


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_that_join_together_end_together_and_add_one_piece_up_while_they_move_another(ranks: int) -> None:
    ends, machine = _ends(64.0, ranks, 0.6, {0.0: list(range(ranks))})
    end_s = ends[0][0]
    assert [end for each in ends.values() for end in each] == pytest.approx([end_s] * ranks)
    assert 0.75 * 0.6 < end_s < 0.9 * 0.6  # three quarters are the work of one thread
    assert machine.worked_s == pytest.approx(0.6 * ranks)


def test_nobody_has_the_sum_before_the_last_rank_has_joined() -> None:
    ends, _ = _ends(64.0, 3, 0.4, {0.0: [0, 2], 5.0: [1]})
    assert min(end for each in ends.values() for end in each) > 5.0
    assert max(end for each in ends.values() for end in each) <= 5.0 + 2 * 0.4


def test_every_step_is_reduced_though_a_rank_may_be_a_step_ahead_of_its_neighbour() -> None:
    ends, machine = _ends(64.0, 4, 0.6, {0.0: [0], 0.1: [1, 2], 0.5: [3]}, steps=5)
    assert [len(each) for each in ends.values()] == [5] * 4
    assert machine.worked_s == pytest.approx(5 * 4 * 0.6)


def test_on_one_core_all_ranks_hops_wait_for_each_other() -> None:
    ends, _ = _ends(1.0, 4, 0.6, {0.0: list(range(4))})
    assert max(end for each in ends.values() for end in each) == pytest.approx(4 * 0.6)
