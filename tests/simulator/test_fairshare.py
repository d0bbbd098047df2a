"""Max-min fairness: its defining property, and agreement with filling drop by drop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.network.fairshare import affected_flows, max_min_rates, pad_paths


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[list[int]], np.ndarray]:
    """Some links with capacities, some flows over distinct links of them."""
    links = draw(st.integers(1, 8))
    capacity = np.array(draw(st.lists(st.floats(0.1, 100.0), min_size=links, max_size=links)))
    path = st.lists(st.integers(0, links - 1), min_size=1, max_size=4, unique=True)
    return draw(st.lists(path, min_size=1, max_size=20)), capacity


def load_of(paths: list[list[int]], rates: np.ndarray, links: int) -> np.ndarray:
    """Sum of rates on each link."""
    load = np.zeros(links)
    for path, rate in zip(paths, rates, strict=True):
        load[path] += rate
    return load


@settings(max_examples=300, deadline=None)
@given(networks())
def test_rates_are_feasible_and_every_flow_has_a_bottleneck(network: tuple[list[list[int]], np.ndarray]) -> None:
    """Max-min fair if and only if every flow crosses a full link on which no flow is faster (Bertsekas and Gallager, 6.5.2)."""
    paths, capacity = network
    rates = max_min_rates(pad_paths(paths, len(capacity)), capacity)
    load = load_of(paths, rates, len(capacity))
    assert (load <= capacity * (1 + 1e-9)).all()
    for path, rate in zip(paths, rates, strict=True):
        assert any(
            load[link] >= capacity[link] * (1 - 1e-9)
            and rate >= max(other for other_path, other in zip(paths, rates, strict=True) if link in other_path) * (1 - 1e-9)
            for link in path
        )


def fill_one_link_at_a_time(paths: list[list[int]], capacity: np.ndarray) -> np.ndarray:
    """The textbook's algorithm, one bottleneck a round."""
    rates = np.zeros(len(paths))
    open_flows = list(range(len(paths)))
    left = capacity.copy()
    while open_flows:
        on_link = {link: [f for f in open_flows if link in paths[f]] for link in range(len(capacity))}
        share, link = min((left[link] / len(flows), link) for link, flows in on_link.items() if flows)
        for flow in on_link[link]:
            rates[flow] = share
            left[paths[flow]] -= share
        open_flows = [flow for flow in open_flows if flow not in on_link[link]]
    return rates


@settings(max_examples=200, deadline=None)
@given(networks())
def test_many_links_a_round_give_the_textbooks_rates(network: tuple[list[list[int]], np.ndarray]) -> None:
    paths, capacity = network
    np.testing.assert_allclose(
        max_min_rates(pad_paths(paths, len(capacity)), capacity), fill_one_link_at_a_time(paths, capacity), rtol=1e-9
    )


def test_the_textbook_chain() -> None:
    """One long flow over three links of 1, 2 and 2, one short flow on each: 1/2, 1/2, 3/2, 3/2."""
    rates = max_min_rates(pad_paths([[0, 1, 2], [0], [1], [2]], 3), np.array([1.0, 2.0, 2.0]))
    assert rates.tolist() == [0.5, 0.5, 1.5, 1.5]


def test_a_flow_without_links_is_not_limited() -> None:
    assert max_min_rates(pad_paths([[], [0]], 1), np.array([4.0])).tolist() == [np.inf, 4.0]
    assert len(max_min_rates(pad_paths([], 1), np.array([4.0]))) == 0


def test_only_the_component_of_a_changed_link_is_affected() -> None:
    paths = pad_paths([[0, 1], [1, 2], [3], [4, 5]], 6)
    assert affected_flows(paths, 6, np.array([2])).tolist() == [0, 1]
    assert affected_flows(paths, 6, np.array([5, 3])).tolist() == [2, 3]
    assert affected_flows(paths, 6, np.array([], dtype=np.int64)).tolist() == []


@given(networks(), st.integers(0, 7))
def test_unaffected_flows_keep_their_rates_when_a_flow_comes(network: tuple[list[list[int]], np.ndarray], link: int) -> None:
    paths, capacity = network
    link %= len(capacity)
    before = max_min_rates(pad_paths(paths, len(capacity)), capacity)
    after = max_min_rates(pad_paths([*paths, [link]], len(capacity)), capacity)[:-1]
    affected = affected_flows(pad_paths(paths, len(capacity)), len(capacity), np.array([link]))
    spared = np.setdiff1d(np.arange(len(paths)), affected)
    np.testing.assert_allclose(after[spared], before[spared], rtol=1e-12)


def test_eight_thousand_flows_fill_the_widest_links() -> None:
    rng = np.random.default_rng(0)
    capacity = np.repeat([4e9, 4e9, 12.5e9], [200, 60, 16])
    pairs = np.column_stack((rng.integers(0, 200, 8000), rng.integers(200, 276, 8000)))
    rates = max_min_rates(pairs, capacity)
    assert np.bincount(pairs[:, 1], weights=rates).max() == pytest.approx(capacity[200:].max(), rel=0.7)
