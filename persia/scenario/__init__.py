"""Scenarios: what is trained, on which machines, how it is scheduled; with the catalogue and the cost profiles."""

from __future__ import annotations

from persia.scenario.base import TIER_NAMES, TierName
from persia.scenario.catalog import Accelerator, Catalog, Fact, MachineType, load_catalog
from persia.scenario.cluster import Cluster, InlineMachine, Link, Network, Pricing, Tier, Tiers
from persia.scenario.digest import scenario_digest
from persia.scenario.errors import Position, ScenarioError, did_you_mean
from persia.scenario.load import load_scenario
from persia.scenario.model import Assumption, Data, Dense, Feature, RecommenderModel, Workload
from persia.scenario.overrides import Override, parse_override
from persia.scenario.packaged import list_profiles, list_scenarios
from persia.scenario.profile import Constant, Profile, load_profile
from persia.scenario.scenario import Scenario
from persia.scenario.schedule import Precision, Schedule, Simulation, SlowMachine
from persia.scenario.schema import json_schema

__all__ = [
    "TIER_NAMES",
    "Accelerator",
    "Assumption",
    "Catalog",
    "Cluster",
    "Constant",
    "Data",
    "Dense",
    "Fact",
    "Feature",
    "InlineMachine",
    "Link",
    "MachineType",
    "Network",
    "Override",
    "Position",
    "Precision",
    "Pricing",
    "Profile",
    "RecommenderModel",
    "Scenario",
    "ScenarioError",
    "Schedule",
    "Simulation",
    "SlowMachine",
    "Tier",
    "TierName",
    "Tiers",
    "Workload",
    "did_you_mean",
    "json_schema",
    "list_profiles",
    "list_scenarios",
    "load_catalog",
    "load_profile",
    "load_scenario",
    "parse_override",
    "scenario_digest",
]
