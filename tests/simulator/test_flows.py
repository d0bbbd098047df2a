"""Flows as events, against flows followed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.engine import new_engine
from simulator.network.fairshare import max_min_rates, pad_paths
from simulator.network.flows import FlowNetwork

Flow = tuple[float, float, list[int]]  # start, bytes, path


def ends_by_engine(flows: list[Flow], capacity: np.ndarray, name: str) -> list[float]:
    """When each flow ends, by events."""
    engine = new_engine(name)
    network = FlowNetwork(engine, capacity)
    ends = [float("nan")] * len(flows)

    def done(flow: int) -> None:
        ends[flow] = engine.now_s

    for number, (start_s, size, path) in enumerate(flows):
        engine.call_later(start_s, network.start, size, path, done, number)
    engine.run()
    assert network.flows == 0
    return ends


def ends_by_hand(flows: list[Flow], capacity: np.ndarray) -> list[float]:
    """The same, from one change to the next over all flows."""
    left = {number: size for number, (_, size, _) in enumerate(flows)}
    ends = [0.0] * len(flows)
    now = 0.0
    while left:
        running = [number for number in left if flows[number][0] <= now + 1e-12]
        rates = max_min_rates(pad_paths([flows[number][2] for number in running], len(capacity)), capacity)
        coming = [flows[number][0] - now for number in left if number not in running]
        step = min([*coming, *(left[number] / rate for number, rate in zip(running, rates, strict=True))])
        now += step
        for number, rate in zip(running, rates, strict=True):
            left[number] -= rate * step
            if left[number] <= 1e-9 * flows[number][1]:
                ends[number] = now
                del left[number]
    return ends


@settings(max_examples=60, deadline=None)
@given(
    flows=st.lists(
        st.tuples(st.floats(0, 10), st.floats(1, 100), st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True)),
        min_size=1,
        max_size=25,
    ),
    name=st.sampled_from(["simpy", "heapq"]),
)
def test_flows_end_as_by_hand(flows: list[Flow], name: str) -> None:
    capacity = np.array([1.0, 5.0, 10.0, 20.0, 3.0])
    assert ends_by_engine(flows, capacity, name) == pytest.approx(ends_by_hand(flows, capacity), rel=1e-6, abs=1e-6)


def test_two_flows_share_and_the_second_speeds_up() -> None:
    capacity = np.array([10.0])
    assert ends_by_engine([(0.0, 50.0, [0]), (0.0, 100.0, [0])], capacity, "heapq") == [10.0, 15.0]


def test_a_flow_inside_a_machine_takes_no_time() -> None:
    assert ends_by_engine([(2.0, 1e12, []), (3.0, 0.0, [0])], np.array([1.0]), "heapq") == [2.0, 3.0]


def test_a_fan_out_settles_once() -> None:
    engine = new_engine("heapq")
    network = FlowNetwork(engine, np.full(31, 10.0))
    ended: list[int] = []
    for server in range(30):
        network.start(10.0, [30, server], ended.append, server)
    engine.run()
    assert ended == list(range(30))
    assert engine.now_s == pytest.approx(30.0)
    assert network.settlements == 2  # all came together, all went together
    assert network.carried_bytes[30] == 300.0


def test_a_flow_started_by_anothers_end_runs() -> None:
    engine = new_engine("heapq")
    network = FlowNetwork(engine, np.array([2.0]))
    ended: list[float] = []
    network.start(4.0, [0], lambda: network.start(6.0, [0], lambda: ended.append(engine.now_s)))
    engine.run()
    assert ended == [5.0]


def test_a_path_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="longest"):
        FlowNetwork(new_engine("heapq"), np.ones(20)).start(1.0, list(range(9)), print)


def test_hundreds_of_flows_a_step_are_affordable() -> None:
    """100 workers ask 30 servers at once: 3,000 flows through 130 links come and go in a few settlements."""
    engine = new_engine("heapq")
    network = FlowNetwork(engine, np.full(130, 4e9))
    ended: list[int] = []
    for worker in range(100):
        for server in range(30):
            network.start(1e5, [100 + server, worker], ended.append, server)
    engine.run()
    assert len(ended) == 3000
    assert engine.now_s == pytest.approx(100 * 1e5 / 4e9)
    assert network.settlements < 10
