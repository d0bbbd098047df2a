"""The two engines: one order, by time and then by the serial number of the call, and the same time on both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.engine import Engine, new_engine

ENGINES = ("simpy", "heapq")


def told_by(engine: Engine, delays_s: list[list[float]]) -> list[tuple[float, int]]:
    """When each call ran, in order: call i asks, when it runs, for calls after the delays of list i + 1, i + 2, ..."""
    told: list[tuple[float, int]] = []
    asked = iter(range(1_000_000))

    def call(serial: int) -> None:
        told.append((engine.now_s, serial))
        if len(told) < len(delays_s):
            for delay_s in delays_s[len(told)]:
                engine.call_later(delay_s, call, next(asked))

    for delay_s in delays_s[0]:
        engine.call_later(delay_s, call, next(asked))
    engine.run()
    return told


@given(st.lists(st.lists(st.sampled_from([0.0, 1e-6, 0.1, 0.2, 0.3, 1.0]), max_size=4), min_size=1, max_size=40))
def test_both_engines_keep_the_same_order_and_time(delays_s: list[list[float]]) -> None:
    assert told_by(new_engine("simpy"), delays_s) == told_by(new_engine("heapq"), delays_s)


@pytest.mark.parametrize("name", ENGINES)
def test_ties_are_broken_by_serial_number_alone(name: str) -> None:
    engine = new_engine(name)
    told: list[str] = []
    engine.call_later(2.0, told.append, "second, asked for first")
    engine.call_later(1.0, engine.call_later, 1.0, told.append, "second, asked for at 1 s")
    engine.call_later(2.0, told.append, "second, asked for third")
    engine.call_later(0.5, told.append, "half a second")
    assert engine.run() == 5
    assert told == ["half a second", "second, asked for first", "second, asked for third", "second, asked for at 1 s"]
    assert engine.now_s == 2.0


@pytest.mark.parametrize("name", ENGINES)
def test_a_call_in_the_past_is_refused(name: str) -> None:
    engine = new_engine(name)
    with pytest.raises(ValueError, match="in the past: -1e-09 s"):
        engine.call_later(-1e-9, engine.stop)
    assert engine.run() == 0


@pytest.mark.parametrize("name", ENGINES)
def test_stop_ends_the_run_after_the_present_event_and_run_goes_on(name: str) -> None:
    engine = new_engine(name)
    told: list[int] = []
    engine.call_later(1.0, told.append, 1)
    engine.call_later(1.0, engine.stop)
    engine.call_later(1.0, told.append, 2)
    assert engine.run() == 2
    assert told == [1]
    assert engine.run() == 1
    assert told == [1, 2]


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="simpy or heapq"):
        new_engine("quicksort")
