"""The machine's pace from sights of other times, and what an interval becomes that holds how uncertain it is."""

from __future__ import annotations

from math import exp, sqrt

import pytest

from simulator.result import Interval
from simulator.uncertainty import widened
from simulator.validation.pace import Pace, Times


def times(*at_s: float, core: float = 0.0) -> Times:
    return Times(at_s=at_s, slower=[(0.0, core)] * len(at_s))


def test_where_nothing_was_seen_nothing_has_changed_as_far_as_is_supposed() -> None:
    nothing = Pace(times(), [], supposed=0.1)
    mean, error = nothing.mean(times(5.0), [1.0])
    assert mean == 0.0
    assert error == pytest.approx(0.1 * sqrt(times(5.0).covariance(times(5.0))[0, 0]))
    assert nothing.mean(times(5.0, core=0.2), [1.0])[1] > error  # work may follow the probe otherwise than is known


def test_a_mean_over_times_is_that_of_the_means() -> None:
    pace = Pace(times(0.0, 100.0, 400.0), [0.1, 0.2, -0.1], supposed=0.1)
    (first, _), (second, _) = (pace.mean(times(at_s), [1.0]) for at_s in (50.0, 300.0))
    assert pace.mean(times(50.0, 300.0), [3.0, 1.0])[0] == pytest.approx(0.75 * first + 0.25 * second)


def test_sights_that_say_the_same_of_one_time_are_believed_in_the_end() -> None:
    mean, error = Pace(times(*[0.0] * 2000), [0.3] * 2000, supposed=0.1).mean(times(0.0), [1.0])
    assert mean == pytest.approx(0.3, rel=0.01)
    assert error < 0.001


def test_independent_errors_add_as_squares_and_none_leaves_an_interval_as_it_is() -> None:
    interval = Interval(mean=100.0, low=100.0 * exp(-0.3), high=100.0 * exp(0.3))
    wider = widened(interval, 0.4 / 1.645)  # of a normal distribution's 90 % interval
    assert (wider.low, wider.mean, wider.high) == pytest.approx((100.0 * exp(-0.5), 100.0, 100.0 * exp(0.5)))
    assert widened(interval, 0.0) is interval
