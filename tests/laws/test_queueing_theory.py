"""Laws of queueing theory: waiting times within their confidence intervals, and Little's law on every queue."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from simulator.queues import Cores, CoresVector, Link, LinkVector
from simulator.statistics import batch_means_interval

CUSTOMERS = 200_000
WARMUP = 10_000


def mdc_mean_wait(arrival_rate: float, service_s: float, cores: int) -> float:
    """Exact mean wait in M/D/c: Crommelin's relation N(t + D) = max(N(t) - c, 0) + arrivals in D, solved by iteration.

    Tijms, "A First Course in Stochastic Models" (2003), section 9.6.2.
    """
    size = 60 * cores
    mean = arrival_rate * service_s
    counts = np.arange(size)
    poisson = np.exp(counts * math.log(mean) - mean - np.array([math.lgamma(k + 1.0) for k in counts]))
    inside = np.zeros(size)
    inside[0] = 1.0
    for _ in range(20_000):
        left = np.concatenate(([inside[: cores + 1].sum()], inside[cores + 1 :]))
        following = np.convolve(left, poisson)[:size]
        if np.abs(following - inside).max() < 1e-13:
            break
        inside = following
    waiting = float(np.maximum(counts - cores, 0) @ inside / inside.sum())
    return waiting / arrival_rate


def erlang_c_mean_wait(arrival_rate: float, service_s: float, cores: int) -> float:
    """Exact mean wait in M/M/c (Erlang's C formula over c / service - arrival rate)."""
    offered = arrival_rate * service_s
    blocked = 1.0
    for k in range(1, cores + 1):
        blocked = offered * blocked / (k + offered * blocked)
    delayed = blocked / (1.0 - offered / cores * (1.0 - blocked))
    return delayed / (cores / service_s - arrival_rate)


def waits(serve: Callable[[float, float], float], arrivals: np.ndarray, services: np.ndarray) -> np.ndarray:
    """Time in the queue of each customer, after the warm-up."""
    ends = np.array([serve(a, s) for a, s in zip(arrivals.tolist(), services.tolist(), strict=True)])
    waited: np.ndarray = (ends - services - arrivals)[WARMUP:]
    return waited


def assert_mean(samples: np.ndarray, expected: float, widest: float = 0.06) -> None:
    """The 99 % interval holds the expected mean, and is narrow enough for that to mean something."""
    interval = batch_means_interval(samples, confidence=0.99)
    assert interval.low <= expected <= interval.high, (interval, expected)
    assert interval.high - interval.low <= 2 * widest * interval.mean, interval


def test_the_formula_for_m_d_1_is_pollaczek_khinchine() -> None:
    assert mdc_mean_wait(0.8, 1.0, 1) == pytest.approx(0.8 / (2 * 0.2), rel=1e-6)


@pytest.mark.parametrize(("cores", "load"), [(1, 0.5), (1, 0.8), (4, 0.8), (16, 0.8)])
def test_mean_wait_in_m_m_c(cores: int, load: float) -> None:
    rng = np.random.default_rng([1, cores])
    arrivals = np.cumsum(rng.exponential(1.0 / (load * cores), CUSTOMERS))
    samples = waits(Cores(cores).serve, arrivals, rng.exponential(1.0, CUSTOMERS))
    assert_mean(samples, erlang_c_mean_wait(load * cores, 1.0, cores), widest=0.2)


@pytest.mark.parametrize(("cores", "load"), [(1, 0.8), (2, 0.8), (8, 0.9), (26, 0.9)])
def test_mean_wait_in_m_d_c(cores: int, load: float) -> None:
    rng = np.random.default_rng([2, cores])
    arrivals = np.cumsum(rng.exponential(1.0 / (load * cores), CUSTOMERS))
    samples = waits(Cores(cores).serve, arrivals, np.ones(CUSTOMERS))
    assert_mean(samples, mdc_mean_wait(load * cores, 1.0, cores), widest=0.2)


def test_mean_wait_in_m_d_c_on_a_vector_of_servers() -> None:
    servers, cores, load = 24, 4, 0.85
    rng = np.random.default_rng(3)
    arrivals = np.cumsum(rng.exponential(1.0 / (load * cores), (20_000, servers)), axis=0)
    together = CoresVector(servers, cores)
    samples = np.array([together.serve(arrival, 1.0) - arrival - 1.0 for arrival in arrivals])[2_000:].mean(axis=1)
    assert_mean(samples, mdc_mean_wait(load * cores, 1.0, cores), widest=0.05)


def test_mean_wait_at_a_link_is_m_d_1() -> None:
    rng = np.random.default_rng(4)
    arrivals = np.cumsum(rng.exponential(1.0 / 0.7, CUSTOMERS))
    link = Link(1000.0)
    samples = np.array([link.send(a, 1000.0) - a - 1.0 for a in arrivals.tolist()])[WARMUP:]
    assert_mean(samples, 0.7 / (2 * 0.3))


def test_mean_wait_at_a_vector_of_links_is_m_m_1() -> None:
    links, load = 16, 0.6
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.exponential(1.0 / load, (20_000, links)), axis=0)
    sizes = rng.exponential(1.0, (20_000, links))
    vector = LinkVector(links, 1.0)
    ends = np.array([vector.send(a, b) for a, b in zip(arrivals, sizes, strict=True)])
    assert_mean((ends - sizes - arrivals)[2_000:].mean(axis=1), load / (1 - load))


def number_inside_over_time(arrivals: np.ndarray, ends: np.ndarray, until: float) -> float:
    """Mean number of customers inside over [0, until], by walking every arrival and departure as an event."""
    events = sorted([(t, 1) for t in arrivals.tolist()] + [(t, -1) for t in ends.tolist()])
    area, inside, last = 0.0, 0, 0.0
    for now, change in events:
        if now > until:
            break
        area += inside * (now - last)
        inside, last = inside + change, now
    return (area + inside * (until - last)) / until


QUEUES: dict[str, Callable[[], Callable[[float, float], float]]] = {
    "cores": lambda: Cores(3).serve,
    "one server of a vector": lambda: (lambda vector: lambda a, s: float(vector.serve(np.array([a, a]), s)[1]))(CoresVector(2, 3)),
    "link": lambda: Link(3.0).send,
    "one link of a vector": lambda: (lambda vector: lambda a, s: float(vector.send(np.array([a, a]), s)[0]))(LinkVector(2, 3.0)),
}


@pytest.mark.parametrize("name", QUEUES)
def test_littles_law(name: str) -> None:
    """L = lambda W over the run, within the 99 % interval of W at each queue's own measured arrival rate."""
    rng = np.random.default_rng(6)
    count = 40_000
    arrivals = np.cumsum(rng.exponential(1.0 / 2.4, count))
    serve = QUEUES[name]()
    ends = np.array([serve(a, s) for a, s in zip(arrivals.tolist(), rng.exponential(1.0, count).tolist(), strict=True)])
    inside = number_inside_over_time(arrivals, ends, until=float(arrivals[-1]))
    rate = count / float(arrivals[-1])
    sojourn = batch_means_interval(ends - arrivals, confidence=0.99)
    assert rate * sojourn.low <= inside <= rate * sojourn.high
    assert inside == pytest.approx(rate * sojourn.mean, rel=1e-2)
