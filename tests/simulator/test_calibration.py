"""From what a rig has measured to a profile, and how well planted constants are found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("scipy")

from persia.scenario import Scenario, load_profile, load_scenario
from simulator.calibration.design import CROWDED_REFERENCE, IDS_PER_BATCH_MAX, REFERENCE, crowds, points, with_reference
from simulator.calibration.equations import (
    PointTimes,
    crowd_equations,
    crowded_points,
    equations,
    lookup_share,
    paces_around,
    reduction_equations,
    reference_s,
)
from simulator.calibration.fit import bounded, fit, fit_all
from simulator.calibration.store import Calibrated, read_points, write_points, write_profile
from simulator.calibration.waking import wait_s
from simulator.host_costs import THREADS, Quantities, crowd_terms, quantities, reduction_terms, stage_seconds, stage_terms
from simulator.run import simulate
from simulator.validation.cases import grid

MACHINE = {"cpu": "a processor", "cores": 2, "ram_gib": 24.0, "system": "Linux", "python": "3.11", "packages": {"numpy": "2"}}
BASE = grid()[0].base
PROFILE = Path(__file__).with_name("calibrated.yaml")


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


def test_a_bounded_fit_stays_within_its_bounds() -> None:
    found = fit([({"a": 1.0}, 3.0), ({"b": 1.0}, 0.1), ({"c": 2.0}, 2.0)])
    assert bounded(found, 0.4, 2.0).constants == pytest.approx({"a": 2.0, "b": 0.4, "c": 1.0})


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


PACES = np.exp(0.15 * np.sin(np.arange(60)))
FACTORS = {"fixed": 0.7, "sized": 1.25}
REDUCE = {"host.reduce.after_backward_s_per_step": 1e-3, "host.reduce.s_per_hop": 2e-4, "host.reduce.s_per_byte": 1e-9}
REDUCE["host.reduce.overlapped_s_per_step"] = 2e-3


def paced(point: PointTimes, pace: float) -> PointTimes:
    return replace(
        point,
        thread_s={key: pace * seconds for key, seconds in point.thread_s.items()},
        span_s={key: pace * seconds for key, seconds in point.span_s.items()},
        step_s=pace * point.step_s,
    )


def all_planted(q: Quantities) -> dict[str, float]:
    return {name: planted(name) for terms in stage_terms(q).values() for name in terms}


def crowded(q: Quantities, reduction: str = "") -> PointTimes:
    """Return what a crowded machine of two cores would show: the planted constants with the factors."""
    spent = {}
    for thread, terms in crowd_terms(all_planted(q), q).items():
        spent[thread] = sum(FACTORS[name.rpartition("_")[2]] * seconds for name, seconds in terms.items())
    if reduction:
        spent["train"] += stage_seconds(REDUCE, reduction_terms(q, reduction))
    roles = {"worker": "embedding_worker", "server": "parameter_server", "rank": "nn_worker", "loader": "loader"}
    thread_s = {(role, "main"): spent[name] for name, role in roles.items()}
    thread_s |= {("nn_worker", "other"): spent["train"], ("loader", "io"): spent["io"]}
    step_s = sum(spent.values()) / 2.0
    return PointTimes(quantities=q, thread_s=thread_s, span_s={}, step_s=step_s, crowded=True, reduction=reduction)


def test_a_machine_that_changes_its_pace_has_the_constants_of_its_mean_pace() -> None:
    steady = [made_up(q) for q in drawn(60)]
    expected, _ = fit_all(equations(steady))
    found, paces = fit_all(equations([paced(point, pace) for point, pace in zip(steady, PACES, strict=True)]))
    assert np.std(np.log(paces / PACES)) < 0.01
    mean = float(np.exp(np.mean(np.log(PACES))))
    for stage in ("server", "train", "io"):
        assert found[stage].relative_error < 0.02
        for name, value in expected[stage].constants.items():
            if value > 0.0 and name.rpartition("s_per_")[2] in ("batch", "request", "row", "message", "byte"):
                assert found[stage].constants[name] == pytest.approx(mean * value, rel=0.1), name


def test_what_crowding_changes_is_found_in_points_of_a_crowded_machine() -> None:
    shapes = [quantities(load_scenario(BASE, list(point.overrides))) for point in crowds(16)]
    alone = [made_up(q) for q in drawn(4)]
    measured = [*alone[:2], *(crowded(q) for q in shapes), *alone[2:]]
    found, paces = fit_all(crowd_equations(measured, [1.0] * 4, all_planted(shapes[0]), 2.0))
    assert crowded_points(measured, 2.0) == list(range(2, 18))
    assert paces == pytest.approx([1.0] * 16, abs=1e-6)
    assert set(found) == set(THREADS)
    for thread, each in found.items():
        for part, factor in FACTORS.items():
            assert each.constants[f"host.crowd.{thread}_{part}"] == pytest.approx(factor, rel=1e-3), (thread, part)


def test_the_all_reduce_is_what_a_training_thread_takes_more() -> None:
    shapes = [quantities(load_scenario(BASE, list(point.overrides))) for point in crowds(24)]
    kinds = ["after_backward" if number % 2 else "overlapped" for number in range(24)]
    measured = [crowded(q, kind) for q, kind in zip(shapes, kinds, strict=True)]
    constants = all_planted(shapes[0]) | {f"host.crowd.{thread}_{part}": FACTORS[part] for thread in THREADS for part in FACTORS}
    equations_of = reduction_equations(measured, [1.0] * 24, {}, constants, 2.0)
    found = fit([(terms, seconds) for terms, seconds, _ in equations_of], [train_s for *_, train_s in equations_of])
    assert {name: found.constants.get(name) for name in REDUCE} == pytest.approx(REDUCE, rel=1e-3)


def test_a_crowded_point_has_the_pace_of_those_around_it() -> None:
    points_of = [made_up(q) for q in drawn(4)]
    among = [*points_of[:2], crowded(points_of[0].quantities), *points_of[2:]]
    assert paces_around(among, [1.0, 1.21, 1.0, 1.21]) == pytest.approx([1.0, 1.21, 1.1, 1.0, 1.21])


def test_the_reference_is_measured_again_and_again_and_known_at_the_mean_pace() -> None:
    plan = with_reference(points(10), 5, REFERENCE)
    assert [number for number, point in enumerate(plan) if point is REFERENCE] == [0, 6]
    shapes = [quantities(load_scenario(BASE, list(point.overrides))) for point in plan]
    measured = [paced(made_up(q), pace) for q, pace in zip(shapes, PACES, strict=False)]
    exact_s = sum(made_up(shapes[0]).threads().values())
    assert reference_s(measured, PACES.tolist()[:12], shapes[0]) == pytest.approx(exact_s)
    assert load_scenario(BASE, list(CROWDED_REFERENCE.overrides)).schedule.staleness_permits == 16


@pytest.mark.parametrize("name", ["host.wake_s", "host.reduce.delay_s_per_hop"])
def test_a_planted_wait_is_found_in_the_time_of_a_step(name: str, tmp_path: Path) -> None:
    tree = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))

    def with_wait(scenario: Scenario, tried_s: float) -> Scenario:
        tree["constants"][name]["value"] = tried_s
        path = tmp_path / f"{tried_s}.yaml"
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return scenario.model_copy(update={"simulation": scenario.simulation.model_copy(update={"profile": str(path), "steps": 100})})

    chosen = [case.scenario([]) for case in grid() if case.name in ("grid-13", "grid-21", "grid-05")]
    measured = [(each, each.workload.batch_size / simulate(with_wait(each, 8e-5)).throughput.samples_per_s.mean) for each in chosen]
    assert wait_s(measured, with_wait) == pytest.approx(8e-5, rel=0.25)


def test_without_crowded_points_crowding_changes_nothing_and_no_pace_is_known() -> None:
    pytest.importorskip("zmq")
    from persia.commands import calibrate

    reference = quantities(calibrate.rig_scenario(REFERENCE.overrides))
    measured = [made_up(q) for q in (reference, *drawn(40))]
    idle = [replace(crowded(q, "after_backward"), step_s=10.0) for q in drawn(8)]
    calibrated, paces = calibrate._fit(
        [*measured, *idle], calibrate._Findings(background_cores=[0.1], noise_cv=[0.1]), {"host.loader.draw_s_per_id": 1e-8}
    )
    constants = calibrated.constants()
    assert {constants[f"host.crowd.{thread}_{part}"] for thread in THREADS for part in FACTORS} == {1.0}
    assert "host.reference_s" in constants
    assert "host.crowded_reference_s" not in constants
    assert len(paces) == len(measured) + len(idle)
