"""Scaling down: every scenario becomes one that a laptop can run, under the same schedule, and says what was changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persia.scenario import Scenario, ScenarioError, list_scenarios, load_scenario
from persia.scenario.model import MOST_FEATURES
from persia.scenario.scale import SCALES, scale_down
from simulator.check import check
from simulator.costs import dense_layer_parameters
from simulator.run import simulate

LAPTOP = SCALES["laptop"]
MODES = ("sync", "async", "naive-hybrid", "hybrid")


def small(scenario: Scenario) -> Scenario:
    return scale_down(scenario, "laptop").scenario


def plain(scenario: Scenario) -> dict[str, Any]:
    return scenario.model_dump(mode="json", by_alias=True)


def assert_small(scenario: Scenario) -> None:
    features, workload = scenario.model.features, scenario.workload
    assert sum(feature.count for feature in features) <= max(LAPTOP.features, len(features))
    assert all(feature.dim <= LAPTOP.dim and feature.ids_per_sample <= LAPTOP.ids_per_sample for feature in features)
    assert all(1 <= feature.kept_rows <= feature.rows <= LAPTOP.rows_per_feature for feature in features)
    assert sum(feature.count * feature.rows for feature in features) <= LAPTOP.rows
    parameters = sum(dense_layer_parameters(scenario))
    assert parameters <= LAPTOP.dense_parameters or set(scenario.model.dense.layers) == {1}
    assert workload.batch_size <= 256
    assert workload.samples <= 500_000
    assert workload.data.held_out_samples <= 20_000
    assert all(scenario.processes(name) <= most for name, most in LAPTOP.processes.items())
    assert {scenario.host_tier(name) for name, _ in scenario.tiers()} == {"nn_worker"}
    assert all(tier.count == 1 and tier.threads_per_process == 1 for _, tier in scenario.tiers())
    machine = scenario.cluster.machine_types[scenario.host_machine_type("nn_worker")]
    assert machine.accelerator is None
    assert machine.vcpus <= 8
    assert not scenario.cluster.network.links
    assert not scenario.simulation.slow_machines
    assert scenario.schedule.request_timeout >= 2.0


@pytest.mark.parametrize("name", list_scenarios())
def test_every_packaged_scenario_becomes_small(name: str) -> None:
    large = load_scenario(name)
    scaled = scale_down(large, "laptop")
    assert scaled.scenario.name == f"{name}-laptop"
    assert_small(scaled.scenario)
    assert check(scaled.scenario).fits
    assert [feature.name for feature in scaled.scenario.model.features] == [feature.name for feature in large.model.features]
    assert scaled.scenario.schedule == large.schedule
    assert scaled.scenario.workload.data.kind == large.workload.data.kind
    again = scale_down(scaled.scenario, "laptop")
    assert again.rules == ()
    assert again.scenario is scaled.scenario


@pytest.mark.parametrize("mode", MODES)
def test_the_small_one_simulates_in_its_mode(mode: str) -> None:
    overrides = [f"schedule.mode={mode}", "schedule.staleness_permits=7", "schedule.precision.dense=fp16", "schedule.pushes_in_flight=3"]
    large = load_scenario("fp32-does-not-fit", overrides)
    scenario = small(large)
    assert plain(scenario)["schedule"] == plain(large)["schedule"]
    result = simulate(scenario, steps=20)
    assert (result.mode, result.batch_size) == (mode, 256)


def test_what_is_small_stays_rule_by_rule() -> None:
    for name in ("adult", "planted-small"):
        scenario = load_scenario(name)
        scaled = scale_down(scenario, "laptop")
        assert [rule.split(":")[0] for rule in scaled.rules] == ["name"]
        assert scaled.scenario == scenario.model_copy(update={"name": f"{name}-laptop"})
    mixed = load_scenario("planted-small", ["workload.batch_size=512", "schedule.request_timeout=100ms"])
    assert [rule.split(":")[0] for rule in scale_down(mixed, "laptop").rules] == [
        "workload.batch_size", "schedule.request_timeout", "name",
    ]  # fmt: skip


def test_the_rules_say_what_was_and_what_is() -> None:
    rules = scale_down(load_scenario("persia-100t"), "laptop").rules
    assert "workload.batch_size: 1,024 -> 256 (at most 256 samples a rank)" in rules
    assert "model.features[0].dim: 128 -> 32 (at most 32)" in rules
    assert "cluster.tiers.parameter_server: 30 processes -> 2 (at most 2)" in rules
    assert any(
        rule.startswith("model.dense.layers: [4096, 2048, 1024, 512, 256] -> [512, 256, 128, 64, 32] (divided by 8") for rule in rules
    )
    assert all(re.fullmatch(r"[a-z][\w.\[\]*]*: .+ -> .+ \(.+\)", rule) for rule in rules)


def test_every_difference_has_a_rule() -> None:
    large = load_scenario("persia-100t", ["simulation.slow_machines=[{tier: nn_worker, index: 1, factor: 2}]"])
    scaled = scale_down(large, "laptop")
    subjects = tuple(rule.split(":")[0] for rule in scaled.rules)
    changed = differences(plain(large), plain(scaled.scenario))
    assert changed
    assert [path for path in changed if not path.startswith((*subjects, "description"))] == []


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """The paths of all values that differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        steps = [(f"{path}.{key}".strip("."), before.get(key), after.get(key)) for key in sorted({*before, *after})]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        steps = [(f"{path}[{index}]", old, new) for index, (old, new) in enumerate(zip(before, after, strict=True))]
    else:
        return [] if before == after else [path]
    return [found for step, old, new in steps for found in differences(old, new, step)]


def test_tables_keep_their_proportions() -> None:
    groups = [{"name": "user", "rows": "4 billion", "dim": 64}, {"name": "item", "rows": "1 billion", "dim": 64, "count": 3},
              {"name": "day", "rows": 7, "dim": 8}, {"name": "shop", "rows": 40_000, "dim": 8}]  # fmt: skip
    large = load_scenario({"extends": "persia-100t", "name": "mixed", "model": {"features": groups}})
    assert [feature.rows for feature in small(large).model.features] == [50_000, 12_500, 7, 100]


def test_a_table_that_evicts_goes_on_evicting() -> None:
    def resident(share: str) -> tuple[int | None, int]:
        group = {"name": "user", "rows": "1 billion", "resident_rows": share, "dim": 16}
        feature = small(load_scenario({"extends": "persia-100t", "name": "x", "model": {"features": [group]}})).model.features[0]
        return feature.resident_rows, feature.rows

    assert resident("500 million") == (25_000, 50_000)
    assert resident("1 million") == (20 * 256, 50_000), "rows of batches under way are not evicted"
    assert resident("2 billion") == (50_000, 50_000)


def test_assumptions_about_changed_values_are_left_out() -> None:
    large = load_scenario("servers-m2-ultramem-208")
    kept = {assumption.path for assumption in small(large).assumptions}
    assert kept == {
        "model.features[0].bytes_per_parameter", "model.features[0].optimizer", "model.features[0].zipf",
        "model.features[0].ids_per_sample", "model.dense.projection_dim", "model.dense.precision", "cluster.network.latency_same_zone",
        "schedule.staleness_permits", "schedule.precision", "cluster.machine_types.laptop",
    }  # fmt: skip


def test_data_of_files_stays_and_synthetic_data_stay_synthetic() -> None:
    data = small(load_scenario("criteo-tsv")).workload.data
    assert (data.kind, data.path) == ("criteo-tsv", "data/criteo/train.txt")
    assert small(load_scenario("persia-100t")).workload.data.kind == "synthetic"


def test_a_machine_of_its_own_is_kept_only_where_it_is_small() -> None:
    assert set(small(load_scenario("planted-small")).cluster.machine_types) == {"small"}
    for override in ("cluster.machine_types.small.vcpus=64", "cluster.machine_types.small.ram_gib=64", "cluster.tiers.nn_worker.count=2"):
        scaled = small(load_scenario("planted-small", [override]))
        assert set(scaled.cluster.machine_types) == {"laptop"}
        assert scaled.ranks == 2


def test_long_names_and_many_features_stay_valid() -> None:
    groups = [{"name": f"group{n}", "rows": 10**9, "dim": 4} for n in range(150)] + [
        {"name": "many", "count": 5000, "rows": 10**6, "dim": 4}
    ]
    scaled = small(load_scenario({"extends": "persia-100t", "name": "n" * 100, "model": {"features": groups}}))
    assert scaled.name == "n" * 93 + "-laptop"
    assert_small(scaled)
    assert sum(feature.count for feature in scaled.model.features) == LAPTOP.features
    assert scale_down(scaled, "laptop").rules == ()


def test_unknown_scale_lists_what_there_is() -> None:
    with pytest.raises(ScenarioError, match="expected one of: laptop") as caught:
        scale_down(load_scenario("laptop"), "desktop")
    assert str(caught.value).startswith("--scale: unknown scale 'desktop'")


GROUPS = st.lists(
    st.fixed_dictionaries(
        {
            "count": st.integers(1, MOST_FEATURES // 8),
            "rows": st.integers(1, 10**12),
            "resident_rows": st.none() | st.integers(1, 10**12),
            "dim": st.integers(1, 4096),
            "ids_per_sample": st.floats(0.01, 1e6),
            "pooling": st.sampled_from(["sum", "mean", "sqrtn", "raw"]),
        }
    ),
    min_size=1,
    max_size=6,
)
SCENARIOS = st.fixed_dictionaries(
    {
        "features": GROUPS,
        "dense": st.fixed_dictionaries(
            {
                "dense_features": st.integers(0, 5000),
                "layers": st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
                "projection_dim": st.none() | st.integers(1, 4096),
            }
        ),
        "workload": st.fixed_dictionaries({"batch_size": st.integers(1, 10**6), "samples": st.integers(1, 10**12)}),
        "machines": st.tuples(st.integers(1, 300), st.integers(1, 300), st.integers(1, 8)),
        "timeout_s": st.floats(0.001, 10.0),
        "mode": st.sampled_from(MODES),
        "dlrm": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None)
@given(SCENARIOS)
def test_any_scenario_becomes_small_once(drawn: dict[str, Any]) -> None:
    dense = {**drawn["dense"], "architecture": "dlrm" if drawn["dlrm"] and drawn["dense"]["projection_dim"] else "mlp"}
    workers, servers, ranks = drawn["machines"]
    large = load_scenario(
        {
            "extends": "persia-100t",
            "name": "any",
            "model": {"features": [{"name": f"g{n}", **group} for n, group in enumerate(drawn["features"])], "dense": dense},
            "workload": drawn["workload"],
            "cluster": {
                "tiers": {
                    "embedding_worker": {"count": workers},
                    "parameter_server": {"count": servers},
                    "nn_worker": {"processes_per_machine": ranks},
                }
            },
            "schedule": {"mode": drawn["mode"], "request_timeout": drawn["timeout_s"]},
        }
    )
    scaled = scale_down(large, "laptop")
    assert_small(scaled.scenario)
    assert scaled.scenario.ranks == 2
    assert scale_down(scaled.scenario, "laptop").rules == ()
    assert scaled.scenario.schedule.mode == drawn["mode"]
