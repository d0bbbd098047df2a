"""What fields must fulfil together: each rule is a function from a scenario to what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from persia.scenario.base import TIER_NAMES
from persia.scenario.catalog import load_catalog
from persia.scenario.errors import did_you_mean, shown
from persia.scenario.packaged import list_profiles, looks_like_path
from persia.scenario.shape import look, parse_path

if TYPE_CHECKING:
    from persia.scenario.scenario import Scenario

# Kind of a data set that is read from files -> its categorical and its dense features, as in persia.data.
FILE_FEATURES: dict[str, tuple[int, int]] = {"criteo-tsv": (26, 13), "adult": (8, 5)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A broken rule: the path of the value to blame, what is wrong and what was expected, and what to do."""

    path: tuple[str | int, ...]
    message: str
    remedy: str


def broken_rules(scenario: Scenario) -> list[Broken]:
    """Return everything that breaks a rule; rules about tiers' machines are asked only where every tier has some."""
    hosting = [*machines_or_host(scenario), *hosts_without_cycle(scenario)]
    rules = RULES if hosting else (*RULES, *MACHINE_RULES)
    return hosting + [broken for rule in rules for broken in rule(scenario)]


def machines_or_host(scenario: Scenario) -> Iterator[Broken]:
    """A tier has machines of its own or another tier's, one of both."""
    for name, tier in scenario.tiers():
        path = ("cluster", "tiers", name)
        if tier.machine_type is not None and tier.hosted_on is not None:
            message = f"both machine_type ({shown(tier.machine_type)}) and hosted_on ({tier.hosted_on}) are set; expected one of them"
            yield Broken(
                path=(*path, "hosted_on"), message=message, remedy="Remove one; an inherited one is removed with `machine_type: null`."
            )
        if tier.machine_type is None and tier.hosted_on is None:
            message = "neither machine_type nor hosted_on is set; expected one of them"
            yield Broken(path=path, message=message, remedy="Name a machine type, or the tier on whose machines it runs.")


def hosts_without_cycle(scenario: Scenario) -> Iterator[Broken]:
    """Following hosted_on leads to machines."""
    for name in TIER_NAMES:
        chain = [name]
        while (host := scenario.tier(chain[-1]).hosted_on) is not None and host not in chain:
            chain.append(host)
        if host == name:
            message = f"hosted_on goes round in a circle: {' -> '.join([*chain, name])}; expected a tier with machines at its end"
            yield Broken(path=("cluster", "tiers", name, "hosted_on"), message=message, remedy="Give one of these tiers a machine_type.")


def hosted_within_host(scenario: Scenario) -> Iterator[Broken]:
    """A hosted tier uses no more machines than its host has, and no other zone or network."""
    for name, tier in scenario.tiers():
        if tier.hosted_on is None:
            continue
        path = ("cluster", "tiers", name)
        host = scenario.tier(tier.hosted_on)
        if tier.count > host.count:
            message = f"{tier.count} machines of {tier.hosted_on}, which has {host.count}; expected at most {host.count}"
            yield Broken(path=(*path, "count"), message=message, remedy="Lower it, and raise processes_per_machine instead.")
        if tier.zone is not None and tier.zone != scenario.zone(tier.hosted_on):
            message = f"{shown(tier.zone)} is not the zone of its host {tier.hosted_on} ({shown(scenario.zone(tier.hosted_on))})"
            yield Broken(
                path=(*path, "zone"), message=f"{message}; expected the same", remedy="Remove it: a hosted tier is where its host is."
            )
        if tier.nic_tier1:
            message = f"a tier hosted on {tier.hosted_on} has no network of its own; expected false"
            yield Broken(path=(*path, "nic_tier1"), message=message, remedy=f"Set cluster.tiers.{tier.hosted_on}.nic_tier1.")


def machine_types_known(scenario: Scenario) -> Iterator[Broken]:
    """Machine types and accelerators are the scenario's or the catalogue's; Tier_1 networking exists where it is asked for."""
    catalog = load_catalog()
    for name, inline in scenario.cluster.machine_types.items():
        path = ("cluster", "machine_types", name)
        if inline.accelerator is not None and inline.accelerator not in catalog.accelerators:
            message = f"unknown accelerator {shown(inline.accelerator)}; expected one of the catalogue's"
            yield Broken(path=(*path, "accelerator"), message=message, remedy=did_you_mean(inline.accelerator, catalog.accelerators))
        if (inline.accelerator is None) != (inline.accelerator_count == 0):
            message = "accelerator and accelerator_count disagree; expected both or none"
            yield Broken(path=(*path, "accelerator_count"), message=message, remedy="Set both, or neither.")
    for tier_name, tier in scenario.tiers():
        if tier.machine_type is None:
            continue
        path = ("cluster", "tiers", tier_name)
        machine = catalog.find(tier.machine_type, scenario)
        if machine is None:
            known = [*catalog.machines, *scenario.cluster.machine_types]
            message = f"unknown machine type {shown(tier.machine_type)}; expected one of the catalogue or of cluster.machine_types"
            yield Broken(path=(*path, "machine_type"), message=message, remedy=did_you_mean(tier.machine_type, known))
        elif tier.nic_tier1 and machine.nic_gbps_tier1 is None:
            message = f"{machine.name} has no Tier_1 networking that the catalogue knows; expected false"
            yield Broken(path=(*path, "nic_tier1"), message=message, remedy="Choose a type with it (`persia catalog`), or remove it.")


def one_rank_per_accelerator(scenario: Scenario) -> Iterator[Broken]:
    """A machine with accelerators runs at most one rank on each."""
    tier = scenario.tier("nn_worker")
    machine = load_catalog().find(scenario.host_machine_type("nn_worker"), scenario)
    if machine is not None and 0 < machine.accelerator_count < tier.processes_per_machine:
        message = (
            f"{tier.processes_per_machine} ranks on a machine with {machine.accelerator_count} accelerators; expected one rank on each"
        )
        yield Broken(path=("cluster", "tiers", "nn_worker", "processes_per_machine"), message=message, remedy="Lower it, or raise count.")


def emulated_accelerator_known(scenario: Scenario) -> Iterator[Broken]:
    """The accelerator that ranks emulate is the catalogue's."""
    name, known = scenario.simulation.emulated_accelerator, load_catalog().accelerators
    if name is not None and name not in known:
        message = f"unknown accelerator {shown(name)}; expected one of the catalogue's"
        yield Broken(path=("simulation", "emulated_accelerator"), message=message, remedy=did_you_mean(name, known))


def slow_machines_exist(scenario: Scenario) -> Iterator[Broken]:
    """A slow machine is one of its tier's."""
    for index, slow in enumerate(scenario.simulation.slow_machines):
        count = scenario.tier(slow.tier).count
        if slow.index >= count:
            message = f"machine {slow.index} of {slow.tier}, which has {count}; expected 0 to {count - 1}"
            path = ("simulation", "slow_machines", index, "index")
            yield Broken(path=path, message=message, remedy="Count the machines from 0.")


def features_fit_dense(scenario: Scenario) -> Iterator[Broken]:
    """Names are unique; pairwise products need vectors of one length."""
    features = scenario.model.features
    first = features[0].dim
    seen: set[str] = set()
    for index, feature in enumerate(features):
        if feature.name in seen:
            message = f"the name {shown(feature.name)} appears twice; expected unique names"
            yield Broken(path=("model", "features", index, "name"), message=message, remedy="Rename one of them.")
        seen.add(feature.name)
        if scenario.model.dense.architecture == "dlrm" and scenario.model.dense.projection_dim is None and feature.dim != first:
            message = f"dim {feature.dim} beside dim {first} in a dlrm, which multiplies embeddings pairwise; expected one dim"
            yield Broken(
                path=("model", "features", index, "dim"), message=message, remedy="Set model.dense.projection_dim, or use one dim."
            )


def data_has_path(scenario: Scenario) -> Iterator[Broken]:
    """Files are named for data that is read, and only then."""
    data = scenario.workload.data
    if data.kind != "synthetic" and not data.path:
        message = f"data of kind {data.kind} without a path; expected the file or folder to read"
        yield Broken(path=("workload", "data"), message=message, remedy="Set workload.data.path.")
    if data.kind == "synthetic" and data.path is not None:
        message = f"a path ({shown(data.path)}) for synthetic data, which reads no file; expected null"
        yield Broken(path=("workload", "data", "path"), message=message, remedy="Remove it, or set kind to criteo-tsv or adult.")
    if data.kind != "synthetic" and data.distinct_batches is not None:
        message = f"distinct_batches for data of kind {data.kind}, which is read from files; expected null"
        yield Broken(path=("workload", "data", "distinct_batches"), message=message, remedy="Remove it, or set kind to synthetic.")


def files_fit_model(scenario: Scenario) -> Iterator[Broken]:
    """A data set that is read from files has the features of the model."""
    model, kind = scenario.model, scenario.workload.data.kind
    if kind not in FILE_FEATURES:
        return
    wanted_ids, wanted_numbers = FILE_FEATURES[kind]
    if model.feature_count != wanted_ids:
        message = f"{model.feature_count} categorical features; expected {wanted_ids}, which data of kind {kind} has"
        yield Broken(path=("model", "features"), message=message, remedy="Change model.features[].count, or workload.data.kind.")
    if model.dense.dense_features != wanted_numbers:
        message = f"{model.dense.dense_features} dense features; expected {wanted_numbers}, which data of kind {kind} has"
        yield Broken(path=("model", "dense", "dense_features"), message=message, remedy="Change it, or workload.data.kind.")


def links_join_known_places(scenario: Scenario) -> Iterator[Broken]:
    """A link's ends are tiers or zones of the scenario, and it overrides something."""
    zones = [scenario.cluster.network.zone, *(tier.zone for _, tier in scenario.tiers())]
    known = [*TIER_NAMES, *dict.fromkeys(zone for zone in zones if zone is not None)]
    for index, link in enumerate(scenario.cluster.network.links):
        path = ("cluster", "network", "links", index)
        for key, end in (("from", link.source), ("to", link.target)):
            if end not in known:
                message = f"{shown(end)} is neither a tier nor a zone of this scenario; expected one of them"
                yield Broken(path=(*path, key), message=message, remedy=did_you_mean(end, known))
        if link.bandwidth is None and link.latency is None:
            message = "a link without bandwidth and latency overrides nothing; expected one of them"
            yield Broken(path=path, message=message, remedy="Set bandwidth or latency, or remove the link.")


def zones_in_region(scenario: Scenario) -> Iterator[Broken]:
    """Every zone lies in the one region: links between regions are not modelled."""
    network = scenario.cluster.network
    named: list[tuple[tuple[str | int, ...], str | None]] = [(("cluster", "network", "zone"), network.zone)]
    named += [(("cluster", "tiers", name, "zone"), tier.zone) for name, tier in scenario.tiers()]
    for path, zone in named:
        if zone is not None and not zone.startswith(f"{network.region}-"):
            message = f"the zone {shown(zone)} is not in the region {shown(network.region)}; expected a name such as {network.region}-b"
            yield Broken(path=path, message=message, remedy="Change the zone, or cluster.network.region.")


def profile_known(scenario: Scenario) -> Iterator[Broken]:
    """The profile is packaged, or a file that exists."""
    name = scenario.simulation.profile
    path = ("simulation", "profile")
    if looks_like_path(name):
        if "\0" in name or not Path(name).is_file():
            yield Broken(path=path, message=f"no such profile: {shown(name)}; expected a YAML file", remedy="Check the path.")
    elif name not in list_profiles():
        message = f"unknown profile {shown(name)}; expected a packaged one or the path of a YAML file"
        yield Broken(path=path, message=message, remedy=did_you_mean(name, list_profiles()))


def assumptions_lead_somewhere(scenario: Scenario) -> Iterator[Broken]:
    """An assumption's path is that of a field, or of an entry of the catalogue or the profile."""
    for index, assumption in enumerate(scenario.assumptions):
        where = ("assumptions", index, "path")
        try:
            path = parse_path(assumption.path)
        except ValueError as error:
            yield Broken(path=where, message=f"{error}; expected the path of a field", remedy="Write for example model.features[0].dim.")
            continue
        if path[0] in ("catalog", "profile"):
            continue
        place = look(type(scenario), path)
        if place.failed_step is not None:
            step = str(path[place.failed_step])
            message = f"{shown(assumption.path)} leads nowhere: no field {shown(step)}; expected the path of a field"
            yield Broken(path=where, message=message, remedy=did_you_mean(step, place.siblings))


Rule = Callable[["Scenario"], Iterator[Broken]]
RULES: tuple[Rule, ...] = (
    machine_types_known,
    emulated_accelerator_known,
    slow_machines_exist,
    features_fit_dense,
    data_has_path,
    files_fit_model,
    links_join_known_places,
    zones_in_region,
    profile_known,
    assumptions_lead_somewhere,
)
MACHINE_RULES: tuple[Rule, ...] = (hosted_within_host, one_rank_per_accelerator)
