"""From what a rig has measured to a profile, and how well planted constants are found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from persia.readings import Readings
from persia.scenario import load_profile, load_scenario
from simulator.calibration.design import crowds, points
from simulator.calibration.equations import (
    ROLE_OF_STAGE,
    Equation,
    PointTimes,
    Usual,
    crowd_equations,
    equations,
    lookup_share,
    others_busy,
    reduction_equations,
    sleep_equations,
)
from simulator.calibration.fit import fit, fit_all
from simulator.calibration.machine import fit_machine
from simulator.calibration.store import Calibrated, read_points, write_points, write_profile
from simulator.host_conditions import (
    ARITHMETIC_EXPONENT,
    READING_EXPONENTS,
    beside_idle_s,
    condition_exponents,
    crowd_exponents,
    crowd_idle,
    factors_of,
    slowdowns,
    stage_paces,
    usual_reading_names,
)
from simulator.host_costs import (
    ARITHMETIC,
    SUMMING,
    TRAINING_TOGETHER,
    Quantities,
    quantities,
    reduction_terms,
    sleep_cost,
    sleep_terms,
    stage_seconds,
    stage_terms,
)
from simulator.validation.cases import grid

MACHINE = {"cpu": "a processor", "cores": 2, "ram_gib": 24.0, "system": "Linux", "python": "3.11", "packages": {"numpy": "2"}}
BASE = grid()[0].base
PROFILE = Path(__file__).with_name("calibrated.yaml")


READINGS = Readings(memory_s=6e-5, core_s=5e-5)


def drawn(count: int) -> list[Quantities]:
    return [quantities(load_scenario(BASE, list(point.overrides))) for point in points(count)]


def planted(name: str) -> float:
    """Return a made-up constant of a plausible size."""
    large = {"per_batch": 5e-4, "per_server": 2e-4, "per_request": 2e-4, "per_layer": 1e-4, "per_message": 4e-5, "per_flop": 2e-11}
    for ending, value in large.items():
        if name.endswith(ending):
            return value
    return 2e-9 if "value" in name or "byte" in name or "parameter" in name else 3e-8


@pytest.mark.parametrize("stage", ["dedup", "server", "train", "io"])
def test_planted_constants_are_found_again(stage: str) -> None:
    generator = np.random.default_rng(2)
    exact, noisy = [], []
    for q in drawn(60):
        terms = stage_terms(q)[stage]
        seconds = sum(planted(name) * count for name, count in terms.items())
        exact.append(Equation(terms, seconds))
        noisy.append(Equation(terms, seconds * float(np.exp(0.1 * generator.standard_normal()))))
    found = fit(exact)
    assert found.relative_error < 1e-6
    for name, value in found.constants.items():
        assert value == pytest.approx(planted(name), rel=1e-3), name
    found = fit(noisy)
    assert 0.05 < found.relative_error < 0.15
    errors = [
        sum(found.constants[name] * count for name, count in terms.items() if name in found.constants) / s - 1 for terms, s, _ in exact
    ]
    assert float(np.mean(np.abs(errors))) < 0.06


def test_what_a_disturbance_has_spoilt_is_left_out_and_counted() -> None:
    equations_of = [
        (terms, sum(planted(name) * count for name, count in terms.items())) for terms in (stage_terms(q)["dedup"] for q in drawn(40))
    ]
    spoilt = [Equation(terms, seconds * (6.0 if place == 7 else 1.0)) for place, (terms, seconds) in enumerate(equations_of)]
    found = fit(spoilt)
    assert found.left_out >= 1
    assert found.constants["host.worker.dedup_s_per_id"] == pytest.approx(3e-8, rel=0.01)


def test_a_factor_is_about_one_unless_the_points_say_otherwise() -> None:
    small, large = Equation({"a": 1e-3, "b": 1.0}, 3.0), Equation({"a": 2e-3, "b": 2.0}, 6.1)
    found = fit([small, large], about_one=["a", "b"]).constants
    assert found["a"] == pytest.approx(1.0, abs=0.05)  # too small a part to be seen
    assert 2.0 < found["b"] < 3.0
    many = fit([small, large] * 50, about_one=["a", "b"]).constants
    assert many["b"] == pytest.approx(3.02, abs=0.05)


def test_what_is_known_of_a_time_is_no_constants() -> None:
    found = fit([Equation({"a": float(count)}, 2.0 * count + 5.0, 5.0) for count in range(1, 9)])
    assert found.constants == pytest.approx({"a": 2.0})
    assert found.relative_error < 1e-9


def test_a_stage_that_is_often_apart_from_the_others_says_little_of_a_pace() -> None:
    generator = np.random.default_rng(7)
    paces = np.exp(0.1 * generator.standard_normal(80))

    def seconds(noise: float) -> list[Equation]:
        return [Equation({"a": 1.0}, 1e-3 * pace * float(np.exp(noise * generator.standard_normal()))) for pace in paces]

    noise = {"a": 0.02, "b": 0.02, "c": 0.02, "restless": 0.4}  # their plain mean errs by a tenth
    _, told = fit_all({name: seconds(each) for name, each in noise.items()}, [(0.0,)] * 80)
    assert float(np.log(np.array(told.of_points) / paces).std()) < 0.03


def test_fewer_points_than_constants_are_refused() -> None:
    with pytest.raises(ValueError, match="do not determine"):
        fit([Equation(stage_terms(q)["un-pool"], 1.0) for q in drawn(2)])


SLEEPS = {"batch": 4.0, "server": 1.0, "exchange": 0.5}


def sleep_constants(stage: str) -> dict[str, float]:
    return {name: SLEEPS[name.rpartition("_per_")[2]] for name in sleep_terms(stage, drawn(1)[0])}


def usual_sleeps(q: Quantities) -> dict[tuple[str, str], float]:
    """Return how often the own thread of each role's process sleeps where one batch after another passes."""
    return {(role, "main"): stage_seconds(sleep_constants(stage), sleep_terms(stage, q)) for stage, role in ROLE_OF_STAGE.items()}


def made_up(q: Quantities, paces: Mapping[str, float] | None = None) -> PointTimes:
    """Return what a rig would show of a machine with the planted constants, at a pace of each stage."""
    spent = {stage: sum(planted(name) * count for name, count in terms.items()) for stage, terms in stage_terms(q).items()}
    spent = {stage: seconds * (paces or {}).get(stage, 1.0) for stage, seconds in spent.items()}
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
    return PointTimes(quantities=q, thread_s=thread, sleeps=usual_sleeps(q), span_s=spans, step_s=step_s, readings=READINGS)


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


def of_crowds() -> list[Quantities]:
    return [quantities(load_scenario(BASE, list(point.overrides))) for point in crowds(24)]


FACTORS = {"fixed": 0.7, "step": 0.6, "idle": 0.9, "sized": 1.25}  # by the last word of a constant
KNOWN = {name: planted(name) for name in SUMMING}
REDUCE = {"host.reduce.after_backward_s_per_step": 1e-3, "host.reduce.s_per_hop": 2e-4, "host.reduce.s_per_byte": 1e-9}
REDUCE |= {"host.reduce.overlapped_s_per_step": 2e-3, TRAINING_TOGETHER: 0.15}


def conditions(footprint: float, *, sensitive: bool) -> dict[str, float]:
    """Return what a machine's conditions make of its work: a lot, or nothing."""
    found = {name: each_s for crowded in (False, True) for name, each_s in zip(usual_reading_names(crowded=crowded), READINGS, strict=True)}
    found |= dict(zip(READING_EXPONENTS, (0.8, 0.5), strict=True))
    found |= {"host.footprint": footprint, ARITHMETIC_EXPONENT: 0.2 if sensitive else 1.0}
    for stage in stage_terms(drawn(1)[0]):
        memory, size = condition_exponents(stage)
        of_stage = (0.9, 0.1, 0.2, 0.3, 0.4) if stage == "train" else (1.0, 0.4, 0.2, 0.1, 0.2)
        found |= {sleep_cost(stage): 0.0, crowd_idle(stage): 1.0}
        found |= dict(zip((memory, size, *crowd_exponents(stage)), of_stage if sensitive else (1.0, 0.0, 0.0, 0.0, 0.0), strict=True))
    for stage in ROLE_OF_STAGE:
        found |= sleep_constants(stage)
    return found


def read(point: PointTimes, *slower: float) -> PointTimes:
    """Return the point where the memory and the cores were so much slower than usual, as logarithms."""
    return replace(point, readings=Readings(*(each_s * float(np.exp(each)) for each_s, each in zip(READINGS, slower, strict=True))))


def all_planted(q: Quantities) -> dict[str, float]:
    return {name: planted(name) for terms in stage_terms(q).values() for name in terms}


def all_factors() -> dict[str, float]:
    names = [each for stage in stage_terms(drawn(1)[0]) for each in factors_of(stage)]
    return {name: FACTORS[name.rpartition("_")[2]] for name in names}


def crowded(
    q: Quantities, reduction: str = "", busy: float = 1.0, *, pace: float = 1.0, of_machine: Mapping[str, float] | None = None
) -> PointTimes:
    """Return what a machine of two cores would show, of whose work the part `busy` is done beside a busy core."""
    constants = all_planted(q) | (of_machine or conditions(0.6, sensitive=False)) | all_factors()
    paces, slower = stage_paces(constants, q, pace), slowdowns(constants, q, crowded=True)
    spent = {}
    for stage, alone_s in beside_idle_s(constants, q, crowded=True).items():
        spent[stage] = (1.0 + busy * (slower[stage] - 1.0)) * paces[stage] * alone_s
    if reduction:
        terms = {**reduction_terms(q, reduction), TRAINING_TOGETHER: spent["train"] / pace}
        spent["train"] += pace * stage_seconds(REDUCE, terms)
    spans = {stage: spent[stage] for stage in ("dedup", "pool", "un-pool")}
    threads = {"loader": "loader", "parameter_server": "server", "nn_worker": "rank rest"}
    thread_s = {(role, "main"): spent[stage] for role, stage in threads.items()}
    thread_s["embedding_worker", "main"] = spent["worker rest"] + sum(spans.values())
    thread_s |= {("nn_worker", "other"): spent["train"], ("loader", "io"): spent["io"]}
    step_s = sum(spent.values()) * (1.0 - 0.5 * busy)
    return PointTimes(
        quantities=q,
        thread_s=thread_s,
        sleeps=usual_sleeps(q),
        span_s=spans,
        step_s=step_s,
        readings=READINGS,
        crowded=True,
        reduction=reduction,
    )


def test_what_slows_a_machine_is_no_constant_of_a_stages() -> None:
    """Memory and footprint are planted, which arithmetic follows less than the rest, and a pace of each point that nothing explains."""
    generator = np.random.default_rng(5)
    shapes = drawn(120)
    of_machine = conditions(Usual.of([made_up(q) for q in shapes]).footprint, sensitive=True)
    measured = []
    for q in shapes:
        slower = 0.3 * generator.standard_normal(2)
        pace = float(np.exp(slower @ (0.8, 0.5) + 0.02 * generator.standard_normal()))
        measured.append(read(made_up(q, stage_paces(all_planted(q) | of_machine, q, pace)), *slower.tolist()))
    usual = Usual.of(measured)
    sizes, slower_at = [[usual.larger(point)] for point in measured], [usual.slower(point) for point in measured]
    found, told = fit_all(equations(measured), sizes, machine=slower_at, arithmetic=ARITHMETIC)
    assert told.machine == pytest.approx([0.8, 0.5], abs=0.06)
    assert told.sensitivity["train"] == pytest.approx(0.9 * told.sensitivity["server"], abs=0.1)
    assert told.arithmetic == pytest.approx(0.2 * told.sensitivity["server"], abs=0.1)
    assert told.sizes["train"][0] < told.sizes["server"][0] - 0.1
    assert np.std(np.log(told.of_points) - np.array(slower_at) @ told.machine) < 0.05
    constants = {name: value for each in found.values() for name, value in each.constants.items()}
    for point, pace in zip(measured, told.of_points, strict=True):
        for stage, terms in stage_terms(point.quantities).items():
            exponent = told.sensitivity[stage]
            if ARITHMETIC in terms:
                exponent += constants[ARITHMETIC] * terms[ARITHMETIC] / stage_seconds(constants, terms) * (told.arithmetic - exponent)
            slowed = pace**exponent * float(np.exp(told.sizes[stage][0] * usual.larger(point)))
            assert slowed * stage_seconds(constants, terms) == pytest.approx(point.stages()[stage], rel=0.2), stage


def test_what_crowding_changes_is_found_in_points_of_a_crowded_machine() -> None:
    shapes = [replace(q, meetings=0) for q in of_crowds()]
    paces = np.exp(0.1 * np.sin(np.arange(24))).tolist()
    measured = [crowded(q, busy=0.4 + 0.025 * number, pace=paces[number]) for number, q in enumerate(shapes)]
    assert [others_busy(point, 2.0) for point in measured] == pytest.approx([0.4 + 0.025 * number for number in range(24)])
    constants = all_planted(shapes[0]) | conditions(0.6, sensitive=False)
    found, told = fit_all(crowd_equations(measured, constants, paces, 2.0), [(0.0,)] * 24)
    assert told.of_points == pytest.approx([1.0] * 24, abs=1e-6)
    factors = {name: value for each in found.values() for name, value in each.constants.items()}
    assert factors == pytest.approx(all_factors(), rel=1e-3)


def test_what_is_done_beside_busy_cores_where_one_batch_after_another_passes_is_no_constant_of_a_stages() -> None:
    shapes = drawn(40)
    crowding = all_planted(shapes[0]) | conditions(0.6, sensitive=False) | all_factors()
    measured = []
    for number, q in enumerate(shapes):
        besides = dict.fromkeys(stage_terms(q), 0.2 + 0.015 * number)
        slower = {stage: 1.0 + besides[stage] * (factor - 1.0) for stage, factor in slowdowns(crowding, q, crowded=False).items()}
        measured.append(replace(made_up(q, slower), beside=besides))
    for stage, each in equations(measured, crowding, 2.0).items():
        found = fit(each)
        assert found.relative_error < 1e-6, stage
        assert found.constants == pytest.approx({name: planted(name) for name in found.constants}, rel=1e-3), stage


def test_what_it_costs_to_have_slept_is_found_where_threads_sleep_less_than_usual() -> None:
    shapes = of_crowds()
    measured = []
    for number, q in enumerate(shapes):
        point = crowded(q)
        sleeps = {thread: usually * (0.2 + 0.03 * number) for thread, usually in point.sleeps.items()}
        saved = {thread: 1e-4 * (usually - sleeps[thread]) for thread, usually in point.sleeps.items()}
        thread_s = {thread: seconds - saved.get(thread, 0.0) for thread, seconds in point.thread_s.items()}
        shorter = replace(point, sleeps=sleeps, thread_s=thread_s)
        measured.append(replace(shorter, step_s=point.step_s * shorter.total_s / point.total_s))  # as busy as before
    found = crowd_equations(measured, all_planted(shapes[0]) | conditions(0.6, sensitive=False), [1.0] * 24, 2.0)
    for stage in ROLE_OF_STAGE:
        assert fit(found[stage]).constants[sleep_cost(stage)] == pytest.approx(1e-4, rel=1e-3), stage


def test_how_often_threads_sleep_is_found_where_one_batch_after_another_passes() -> None:
    for stage in ROLE_OF_STAGE:
        assert fit(sleep_equations([made_up(q) for q in drawn(24)], stage)).constants == pytest.approx(sleep_constants(stage), abs=1e-6)


def test_the_all_reduce_is_what_a_training_thread_takes_more() -> None:
    shapes = of_crowds()
    kinds = ["after_backward" if number % 2 else "overlapped" for number in range(24)]
    measured = [crowded(q, kind) for q, kind in zip(shapes, kinds, strict=True)]
    constants = all_planted(shapes[0]) | conditions(0.6, sensitive=False) | all_factors()
    found = fit(reduction_equations(measured, constants, [1.0] * 24, 2.0))
    assert {name: found.constants.get(name) for name in REDUCE} == pytest.approx(REDUCE, rel=1e-3)


def test_a_whole_machine_is_found_again() -> None:
    """Alone and crowded points, each at a pace of its own, of a machine that memory and footprint slow."""
    generator = np.random.default_rng(7)
    shapes = of_crowds()
    alone = drawn(96)
    of_machine = conditions(Usual.of([made_up(q) for q in alone]).footprint, sensitive=True)
    slower = 0.3 * generator.standard_normal((120, 2))
    paces = np.exp(slower @ (0.8, 0.5) + 0.02 * generator.standard_normal(120)).tolist()
    measured = [
        read(
            made_up(q, stage_paces(all_planted(q) | of_machine, q, pace))
            if number % 5
            else crowded(q, busy=0.9, pace=pace, of_machine=of_machine),
            *slower[number].tolist(),
        )
        for number, (q, pace) in enumerate(
            zip([shapes[number // 5] if number % 5 == 0 else alone[number - number // 5 - 1] for number in range(120)], paces, strict=True)
        )
    ]
    reducing = [crowded(q, "overlapped", of_machine=of_machine) for q in drawn(8)]
    machine = fit_machine([*measured, *reducing], 2.0, KNOWN)
    assert [machine.constants[name] for name in READING_EXPONENTS] == pytest.approx([0.8, 0.5], abs=0.1)
    assert np.std(np.log(np.array(machine.paces[: len(paces)]) / paces)) < 0.06
    constants = {**machine.constants, **{name: value for each in machine.fitted.values() for name, value in each.constants.items()}}
    for point, pace in zip(measured, machine.paces, strict=False):
        q, expected_s = point.quantities, 0.0
        at, slowed = stage_paces(constants, q, pace), slowdowns(constants, q, crowded=point.crowded)
        for stage, alone_s in beside_idle_s(constants, q, crowded=point.crowded).items():
            expected_s += at[stage] * alone_s * (1.0 + 0.9 * (slowed[stage] - 1.0) if point.crowded else 1.0)
        assert expected_s == pytest.approx(point.total_s, rel=0.1)
