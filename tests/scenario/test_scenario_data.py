"""The packaged data: catalogue, profiles, scenarios, schema; and how fast they load."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

import persia.scenario
from persia.scenario import Scenario, ScenarioError, json_schema, list_profiles, list_scenarios, load_catalog, load_profile, load_scenario
from persia.scenario.catalog import Fact
from persia.scenario.packaged import scenario_path
from persia.scenario.schema import schema_text
from persia.scenario.source import read_tree
from persia.scenario.tree import plain
from tests.support import ROOT, persia_environment

TAGS = set("SDMIF")
REQUIRED = (
    "persia-100t persia-50t persia-25t persia-12.5t persia-6.25t in-house-v100-taobao in-house-v100-avazu in-house-v100-criteo "
    "cross-zone-servers tier1-network servers-m2-ultramem-208 fp32-does-not-fit laptop"
)


def test_the_catalogue_is_complete() -> None:
    catalog = load_catalog()
    assert len(catalog.machines) == 45
    for machine in catalog.machines.values():
        assert machine.source
        assert machine.as_of == "2026-07-16"
        assert machine.evidence in TAGS
        assert machine.usd_hour is not None
        assert (machine.nic_gbps is None) == (machine.nic_evidence == "")
        assert (machine.accelerator is None) == (machine.accelerator_count == 0)
        assert machine.accelerator is None or machine.accelerator in catalog.accelerators
    assert set(catalog.accelerators) == {"a100", "a100-80gb", "v100", "h100-80gb", "l4"}
    facts: list[Fact] = [*catalog.links.values(), *catalog.egress.values(), *catalog.storage.values(), *catalog.hosts.values()]
    for each in [*facts, *catalog.accelerators.values()]:
        assert each.source
        assert each.evidence in TAGS
    for fact in facts:
        assert isinstance(fact.value, int | float), fact
        assert fact.unit


def test_the_reference_cluster_has_its_published_size_and_price() -> None:
    scenario, catalog = load_scenario("persia-100t"), load_catalog()
    owners = [tier for _, tier in scenario.tiers() if tier.machine_type is not None]
    machines = [(tier.count, catalog.machine(tier.machine_type or "", scenario)) for tier in owners]
    assert sum(count for count, _ in machines) == 138
    assert sum(count * (machine.usd_hour or 0.0) for count, machine in machines) == pytest.approx(2918, abs=1)
    servers = catalog.machine("m2-ultramem-416")
    assert 30 * servers.ram_gib == 353_280
    assert servers.physical_cores == 208
    assert servers.family == "m2"
    assert servers.usd_hour_spot is None


def test_inline_machine_types_shadow_the_catalogue() -> None:
    scenario = load_scenario("laptop", ["cluster.machine_types.c2-standard-30={vcpus: 2, ram_gib: 4, nic: 1Gbps, nic_tier1: 2Gbps}"])
    machine = load_catalog().machine("c2-standard-30", scenario)
    assert (machine.vcpus, machine.nic_gbps, machine.nic_gbps_tier1) == (2, 1.0, 2.0)
    assert load_catalog().machine("c2-standard-30").vcpus == 30
    assert load_catalog().machine("laptop", scenario).physical_cores == 8
    with pytest.raises(ScenarioError, match="Did you mean 'm2-ultramem-416'"):
        load_catalog().machine("m2-ultramem-41", scenario)


@pytest.mark.parametrize("name", list_profiles())
def test_profiles_load_and_say_where_each_constant_comes_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for key, constant in profile.constants.items():
        assert constant.source, key
        assert constant.evidence in TAGS
        assert (constant.evidence == "F") == bool(constant.fitted_to), key
    assert profile.cpu_factor("no-such-family") == profile["cpu.default"]
    with pytest.raises(ScenarioError, match=r"Did you mean 'cpu\.default'"):
        profile["cpu.defalt"]


def test_a_profile_is_refused_as_a_scenario_is(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("name: p\nconstants:\n  x: {value: fast, unit: s, source: us, evidence: Z}\n")
    with pytest.raises(ScenarioError) as caught:
        load_profile(str(path))
    assert [(error.line, error.column) for error in (caught.value, *caught.value.more)] == [(3, 14), (3, 51)]
    with pytest.raises(ScenarioError, match="Did you mean 'persia-original'"):
        load_profile("persia-orginal")


def test_the_required_scenarios_are_there() -> None:
    assert set(REQUIRED.split()) <= set(list_scenarios())


@pytest.mark.parametrize(
    ("name", "trillions"), [("persia-100t", 100), ("persia-50t", 50), ("persia-25t", 25), ("persia-12.5t", 12.5), ("persia-6.25t", 6.25)]
)
def test_sisters_differ_in_rows_alone(name: str, trillions: float) -> None:
    reference = load_scenario("persia-100t")
    sister = load_scenario(name)
    assert sister.model.sparse_parameters == pytest.approx(trillions * 1e12, rel=1e-9)
    rows = sister.model.features[0].rows
    assert load_scenario("persia-100t", [f"model.features[0].rows={rows}"]).model == sister.model
    assert (sister.cluster, sister.workload, sister.schedule) == (reference.cluster, reference.workload, reference.schedule)


@pytest.mark.parametrize("name", list_scenarios())
def test_every_scenario_argues_its_values(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.description
    paths = [assumption.path for assumption in scenario.assumptions]
    assert len(set(paths)) == len(paths) > 0


def test_the_committed_schema_is_the_classes_schema() -> None:
    committed = (Path(persia.scenario.__file__).parent / "scenario.schema.json").read_text(encoding="utf-8")
    assert json.loads(committed) == json_schema()
    assert committed == schema_text()


def test_the_schema_describes_every_field() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for definition in [schema, *schema["$defs"].values()]:
        assert definition["additionalProperties"] is False
        for name, field in definition["properties"].items():
            # Pydantic leaves out a description that is the referred class's own.
            referred = schema["$defs"][field["$ref"].rsplit("/", 1)[1]] if "$ref" in field else {}
            assert field.get("description") or referred.get("description"), (definition["title"], name)


@pytest.mark.parametrize("name", list_scenarios())
def test_packaged_scenarios_validate_against_the_schema(name: str) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(plain(read_tree(scenario_path(name))))
    resolved = load_scenario(name).model_dump(mode="json", by_alias=True)
    jsonschema.Draft202012Validator(json_schema()).validate(resolved)


@pytest.mark.parametrize(
    "document",
    [
        {"name": "x"},
        {"extends": "laptop", "worklod": {}},
        {"extends": "laptop", "workload": {"batch_size": "many"}},
        {"extends": "laptop", "workload": {"batch_size": 0}},
        {"extends": "laptop", "schedule": {"bucket_size": "25 parsecs"}},
        {"extends": "laptop", "model": {"features": [{"name": "a", "dim": 4}]}},
        {"extends": "laptop", "model": {"features": []}},
        {"extends": 5},
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(document: dict[str, object]) -> None:
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)
    with pytest.raises(ScenarioError):
        load_scenario(document)


@pytest.mark.parametrize("quantity", ["25MB", "25 MB", "4GiB", "2_048", "30e3", "1.5kB", 25_000_000])
def test_the_schema_takes_the_quantities_that_the_loader_takes(quantity: object) -> None:
    document = {"extends": "laptop", "schedule": {"bucket_size": quantity}}
    jsonschema.Draft202012Validator(json_schema()).validate(document)
    assert load_scenario(document).schedule.bucket_size > 0


def test_importing_and_loading_takes_no_time_worth_noticing() -> None:
    """Processor time, so that a busy machine does not count; pydantic's own import is most of it."""
    code = (
        "import time, sys; start = time.process_time(); import persia.scenario as s; s.load_scenario('persia-50t');"
        "print(time.process_time() - start); assert not {'numpy', 'simpy', 'jsonschema'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    elapsed_s = min(float(subprocess.check_output(command, cwd=ROOT, env=persia_environment(), text=True)) for _ in range(3))
    assert elapsed_s < 0.5


def test_loading_again_is_quick() -> None:
    load_scenario("persia-50t")
    start_s = time.process_time()
    for _ in range(10):
        load_scenario("persia-50t")
    assert (time.process_time() - start_s) / 10 < 0.05
    assert isinstance(load_scenario("persia-50t"), Scenario)
