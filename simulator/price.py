"""The bill: machines by pricing model, and traffic between zones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from persia.scenario import TIER_NAMES, Catalog, MachineType, Scenario
from simulator.costs import BatchCosts
from simulator.network.topology import cross_zone_usd_per_gb
from simulator.result import Cost, TierCost

HOURS_PER_MONTH = 730.0  # what the vendor's monthly prices are made of
SECONDS_PER_HOUR = 3600.0
EGRESS = "cross_zone_traffic"


def _hourly(usd_month: float | None) -> float | None:
    """Return a monthly price by the hour."""
    return None if usd_month is None else usd_month / HOURS_PER_MONTH


_PRICE: Mapping[str, Callable[[MachineType], float | None]] = {
    "on-demand": lambda machine: machine.usd_hour,
    "spot": lambda machine: machine.usd_hour_spot,
    "sustained-use": lambda machine: _hourly(machine.usd_month_sustained),
    "commit-1y": lambda machine: _hourly(machine.usd_month_commit_1y),
    "commit-3y": lambda machine: _hourly(machine.usd_month_commit_3y),
}


def machine_usd_per_hour(machine: MachineType, pricing_model: str) -> tuple[float | None, str]:
    """Return one machine's price by the hour (None where none is known) and where it comes from.

    A type that is not sold under a pricing model (there is no spot M2) is billed on demand, and the source says so.
    """
    origin = f"{machine.source}, {machine.region} {machine.as_of}".strip(", ")
    price = _PRICE[pricing_model](machine)
    if price is not None:
        return price, f"{pricing_model}: {origin}"
    if machine.usd_hour is not None:
        return machine.usd_hour, f"on-demand, because no {pricing_model} price of {machine.name} is known: {origin}"
    return None, f"no price of {machine.name} is known ({origin})"


def cost(scenario: Scenario, catalog: Catalog, samples_per_s: float, cross_zone_bytes_per_s: float = 0.0) -> Cost:
    """Return what the cluster costs by the hour and by a billion samples at `samples_per_s`.

    A tier on another's machines costs nothing more. Traffic between zones is charged to its sender, so that
    `cross_zone_bytes_per_s` is the sum over both directions. Where no price of a tier's machines is known, the tier shows
    0, its source says why, and the sums are None.

    Raises:
        ScenarioError: a machine type is in neither the scenario nor the catalogue.
    """
    tiers: dict[str, TierCost] = {}
    known = True
    total = 0.0
    for name in TIER_NAMES:
        tier = scenario.tier(name)
        machine = catalog.machine(scenario.host_machine_type(name), scenario)
        if tier.machine_type is None:
            host = scenario.host_tier(name)
            tiers[name] = TierCost(machine_type=machine.name, machines=0, usd_per_hour=0.0, source=f"runs on {host}'s machines")
            continue
        each, source = machine_usd_per_hour(machine, scenario.pricing.model)
        known = known and each is not None
        usd_per_hour = (each or 0.0) * tier.count  # an unknown price is none in the tier, and leaves the whole unknown
        total += usd_per_hour
        tiers[name] = TierCost(machine_type=machine.name, machines=tier.count, usd_per_hour=usd_per_hour, source=source)
    if scenario.pricing.egress and cross_zone_bytes_per_s > 0.0:
        tiers[EGRESS] = _egress(catalog, cross_zone_bytes_per_s)
        total += tiers[EGRESS].usd_per_hour
    per_billion = total / (samples_per_s * SECONDS_PER_HOUR) * 1e9 if known and samples_per_s > 0.0 else None
    return Cost(
        usd_per_hour=total if known else None,
        usd_per_billion_samples=per_billion,
        pricing_model=scenario.pricing.model,
        tiers=tiers,
    )


def _egress(catalog: Catalog, bytes_per_s: float) -> TierCost:
    """Return the price of traffic between zones."""
    usd_per_gb = cross_zone_usd_per_gb(catalog)
    return TierCost(
        machine_type="traffic between zones",
        machines=0,
        usd_per_hour=bytes_per_s * 1e-9 * SECONDS_PER_HOUR * usd_per_gb,
        source=f"{bytes_per_s * 1e-9:.3g} GB/s at ${usd_per_gb:g}/GB: {catalog.egress['cross_zone'].source}",
    )


def cross_zone_bytes_per_batch(scenario: Scenario, batch: BatchCosts) -> float:
    """Return the bytes of one batch that leave a zone, both directions together."""
    hops = (
        ("loader", "embedding_worker", batch.loader_worker_bytes),
        ("loader", "nn_worker", batch.loader_rank_bytes),
        ("embedding_worker", "parameter_server", batch.lookup_request_bytes + batch.lookup_reply_bytes + batch.update_bytes),
        ("embedding_worker", "nn_worker", 2.0 * batch.worker_rank_bytes),
    )
    return sum(size_bytes for a, b, size_bytes in hops if scenario.zone(a) != scenario.zone(b))
