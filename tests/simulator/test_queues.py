"""The busy-until queues against a textbook queue that moves customer by customer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.queues import Cores, CoresVector, Link, LinkVector


def fifo_by_hand(arrivals: list[float], services: list[float], cores: int) -> list[float]:
    """End of each job, by looking over all cores every time."""
    idle_from = [0.0] * cores
    ends = []
    for arrival, service in zip(arrivals, services, strict=True):
        core = idle_from.index(min(idle_from))
        idle_from[core] = max(arrival, idle_from[core]) + service
        ends.append(idle_from[core])
    return ends


@given(
    jobs=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 10)), min_size=1, max_size=60),
    cores=st.integers(1, 7),
)
def test_cores_serve_like_a_queue_by_hand(jobs: list[tuple[float, float]], cores: int) -> None:
    arrivals = np.cumsum([gap for gap, _ in jobs]).tolist()
    services = [service for _, service in jobs]
    server = Cores(cores)
    ends = [server.serve(a, s) for a, s in zip(arrivals, services, strict=True)]
    assert ends == pytest.approx(fifo_by_hand(arrivals, services, cores))
    assert server.busy_s == pytest.approx(sum(services))
    assert server.jobs == len(jobs)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    servers=st.integers(1, 12),
    cores=st.integers(1, 9),
    load=st.floats(0.1, 1.5),
    deterministic=st.booleans(),
)
def test_a_vector_of_servers_equals_each_server_alone(seed: int, servers: int, cores: int, load: float, deterministic: bool) -> None:
    rng = np.random.default_rng(seed)
    together = CoresVector(servers, cores)
    alone = [Cores(cores) for _ in range(servers)]
    arrivals = np.cumsum(rng.exponential(1.0 / (load * cores), size=(80, servers)), axis=0)
    services = rng.exponential(1.0, size=(80, servers))
    for k in range(80):
        service = float(1 + k % 2) if deterministic else services[k]
        ends = together.serve(arrivals[k], service)
        per_server = np.broadcast_to(service, servers)
        expected = [server.serve(float(a), float(s)) for server, a, s in zip(alone, arrivals[k], per_server, strict=True)]
        np.testing.assert_allclose(ends, expected, rtol=1e-12)
    np.testing.assert_allclose(together.busy_s, [server.busy_s for server in alone])


def test_a_single_servers_job_queues_with_the_vectors_jobs() -> None:
    together = CoresVector(2, 2)
    together.serve(np.array([0.0, 0.0]), 10.0)
    assert together.serve_one(1, 1.0, 3.0) == 4.0
    np.testing.assert_array_equal(together.serve(np.array([2.0, 2.0]), 1.0), [3.0, 5.0])
    np.testing.assert_array_equal(together.busy_s, [11.0, 14.0])


def test_no_job_starts_before_its_own_arrival_even_out_of_order() -> None:
    together = CoresVector(3, 2)
    rng = np.random.default_rng(7)
    for k in range(200):
        arrival = k * 0.4 + rng.uniform(0, 2, 3)
        assert (together.serve(arrival, 1.0) >= arrival + 1.0).all()


@given(arrivals=st.lists(st.floats(0, 100), min_size=1, max_size=40), busy=st.floats(0, 50), each=st.floats(0.1, 10))
def test_fan_in_is_one_message_after_another_earliest_first(arrivals: list[float], busy: float, each: float) -> None:
    by_hand, at_once = Link(2.0), Link(2.0)
    by_hand.send(0.0, busy)
    at_once.send(0.0, busy)
    for arrival in sorted(arrivals):
        by_hand.send(arrival, each)
    assert at_once.fan_in(np.array(arrivals), each) == pytest.approx(by_hand.busy_until_s)
    assert at_once.bytes_sent == pytest.approx(by_hand.bytes_sent)


def test_fan_out_is_one_message_behind_the_other() -> None:
    by_hand, at_once = Link(100.0), Link(100.0)
    by_hand.send(0.0, 500.0)
    at_once.send(0.0, 500.0)
    expected = [by_hand.send(2.0, 50.0) for _ in range(4)]
    np.testing.assert_allclose(at_once.fan_out(2.0, 4, 50.0), expected)
    assert at_once.busy_s == pytest.approx(7.0)


def test_a_vector_of_links_equals_each_link_alone() -> None:
    rng = np.random.default_rng(3)
    together, alone = LinkVector(5, 10.0), [Link(10.0) for _ in range(5)]
    for k in range(50):
        arrivals = k * 0.5 + rng.uniform(0, 1, 5)
        size = rng.uniform(1, 10, 5) if k % 2 else 4.0
        ends = together.send(arrivals, size)
        sizes = np.broadcast_to(size, 5)
        expected = [link.send(float(a), float(b)) for link, a, b in zip(alone, arrivals, sizes, strict=True)]
        np.testing.assert_allclose(ends, expected)
    assert together.send_one(2, 1000.0, 20.0) == alone[2].send(1000.0, 20.0)
    np.testing.assert_allclose(together.busy_s, [link.busy_s for link in alone])


def test_a_link_is_never_faster_than_its_rate() -> None:
    link = Link(8.0)
    assert link.send(1.0, 16.0) == 3.0
    assert link.send(1.0, 16.0) == 5.0
    assert link.send(9.0, 8.0) == 10.0


@pytest.mark.parametrize(
    "bad", [lambda: Cores(0), lambda: CoresVector(0, 1), lambda: CoresVector(1, 0), lambda: Link(0.0), lambda: LinkVector(0, 1.0)]
)
def test_impossible_resources_are_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="need"):
        bad()  # type: ignore[operator]
