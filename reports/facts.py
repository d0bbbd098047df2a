"""What a report needs to know of the scenario, read from its plain data.

The scenario and the catalogue come in as protocols: reports import results and nothing of `persia.scenario`, so that a page
can be made from a run directory of any version that dumps the same fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from reports.words import TIER_ORDER, count, label


class ScenarioLike(Protocol):
    """A resolved scenario: all that is asked of it is its dump as plain data."""

    def model_dump(self) -> dict[str, Any]:
        """Return the scenario as mappings, lists and scalars."""
        ...


class MachineLike(Protocol):
    """A machine type of the catalogue."""

    @property
    def accelerator(self) -> str | None:
        """Return the accelerator's name, or None."""
        ...


class CatalogLike(Protocol):
    """The catalogue: machine types by name."""

    @property
    def machines(self) -> Mapping[str, Any]:
        """Return machine types (see `MachineLike`) by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One tier: how many machines of which type; `hosted_on` names the tier whose machines it shares."""

    name: str
    count: int
    machine_type: str | None
    hosted_on: str | None
    accelerator: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The scenario's facts that a page shows; every field has an empty default, for pages made without a scenario."""

    description: str = ""
    parameters: float = 0.0
    zone: str = ""
    pricing: str = ""
    staleness_permits: int | None = None
    tiers: Mapping[str, Tier] = field(default_factory=dict)

    def hardware(self, ranks: int) -> str:
        """Return the trainers in words, as "64 A100s"; "64 ranks" where the accelerator is unknown."""
        trainer = self.tiers.get("nn_worker")
        if trainer is None or not trainer.accelerator:
            return f"{ranks:,} rank{'' if ranks == 1 else 's'}"
        name = trainer.accelerator.upper().removesuffix("-40GB")
        return f"{ranks:,} {name}{'' if ranks == 1 else 's'}"

    def model(self) -> str:
        """Return the model's size in words, as "100 T embedding parameters"; empty where unknown."""
        return f"{count(self.parameters)} embedding parameters" if self.parameters else ""

    def machines(self, tier: str) -> str:
        """Return a tier's machines in words, as "30 x m2-ultramem-416"; empty where unknown."""
        known = self.tiers.get(tier)
        if known is None:
            return ""
        host = f"on the {label(known.hosted_on)}" if known.hosted_on else known.machine_type or "machines"
        times = "" if known.hosted_on else "\u00d7 "
        return f"{known.count:,} {times}{host}"


def guests(facts: Facts, tier: str) -> str:
    """Return what else runs on a tier's machines, as ", also data loaders"; empty where nothing does."""
    names = [label(each.name) for each in facts.tiers.values() if each.hosted_on == tier]
    return f", also {' and '.join(names)}" if names else ""


def read_facts(scenario: ScenarioLike | None, catalog: CatalogLike | None = None) -> Facts:
    """Return the facts of a scenario; without one, facts that say nothing.

    The catalogue, where given, tells which accelerator a machine type carries; types written into the scenario come first.
    """
    if scenario is None:
        return Facts()
    plain = scenario.model_dump()
    cluster, schedule = plain.get("cluster") or {}, plain.get("schedule") or {}
    inline = cluster.get("machine_types") or {}
    tiers = cluster.get("tiers") or {}
    return Facts(
        description=str(plain.get("description") or ""),
        parameters=_parameters(plain.get("model") or {}),
        zone=str((cluster.get("network") or {}).get("zone") or ""),
        pricing=str((plain.get("pricing") or {}).get("model") or ""),
        staleness_permits=schedule.get("staleness_permits"),
        tiers={name: _tier(name, tiers[name], inline, catalog) for name in TIER_ORDER if tiers.get(name)},
    )


def _parameters(model: Mapping[str, Any]) -> float:
    features = model.get("features") or []
    return float(sum(feature.get("count", 1) * feature["rows"] * feature["dim"] for feature in features))


def _tier(name: str, plain: Mapping[str, Any], inline: Mapping[str, Any], catalog: CatalogLike | None) -> Tier:
    machine_type: str | None = plain.get("machine_type")
    accelerator = None
    if machine_type is None:
        pass  # it shares another tier's machines
    elif machine_type in inline:
        accelerator = inline[machine_type].get("accelerator")
    elif catalog is not None and machine_type in catalog.machines:
        accelerator = catalog.machines[machine_type].accelerator
    return Tier(
        name=name,
        count=int(plain.get("count", 1)),
        machine_type=machine_type,
        hosted_on=plain.get("hosted_on"),
        accelerator=accelerator,
    )
