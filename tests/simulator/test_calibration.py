"""From what a rig has measured to a profile, and how well planted constants are found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from persia.scenario import load_profile, load_scenario
from simulator.calibration.design import IDS_PER_BATCH_MAX, points
from simulator.calibration.equations import PointTimes, equations, lookup_share, wait_s
from simulator.calibration.fit import fit
from simulator.calibration.store import Calibrated, read_points, write_points, write_profile
from simulator.host_costs import Quantities, quantities, stage_terms
from simulator.validation.cases import grid

MACHINE = {"cpu": "a processor", "cores": 2, "ram_gib": 24.0, "system": "Linux", "python": "3.11", "packages": {"numpy": "2"}}
BASE = grid()[0].base


def drawn(count: int) -> list[Quantities]:
    return [quantities(load_scenario(BASE, list(point.overrides))) for point in points(count)]


def planted(name: str) -> float:
    """Return a made-up constant of a plausible size."""
    for ending, value in {"per_batch": 5e-4, "per_server": 2e-4, "per_request": 2e-4, "per_message": 4e-5, "per_flop": 2e-11}.items():
        if name.endswith(ending):
            return value
    return 2e-9 if "value" in name or "byte" in name or "parameter" in name else 3e-8


def test_the_points_cover_all_modes_wires_and_servers_and_none_is_a_case() -> None:
    plan = points(40)
    assert plan == points(40)
    text = [" ".join(point.overrides) for point in plan]
    for word in ("mode=sync", "mode=async", "server_worker=fp16-scaled", "worker_rank=fp32", "parameter_server.processes_per_machine=3"):
        assert any(word in each for each in text)
    cases = {(case.settings["workload.batch_size"], case.settings["model.features[0].dim"]) for case in grid()}
    sizes = [(q.samples, q.row_values / q.rows) for q in drawn(40)]
    assert not [size for size in sizes if (f"{size[0]:.0f}", f"{size[1]:.0f}") in cases]
    assert sorted(q.ids for q in drawn(40))[-2] <= IDS_PER_BATCH_MAX < sorted(q.ids for q in drawn(40))[-1]  # a corner
    assert {q.samples for q in (quantities(load_scenario(BASE, list(p.overrides))) for p in points(12, [128, 512]))} == {128.0, 512.0}


@pytest.mark.parametrize("stage", ["dedup", "server", "train", "io"])
def test_planted_constants_are_found_again(stage: str) -> None:
    generator = np.random.default_rng(2)
    exact, noisy = [], []
    for q in drawn(60):
        terms = stage_terms(q)[stage]
        seconds = sum(planted(name) * count for name, count in terms.items())
        exact.append((terms, seconds))
        noisy.append((terms, seconds * float(np.exp(0.1 * generator.standard_normal()))))
    found = fit(exact)
    assert found.relative_error < 1e-6
    for name, value in found.constants.items():
        assert value == pytest.approx(planted(name), rel=1e-3), name
    found = fit(noisy)
    assert 0.05 < found.relative_error < 0.15
    errors = [sum(found.constants[name] * count for name, count in terms.items() if name in found.constants) / s - 1 for terms, s in exact]
    assert float(np.mean(np.abs(errors))) < 0.06


def test_what_a_disturbance_has_spoilt_is_left_out_and_counted() -> None:
    equations_of = [
        (terms, sum(planted(name) * count for name, count in terms.items())) for terms in (stage_terms(q)["dedup"] for q in drawn(40))
    ]
    spoilt = [(terms, seconds * (6.0 if place == 7 else 1.0)) for place, (terms, seconds) in enumerate(equations_of)]
    found = fit(spoilt)
    assert found.left_out >= 1
    assert found.constants["host.worker.dedup_s_per_id"] == pytest.approx(3e-8, rel=0.01)


def test_fewer_points_than_constants_are_refused() -> None:
    with pytest.raises(ValueError, match="do not determine"):
        fit([(stage_terms(q)["un-pool"], 1.0) for q in drawn(2)])


def made_up(q: Quantities) -> PointTimes:
    """Return what a rig would show of a machine with the planted constants."""
    spent = {stage: sum(planted(name) * count for name, count in terms.items()) for stage, terms in stage_terms(q).items()}
    thread = {
        ("loader", "main"): spent["loader"],
        ("embedding_worker", "main"): spent["dedup"] + spent["pool"] + spent["un-pool"] + spent["worker rest"],
        ("parameter_server", "main"): spent["server"],
        ("nn_worker", "main"): spent["rank rest"],
        ("nn_worker", "other"): spent["train"],
        ("embedding_worker", "io"): spent["io"],
    }
    spans = {stage: spent[stage] for stage in ("dedup", "pool", "un-pool")} | {
        "lookup": 0.3 * spent["server"],
        "update": 0.6 * spent["server"],
    }
    step_s = sum(thread.values()) - spent["loader"] + 10 * 2e-4
    return PointTimes(quantities=q, thread_s=thread, span_s=spans, step_s=step_s)


def test_every_stage_is_fitted_from_the_clocks_of_threads() -> None:
    found = {stage: fit(each) for stage, each in equations([made_up(q) for q in drawn(60)]).items()}
    assert set(found) == set(stage_terms(drawn(1)[0]))
    assert max(each.relative_error for each in found.values()) < 1e-3
    waits = [wait for wait in (wait_s(made_up(q), 10.0) for q in drawn(60)) if wait is not None]
    assert waits
    assert waits == pytest.approx([2e-4] * len(waits))


def test_spans_of_servers_only_tell_how_their_time_divides() -> None:
    points_of = [made_up(q) for q in drawn(40)]
    stretched = [
        replace(point, span_s={**point.span_s, **{stage: 3 * point.span_s[stage] for stage in ("lookup", "update")}}) for point in points_of
    ]
    assert equations(stretched)["server"] == equations(points_of)["server"]
    assert lookup_share(stretched) == pytest.approx(lookup_share(points_of)) == pytest.approx(1 / 3)


def test_a_calibration_is_a_profile_with_intervals_a_machine_and_a_domain(tmp_path: Path) -> None:
    points_of = [made_up(q) for q in drawn(40)]
    fitted = {stage: fit(each) for stage, each in equations(points_of).items()}
    path = tmp_path / "deep" / "profile.yaml"
    calibrated = Calibrated(
        fitted=fitted, extra={"host.cores": 2.0}, quantities=[point.quantities for point in points_of], machine=MACHINE, seconds=60.0
    )
    write_profile(path, calibrated)
    profile = load_profile(str(path))
    assert profile.machine is not None
    assert profile.machine.cores == 2
    constant = profile.constants["host.worker.dedup_s_per_id"]
    assert constant.low is not None
    assert constant.high is not None
    assert constant.low <= constant.value <= constant.high
    assert constant.unit == "s/id"
    assert profile.domain["samples"].low >= 100
    assert profile["host.cores"] == 2.0
    assert not list(path.parent.glob("*.partial"))
    write_points(path.with_suffix(".json"), points_of)
    assert read_points(path.with_suffix(".json")) == points_of
