"""The bill of the reference cluster under every pricing model."""

from __future__ import annotations

import pytest

from persia.scenario import load_catalog, load_profile, load_scenario
from simulator.costs import batch_costs
from simulator.price import EGRESS, cost, cross_zone_bytes_per_batch

CATALOG = load_catalog()


def test_the_reference_costs_what_is_published_and_the_memory_is_the_bill() -> None:
    bill = cost(load_scenario("persia-100t"), CATALOG, 1_790_000.0)
    assert bill.usd_per_hour == pytest.approx(2918, abs=1)
    assert bill.tiers["parameter_server"].usd_per_hour / 2918.42 == pytest.approx(0.866, abs=5e-4)
    assert bill.tiers["embedding_worker"].usd_per_hour == pytest.approx(156.6, abs=0.05)
    assert bill.tiers["nn_worker"].usd_per_hour == pytest.approx(235.1, abs=0.05)
    assert bill.usd_per_billion_samples == pytest.approx(2918.42 / (1.79e6 * 3600) * 1e9, rel=1e-4)
    assert (bill.tiers["loader"].machines, bill.tiers["loader"].usd_per_hour) == (0, 0.0)
    assert "nn_worker" in bill.tiers["loader"].source


@pytest.mark.parametrize(
    ("model", "million_usd_a_month"), [("on-demand", 2.130), ("sustained-use", 1.554), ("commit-1y", 1.295), ("commit-3y", 0.744)]
)
def test_the_month_under_each_pricing_model(model: str, million_usd_a_month: float) -> None:
    bill = cost(load_scenario("persia-100t", (f"pricing.model={model}",)), CATALOG, 1e6)
    assert bill.usd_per_hour is not None
    assert bill.usd_per_hour * 730 / 1e6 == pytest.approx(million_usd_a_month, abs=6e-4)


def test_there_is_no_spot_m2_and_the_bill_says_so() -> None:
    bill = cost(load_scenario("persia-100t", ("pricing.model=spot",)), CATALOG, 1e6)
    assert bill.tiers["parameter_server"].source.startswith("on-demand, because no spot price of m2-ultramem-416 is known")
    assert bill.usd_per_hour == pytest.approx(30 * 84.2239 + 100 * 0.6797 + 8 * 15.4242, rel=1e-6)


def test_an_unknown_price_leaves_the_whole_unknown() -> None:
    bill = cost(load_scenario("laptop"), CATALOG, 1e4)
    assert bill.usd_per_hour is None
    assert bill.usd_per_billion_samples is None
    assert "no price of laptop is known" in bill.tiers["nn_worker"].source
    known = cost(load_scenario("laptop", ("cluster.machine_types.laptop.usd_per_hour=0.36",)), CATALOG, 1000.0)
    assert (known.usd_per_hour, known.usd_per_billion_samples) == pytest.approx((0.36, 100.0))


def test_nothing_trained_has_no_price_per_sample() -> None:
    assert cost(load_scenario("persia-100t"), CATALOG, 0.0).usd_per_billion_samples is None


def test_traffic_between_zones_is_charged_once_per_byte() -> None:
    """50 GB/s across zones is $1,800 an hour; egress can be left off the bill."""
    scenario = load_scenario("cross-zone-servers")
    bill = cost(scenario, CATALOG, 1e6, cross_zone_bytes_per_s=50e9)
    assert bill.tiers[EGRESS].usd_per_hour == pytest.approx(1800.0)
    assert bill.usd_per_hour == pytest.approx(2918.42 + 1800.0, abs=0.1)
    free = cost(load_scenario("cross-zone-servers", ("pricing.egress=false",)), CATALOG, 1e6, cross_zone_bytes_per_s=50e9)
    assert EGRESS not in free.tiers


def test_what_crosses_a_zone_is_what_servers_and_workers_exchange() -> None:
    scenario = load_scenario("cross-zone-servers")
    batch = batch_costs(scenario, load_profile(scenario.simulation.profile))
    exchanged = batch.lookup_request_bytes + batch.lookup_reply_bytes + batch.update_bytes
    assert cross_zone_bytes_per_batch(scenario, batch) == pytest.approx(exchanged)
    assert cross_zone_bytes_per_batch(load_scenario("persia-100t"), batch) == 0.0
