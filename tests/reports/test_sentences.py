"""The answer and the captions say what the numbers say, also where the numbers turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from persia.trace import Span
from reports.answer import answer, decisive_memory, memory_words
from reports.facts import Facts, read_facts
from reports.findings import batch_life, staleness_finding, step_finding, throughput_finding, timeline_finding, utilisation_finding
from simulator.result import Interval, Throughput
from tests.reports.sample_results import flat, sample_catalog, sample_memory, sample_result, sample_results, sample_scenario


def test_the_answer_in_sentences() -> None:
    said = answer(sample_result(), read_facts(sample_scenario(), sample_catalog())).text()
    assert said == (
        "64 A100s train 1.79 M samples/s (95 % interval 1.785 to 1.797 M). Embeddings are on average 163 updates stale (2.6 steps). "
        "Forward and backward take 57.8 ms of each 73.2 ms step (79 %). The model fits: the parameter servers need 279 of 372 TB (75 %). "
        "$2,918 an hour, $453 per billion samples."
    )


def test_hardware_without_a_catalogue_is_counted_in_ranks() -> None:
    assert read_facts(sample_scenario()).hardware(64) == "64 ranks"
    assert Facts().hardware(1) == "1 rank"


def test_facts_of_the_scenario() -> None:
    facts = read_facts(sample_scenario(), sample_catalog())
    assert facts.model() == "100 T embedding parameters"
    assert facts.machines("parameter_server") == "30 \u00d7 m2-ultramem-416"
    assert facts.machines("loader") == "8 on the NN workers"
    assert facts.machines("nobody") == ""


def test_inline_machine_types_come_before_the_catalogue() -> None:
    plain = sample_scenario().model_dump()
    plain["cluster"]["machine_types"] = {"a2-highgpu-8g": {"accelerator": "h100"}}
    scenario = sample_scenario()
    scenario.plain.update(plain)
    assert read_facts(scenario, sample_catalog()).hardware(64) == "64 H100s"


def test_memory_that_is_short_decides_over_memory_that_fits() -> None:
    memory = sample_memory()
    memory["nn_worker"] = replace(memory["nn_worker"], needed_gib=6_000, fits=False)
    result = replace(sample_result(), memory=memory)
    decisive = decisive_memory(result)
    assert decisive is not None
    assert decisive[0] == "nn_worker"
    assert memory_words(result) == "the model does not fit: the NN workers are 777 GB short"


def test_no_price_is_said() -> None:
    result = replace(sample_result(), cost=replace(sample_result().cost, usd_per_hour=None, usd_per_billion_samples=None))
    assert "No price is known for these machines." in answer(result, Facts()).text()


def test_sync_is_never_stale() -> None:
    assert answer(sample_result("sync"), Facts()).staleness == "embeddings are never stale"
    assert staleness_finding(sample_result("sync")).startswith("No embedding is stale")


def test_throughput_is_compared_with_the_slowest_and_the_fastest() -> None:
    assert throughput_finding(sample_results()) == "Hybrid is 2.5 times as fast as sync and 2.7 % slower than async."
    assert throughput_finding(sample_results()[:1]).startswith("Only hybrid was simulated")


@pytest.mark.parametrize(("low", "high", "equal"), [(1.79e6, 1.85e6, True), (1.80e6, 1.85e6, False)])
def test_overlapping_intervals_are_called_equal(low: float, high: float, equal: bool) -> None:
    other = replace(sample_result("async"), throughput=Throughput(samples_per_s=Interval(mean=(low + high) / 2, low=low, high=high)))
    assert ("as fast as async (their intervals overlap)" in throughput_finding([sample_result(), other])) is equal


def test_step_names_the_two_largest_parts() -> None:
    assert step_finding(sample_result()) == "Forward + backward takes 79 % of a step in hybrid; next comes exposed all-reduce with 8.1 %."


def test_a_batch_lives_longer_than_it_is_worked_on() -> None:
    span = Span(tier="loader", index=0, name="read", batch=0, start_s=1.0, end_s=1.1)
    life = [span, replace(span, name="dedup", start_s=1.05, end_s=1.2), replace(span, name="update", start_s=1.9, end_s=2.0)]
    result = replace(sample_result(), spans=life)
    assert list(batch_life(result)) == pytest.approx([1.0, 0.3])
    assert (
        timeline_finding(result) == "A batch lives 1.00 s from its reading to its update, as long as 14 steps; 70 % of that time it waits."
    )
    assert timeline_finding(replace(result, spans=())) == "No spans were recorded."


def test_utilisation_names_hardware_not_time() -> None:
    said = utilisation_finding(sample_result())
    assert said.startswith("Of all hardware, the NN workers' incoming network is busiest, at 88 %; the dearest tier, ")
    assert said.endswith("the parameter servers, peaks at 61 % (outgoing network).")


def test_one_rank_has_no_steps_to_divide_by() -> None:
    result = replace(sample_result(), ranks=1, staleness=replace(sample_result().staleness, version=flat(1)))
    assert answer(result, Facts()).staleness == "embeddings are on average 1 update stale"
    assert answer(result, Facts()).throughput.startswith("1 rank trains ")
