"""The published cluster: fitted rows, predicted rows, the order of the modes, and sizes that cost nothing."""

from __future__ import annotations

import pytest

from simulator.published import FITTED_TOLERANCE_PCT, PREDICTED_TOLERANCE_PCT, PublishedRow, validate_published
from simulator.run import simulate
from tests.simulator.small_clusters import rate

STEPS = 30


@pytest.fixture(scope="module")
def rows() -> list[PublishedRow]:
    return validate_published()


def test_every_row_is_as_close_as_its_kind_must_be_and_signed(rows: list[PublishedRow]) -> None:
    assert len(rows) == 8
    for row in rows:
        assert row.error_pct == pytest.approx(100 * (row.predicted - row.published) / row.published)
        assert abs(row.error_pct) <= (FITTED_TOLERANCE_PCT if row.fitted else PREDICTED_TOLERANCE_PCT), row
        assert row.within_tolerance
    assert (FITTED_TOLERANCE_PCT, PREDICTED_TOLERANCE_PCT) == (3.0, 15.0)


def test_most_rows_are_predictions(rows: list[PublishedRow]) -> None:
    assert sum(row.fitted for row in rows) <= 4
    assert {row.mode for row in rows if not row.fitted} == {"sync", "hybrid"}
    assert {row.dataset for row in rows if not row.fitted} == {"criteo-syn", "taobao-ad", "avazu-ad"}


def test_eight_accelerators_are_faster_than_two_and_less_than_four_times(rows: list[PublishedRow]) -> None:
    in_house = {(row.dataset, row.accelerators): row.predicted for row in rows if row.experiment == "scalability-in-house"}
    for dataset in ("taobao-ad", "avazu-ad", "criteo-ad"):
        assert 2.0 < in_house[dataset, 8] / in_house[dataset, 2] < 4.0


def test_the_modes_are_in_the_published_order() -> None:
    rates = [
        rate(simulate("persia-100t", overrides=[f"schedule.mode={mode}"], steps=STEPS))
        for mode in ("sync", "naive-hybrid", "hybrid", "async")
    ]
    assert rates == sorted(rates)
    assert rates[0] * 1.02 < rates[1]
    assert rates[2] * 1.02 < rates[3]


def test_sixteen_times_the_parameters_cost_nothing() -> None:
    rates = [rate(simulate(f"persia-{size}t", steps=STEPS)) for size in ("6.25", "12.5", "25", "50", "100")]
    assert max(rates) / min(rates) <= 1.05
