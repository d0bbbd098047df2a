"""Each verb as a person runs it: what it prints, where, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from persia import __version__
from persia.commands import doctor
from persia.commands.exits import ExitCode
from persia.commands.init import starter
from persia.scenario import json_schema, list_scenarios, load_scenario, scenario_digest
from persia.schedule.log import read_log, replay
from persia.trace import Span, read_trace
from simulator.check import check
from tests.conftest import Persia

RESULT_KEYS = {
    "scenario", "digest", "seed", "mode", "throughput", "step_time_s", "staleness", "utilisation", "bottleneck", "memory", "cost",
    "events", "wall_s", "quality", "schema_version",
}  # fmt: skip


def parsed(text: str) -> dict[str, Any]:
    payload = json.loads(text)
    assert isinstance(payload, dict)
    assert payload["schema_version"] == 1
    return payload


def test_version(persia: Persia) -> None:
    assert persia("--version").stdout == f"persia {__version__}\n"


def test_help_lists_verbs_and_exit_codes(persia: Persia) -> None:
    done = persia("--help")
    assert done.returncode == 0
    for word in ("demo", "init", "check", "simulate", "validate", "catalog", "doctor", "schema", "Exit codes"):
        assert word in done.stdout


def test_simulate_json_has_the_promised_keys(persia: Persia) -> None:
    done = persia("simulate", "persia-100t", "--steps", "40", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "progress is for terminals only"
    payload = parsed(done.stdout)
    assert payload.keys() >= RESULT_KEYS
    assert payload["throughput"]["samples_per_s"].keys() == {"mean", "low", "high"}
    assert payload["step_time_s"].keys() == {"p50", "p95", "p99"}
    assert payload["staleness"].keys() == {"version", "in_flight", "row"}
    assert payload["staleness"]["version"].keys() == {"mean", "p50", "p90", "p99", "max", "histogram"}
    assert payload["bottleneck"].keys() >= {"tier", "resource", "sentence"}
    assert all(memory.keys() >= {"needed_gib", "available_gib", "fits"} for memory in payload["memory"].values())
    assert payload["cost"].keys() >= {"usd_per_hour", "usd_per_billion_samples"}
    assert (payload["seed"], payload["steps"], payload["quality"]) == (7, 40, None)


def test_seed_decides_the_digest(persia: Persia) -> None:
    def digest(*arguments: str, hash_seed: str = "0") -> str:
        done = persia("simulate", "persia-100t", "--steps", "20", "--json", *arguments, env={"PYTHONHASHSEED": hash_seed})
        return str(parsed(done.stdout)["digest"])

    first = digest("--seed", "1")
    assert digest("--seed", "1", "--engine", "heapq", hash_seed="1") == first
    assert digest("--seed", "2") != first


def test_set_overrides_a_field(persia: Persia) -> None:
    done = persia("simulate", "persia-100t", "--steps", "20", "--set", "schedule.mode=sync", "--set", "workload.batch_size=512", "--json")
    payload = parsed(done.stdout)
    assert (payload["mode"], payload["batch_size"]) == ("sync", 512)


def test_run_directory_holds_a_run_that_can_be_repeated(persia: Persia, tmp_path: Path) -> None:
    done = persia("simulate", "laptop", "--steps", "40", "--report", "--trace", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    run, payload = tmp_path / "run", parsed(done.stdout)
    names = {entry.name for entry in run.iterdir()}
    assert names >= {"scenario.yaml", "result.json", "trace.jsonl", "events.jsonl", "perfetto.json", "report.html", "run.json", "figures"}
    assert not [name for name in names if name.startswith(".")]
    assert json.loads((run / "run.json").read_text())["state"] == "complete"
    assert parsed((run / "result.json").read_text())["digest"] == payload["digest"]
    assert any(isinstance(record, Span) for record in read_trace(run / "trace.jsonl"))
    assert json.loads((run / "perfetto.json").read_text())["traceEvents"]
    with (run / "events.jsonl").open(encoding="utf-8") as lines:
        header, entries = read_log(lines)
        assert replay(header, entries) is None
    assert scenario_digest(load_scenario(run / "scenario.yaml")) == payload["scenario_digest"]
    again = persia("simulate", run / "scenario.yaml", "--json")
    assert parsed(again.stdout)["digest"] == payload["digest"]


def test_report_without_out_gets_the_next_free_name(persia: Persia, tmp_path: Path) -> None:
    (tmp_path / "runs" / "laptop-001").mkdir(parents=True)
    assert persia("simulate", "laptop", "--steps", "20", "--report").returncode == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["laptop-001", "laptop-002"]


def test_check_option_checks_invariants(persia: Persia) -> None:
    plain, checked = (parsed(persia("simulate", "persia-100t", "--steps", "10", "--json", *more).stdout) for more in ([], ["--check"]))
    assert plain["digest"] == checked["digest"]


def test_demo_compares_the_modes_and_writes_the_page(persia: Persia, tmp_path: Path) -> None:
    done = persia("demo", "--steps", "20", "--json")
    assert done.returncode == 0, done.stderr
    payload = parsed(done.stdout)
    assert payload["mode"] == "hybrid"
    assert set(payload["modes"]) == {"sync", "naive-hybrid", "async"}
    assert payload["page"] == "runs/demo-001/report.html"
    assert (tmp_path / payload["page"]).read_text().startswith("<!doctype html>")


def test_check_prints_fit_price_and_bound(persia: Persia) -> None:
    payload = parsed(persia("check", "persia-100t", "--json").stdout)
    assert payload["fits"] is True
    assert payload["cost"]["usd_per_hour"] == pytest.approx(2918, rel=0.01)
    assert min(payload["bounds"].values()) > 1e6
    assert "Bill" in persia("check", "persia-100t").stdout


@pytest.mark.parametrize("arguments", [["fp32-does-not-fit"], ["dim-16-does-not-fit"]], ids=" ".join)
def test_infeasible_exits_with_3_and_says_what_is_missing(persia: Persia, arguments: list[str]) -> None:
    for verb in ("check", "simulate"):
        done = persia(verb, *arguments)
        assert done.returncode == ExitCode.INFEASIBLE
        assert "Traceback" not in done.stderr
    payload = parsed(persia("check", *arguments, "--json").stdout)
    assert payload["fits"] is False
    assert all(excuse["reason"] and excuse["remedies"] for excuse in payload["excuses"])
    assert max(excuse["missing_gib"] for excuse in payload["excuses"]) > 1000


def test_infeasible_simulation_leaves_no_directory(persia: Persia, tmp_path: Path) -> None:
    done = persia("simulate", "fp32-does-not-fit", "--out", "run", "--json")
    assert done.returncode == ExitCode.INFEASIBLE
    assert parsed(done.stdout)["excuses"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("base", list_scenarios())
def test_init_extends_any_packaged_scenario(base: str, tmp_path: Path) -> None:
    path = tmp_path / "My Cluster.yaml"
    path.write_text(starter(base=base, path=path), encoding="utf-8")
    mine = load_scenario(path)
    assert mine.name == "my-cluster"
    assert mine.model == load_scenario(base).model
    uncommented = path.read_text().split("# workload:", 1)
    lines = [line.removeprefix("# ") for line in f"# workload:{uncommented[1]}".splitlines()]
    path.write_text(uncommented[0] + "\n".join(lines), encoding="utf-8")
    assert check(load_scenario(path)) is not None, "the commented lines should be valid too"


def test_init_refuses_to_overwrite(persia: Persia, tmp_path: Path) -> None:
    assert persia("init").returncode == 0
    before = (tmp_path / "scenario.yaml").read_text()
    done = persia("init")
    assert done.returncode == ExitCode.USAGE
    assert "left as it is" in done.stderr
    assert (tmp_path / "scenario.yaml").read_text() == before


def test_init_from_an_unknown_scenario_writes_nothing(persia: Persia, tmp_path: Path) -> None:
    assert persia("init", "mine.yaml", "--from", "persia-100").returncode == ExitCode.USAGE
    assert list(tmp_path.iterdir()) == []


def test_catalog(persia: Persia) -> None:
    machines = parsed(persia("catalog", "--json").stdout)["machines"]
    assert len(machines) == 45
    assert all(machine["source"] and machine["evidence"] and machine["as_of"] for machine in machines)
    family = parsed(persia("catalog", "--family", "m2", "--json").stdout)["machines"]
    assert {machine["name"].split("-")[0] for machine in family} == {"m2"}
    assert "m2-ultramem-416" in persia("catalog", "--family", "m2").stdout


def test_catalog_suggests_a_family(persia: Persia) -> None:
    assert "Did you mean" in persia("catalog", "--family", "m22").stderr


def test_schema_is_the_scenario_schema(persia: Persia) -> None:
    assert json.loads(persia("schema").stdout) == json_schema()


def test_doctor_finds_this_machine_healthy(persia: Persia) -> None:
    done = persia("doctor", "--json")
    assert done.returncode == 0
    findings = {finding["name"]: finding for finding in parsed(done.stdout)["findings"]}
    assert findings["python"]["good"]
    assert findings["simpy"]["essential"]
    assert not findings["torch"]["essential"]
    assert findings["scenarios"]["good"]


def test_doctor_without_an_essential_package_exits_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["no-such-package-anywhere>=1"])
    monkeypatch.chdir(tmp_path)
    assert doctor.run(as_json=True) is ExitCode.ENVIRONMENT


def test_resolved_scenario_keeps_every_value(persia: Persia, tmp_path: Path) -> None:
    persia("simulate", "laptop", "--steps", "20", "--out", "run")
    resolved = yaml.safe_load((tmp_path / "run" / "scenario.yaml").read_text())
    assert resolved == load_scenario("laptop", ["simulation.steps=20"]).model_dump(mode="json", by_alias=True)
