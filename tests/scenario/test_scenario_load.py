"""Loading: packaged names and paths, what is inherited, what is overridden, and where errors are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from persia.scenario import ScenarioError, list_scenarios, load_scenario, parse_override, scenario_digest
from persia.scenario.packaged import scenario_path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def error_of(source: str | Path | dict[str, object], *overrides: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        load_scenario(source, overrides)
    return caught.value


@pytest.mark.parametrize("name", list_scenarios())
def test_packaged_scenarios_load_by_name_and_by_path(name: str) -> None:
    by_name = load_scenario(name)
    assert by_name.name == name
    assert load_scenario(scenario_path(name)) == by_name
    assert load_scenario(str(scenario_path(name))) == by_name


@pytest.mark.parametrize("name", list_scenarios())
def test_a_resolved_scenario_is_a_scenario_with_the_same_digest(name: str) -> None:
    scenario = load_scenario(name)
    again = load_scenario(scenario.model_dump(mode="json", by_alias=True))
    assert again == scenario
    assert scenario_digest(again) == scenario_digest(scenario)


def test_the_digest_follows_content_and_not_order() -> None:
    machine = {"vcpus": 2, "ram_gib": 4, "nic": "1Gbps"}
    base = {"extends": "laptop"}
    one, other = ({**base, "cluster": {"machine_types": dict.fromkeys(names, machine)}} for names in (("a", "b"), ("b", "a")))
    assert scenario_digest(load_scenario(one)) == scenario_digest(load_scenario(other))
    changed = load_scenario(one, ["simulation.seed=2"])
    assert scenario_digest(changed) != scenario_digest(load_scenario(one))
    assert scenario_digest(load_scenario(base, ["schedule.bucket_size=25MB"])) == scenario_digest(load_scenario(base))


def test_a_file_is_preferred_to_a_packaged_name_but_a_folder_is_not(folder: Path) -> None:
    (folder / "laptop").mkdir()
    assert load_scenario("laptop").name == "laptop"
    (folder / "laptop").rmdir()
    (folder / "laptop").write_text("extends: persia-100t\nname: mine\n")
    assert load_scenario("laptop").name == "mine"


def test_mappings_are_merged_lists_replaced_and_null_undoes(folder: Path) -> None:
    (folder / "base.yaml").write_text(
        "extends: laptop\nschedule: {mode: async, pushes_in_flight: 3}\nmodel: {dense: {layers: [7, 6, 5]}}\n"
    )
    (folder / "heir.yaml").write_text("extends: base\nschedule: {mode: hybrid, staleness_permits: null}\nmodel: {dense: {layers: [9]}}\n")
    heir = load_scenario("heir.yaml")
    assert heir.schedule.mode == "hybrid"
    assert heir.schedule.pushes_in_flight == 3
    assert heir.schedule.staleness_permits is None
    assert heir.model.dense.layers == (9,)
    assert heir.model.features == load_scenario("laptop").model.features


def test_assumptions_are_merged_by_path(folder: Path) -> None:
    entry = "- {path: 'model.features[0].zipf', why: measured, source: our log, evidence: S}"
    (folder / "heir.yaml").write_text(f"extends: laptop\nassumptions:\n{entry}\n")
    parent = {each.path: each for each in load_scenario("laptop").assumptions}
    heir = {each.path: each for each in load_scenario("heir.yaml").assumptions}
    assert heir.keys() == parent.keys()
    assert len(heir) > 1
    assert heir["model.features[0].zipf"].why == "measured"
    assert all(heir[path] == parent[path] for path in heir if path != "model.features[0].zipf")


def test_extends_is_relative_to_the_file_it_stands_in(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    (folder / "a" / "heir.yaml").write_text("extends: ../b/parent.yaml\nname: heir\n")
    (folder / "b" / "parent.yaml").write_text("extends: sibling\n")
    (folder / "b" / "sibling.yaml").write_text("extends: laptop\nworkload: {batch_size: 99}\n")
    assert load_scenario("a/heir.yaml").workload.batch_size == 99


def test_a_file_may_extend_the_packaged_scenario_of_its_own_name(folder: Path) -> None:
    (folder / "laptop.yaml").write_text("extends: laptop\nworkload: {batch_size: 99}\n")
    assert load_scenario("laptop.yaml").workload.batch_size == 99


def test_eight_generations_are_allowed(folder: Path) -> None:
    for number in range(8):
        (folder / f"g{number}.yaml").write_text(f"extends: g{number + 1}\n" if number < 7 else "extends: laptop\n")
    assert load_scenario("g0.yaml").name == "laptop"


def test_an_inherited_value_is_blamed_where_it_was_written(folder: Path) -> None:
    (folder / "parent.yaml").write_text("extends: laptop\nworkload:\n  batch_size: none\n")
    (folder / "heir.yaml").write_text("extends: parent\nname: heir\nworkload: {samples: 5}\n")
    error = error_of("heir.yaml")
    assert (error.file, error.line, error.column) == ("parent.yaml", 3, 15)
    assert error.lines()[0].startswith("parent.yaml:3:15: workload.batch_size: 'none'")


def test_all_errors_are_reported_and_unknown_keys_come_first(folder: Path) -> None:
    (folder / "s.yaml").write_text("extends: laptop\nworkload: {batch_size: 0}\nsimulation: {seed: -1, sed: 5}\nname: 7\n")
    error = error_of("s.yaml")
    assert [(each.line, each.column) for each in (error, *error.more)] == [(3, 24), (2, 24), (3, 20), (4, 7)]
    assert "Did you mean 'seed'?" in error.remedy
    assert str(error).count("\n") == 3


def test_at_most_twenty_errors_are_shown(folder: Path) -> None:
    (folder / "s.yaml").write_text("extends: laptop\n" + "".join(f"key{number}: 1\n" for number in range(50)))
    lines = error_of("s.yaml").lines()
    assert len(lines) == 21
    assert lines[-1] == "... and 30 more"


def test_many_broken_rules_are_counted(folder: Path) -> None:
    slow = "".join(f"    - {{tier: loader, index: {number}, factor: 2}}\n" for number in range(1, 31))
    (folder / "s.yaml").write_text(f"extends: laptop\nsimulation:\n  slow_machines:\n{slow}")
    lines = error_of("s.yaml").lines()
    assert len(lines) == 21
    assert lines[-1] == "... and 10 more"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("workload.batch_size=2_048", ("workload", "batch_size"), 2048),
        ("workload.batch_size = 64", ("workload", "batch_size"), 64),
        ("model.features.0.rows=30e9", ("model", "features", 0, "rows"), 30_000_000_000),
        ("model.features[0].rows=30 billion", ("model", "features", 0, "rows"), 30_000_000_000),
        ("model.dense.layers=[8, 4]", ("model", "dense", "layers"), (8, 4)),
        ("model.dense.layers[1]=5", ("model", "dense", "layers", 1), 5),
        ("schedule={mode: sync, staleness_permits: 1}", ("schedule", "mode"), "sync"),
        ("schedule.precision.worker_rank=fp32", ("schedule", "precision", "worker_rank"), "fp32"),
        ("simulation.steps=", ("simulation", "steps"), None),
        ("name=no", ("name",), "no"),
        ("description=a=b", ("description",), "a=b"),
        ("cluster.machine_types.laptop.nic=10Gbps", ("cluster", "machine_types", "laptop", "nic"), 10e9),
        ("workload.data={kind: criteo-tsv, path: data/day_0.gz}", ("workload", "data", "path"), "data/day_0.gz"),
        ("workload.data.held_out_samples=50 thousand", ("workload", "data", "held_out_samples"), 50_000),
        ("workload.evaluate_every_steps=100", ("workload", "evaluate_every_steps"), 100),
    ],
)
def test_overrides(override: str, path: tuple[str | int, ...], value: object) -> None:
    found: object = load_scenario("laptop", [override])
    for step in path:
        if isinstance(step, int):
            assert isinstance(found, tuple)
            found = found[step]
        else:
            found = found[step] if isinstance(found, dict) else getattr(found, step)
    assert found == value


def test_the_last_override_wins() -> None:
    assert load_scenario("laptop", ["workload.batch_size=1", "workload.batch_size=2"]).workload.batch_size == 2


@pytest.mark.parametrize(
    ("override", "fragment"),
    [
        ("workload.batch_size", "has no `=`"),
        ("=5", "the path is empty"),
        ("workload..batch_size=5", "not a path"),
        ("workload.batch_size.=5", "ends with a dot"),
        ("workload.batchsize=5", "Did you mean 'batch_size'?"),
        ("worklod.batch_size=5", "Did you mean 'workload'?"),
        ("workload.batch_size.x=5", "leads nowhere"),
        ("model.features[7].rows=5", "expected an index from 0 to 0"),
        ("model.features.first.rows=5", "leads nowhere"),
        ("cluster.network.links[0].latency=5us", "Set the whole list"),
        ("extends=persia-100t", "cannot be set from outside"),
        ("workload.batch_size=[", "this is not YAML"),
        ("workload.batch_size=!!int 5", "the tag"),
        ("workload.batch_size=&a 5", "the anchor"),
        ("workload.batch_size=a\0b", "U+0000"),
        ("workload.batch_size=-5", "too small"),
        ("workload={batch_sise: 5}", "Did you mean 'batch_size'?"),
        ("cluster.tiers.nn_worker.machine_type=a3-highgpu-8", "Did you mean 'a3-highgpu-8g'?"),
        ("name=" + "x" * 20_000, "expected at most 10,000"),
        ("x" * 5_000 + "=1", "not a path"),
    ],
)
def test_refused_overrides(override: str, fragment: str) -> None:
    error = error_of("laptop", override)
    assert fragment in str(error)
    assert error.file.startswith(f"--set {override[:20]}")
    assert error.line is None
    assert error.column is None


def test_an_override_does_not_touch_what_a_scalar_holds() -> None:
    error = error_of({"name": "x", "workload": 5}, "workload.batch_size=5")
    assert "is a single value; expected a mapping" in str(error)


def test_parse_override_gives_path_and_text() -> None:
    override = parse_override("model.features[0].rows=5")
    assert override.path == ("model", "features", 0, "rows")
    assert str(override.position) == "--set model.features[0].rows=5"


def test_unknown_names_get_a_suggestion(folder: Path) -> None:
    assert "Did you mean 'persia-100t'?" in error_of("persia-10t").remedy
    assert "no such file" in error_of("./persia-100t.yaml").message
    assert "is a directory" in error_of(folder).message
    assert error_of("").line == 1


def test_a_profile_path_is_relative_to_the_file_that_names_it(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "mine.yaml").write_text("name: mine\nconstants: {x: {value: 1, unit: s, source: us, evidence: S}}\n")
    (folder / "a" / "s.yaml").write_text("extends: laptop\nsimulation: {profile: ./mine.yaml}\n")
    assert Path(load_scenario("a/s.yaml").simulation.profile) == Path("a/mine.yaml")


def test_helpers_of_a_scenario() -> None:
    scenario = load_scenario("in-house-v100-criteo")
    assert scenario.ranks == 8
    assert scenario.staleness_permits == 10
    assert load_scenario("laptop", ["schedule.mode=sync", "schedule.staleness_permits=7"]).staleness_permits == 1
    assert [feature.name for feature in scenario.features[:2]] == ["categorical.0", "categorical.1"]
    assert sum(feature.parameters for feature in scenario.features) == scenario.model.sparse_parameters
    assert scenario.host_tier("parameter_server") == "embedding_worker"
    assert scenario.host_machine_type("parameter_server") == "cpu-server"
    assert load_scenario("cross-zone-servers").zone("parameter_server") == "us-central1-b"
    assert [name for name, _ in scenario.tiers()] == ["loader", "embedding_worker", "parameter_server", "nn_worker"]
    with pytest.raises(KeyError):
        scenario.tier("servers")


def test_scenarios_are_frozen() -> None:
    scenario = load_scenario("laptop")
    with pytest.raises(ValueError, match="frozen"):
        scenario.workload.batch_size = 5
