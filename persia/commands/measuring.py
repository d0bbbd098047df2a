"""The real side of a validation's case: one run in a folder of its own, and what it says of the window after its warm-up."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from persia.commands.settling import SETTLING_S, settling_steps
from persia.commands.simulate import resolved_yaml
from persia.commands.training import log_digest, result_json
from persia.readings import Readings
from persia.runtime import coordinator
from persia.runtime.coordinator import Options, Outcome, Progress
from persia.runtime.interrupts import Interrupts
from persia.runtime.probe import Probe
from persia.runtime.records import TRACES
from persia.scenario import Scenario
from persia.trace import Record, Span, StalenessRecord, read_trace
from simulator.result import Interval
from simulator.run import measured, step_time
from simulator.statistics import staleness_from_histogram
from simulator.validation.combine import combine
from simulator.validation.predict import shared_facts, stages
from simulator.validation.result import World

FEWEST_STEPS = 30
HELD_OUT_SAMPLES = 256
TIMELINE_STEPS = 6
_OVERRUN = 4.0  # times the planned training time after which a run is given up and planned anew


class TooSlow(Exception):
    """A run would take far longer than planned; `samples_per_s` is how fast it is."""

    def __init__(self, samples_per_s: float) -> None:
        super().__init__(f"it trains {samples_per_s:,.0f} samples/s only")
        self.samples_per_s = samples_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RealRun:
    """What one run says: `gaps_s` between its steps in the measured window, histograms of staleness, mean seconds by stage.

    `timeline` are the spans of a few successive batches; `readings` are what the probe told of the machine in the window, `at_s` is
    its middle in seconds since the epoch.
    """

    samples_per_s: Interval
    gaps_s: Sequence[float]
    version: Counter[int]
    in_flight: Counter[int]
    stages_s: Mapping[str, float]
    timeline: Sequence[Span]
    readings: Readings
    at_s: float
    facts: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Return the length of the measured window."""
        return sum(self.gaps_s)


def planned(scenario: Scenario, samples_per_s: float, seconds: float) -> Scenario:
    """Return the scenario with as many samples as train in so many seconds, few held out, and no evaluation on the way."""
    samples_per_step = scenario.workload.batch_size * scenario.ranks
    settling = max(settling_steps(scenario), math.ceil(samples_per_s * SETTLING_S / samples_per_step))
    steps = settling + last_steps(scenario) + max(FEWEST_STEPS, math.ceil(samples_per_s * seconds / samples_per_step))
    data = scenario.workload.data
    workload = scenario.workload.model_copy(
        update={
            "samples": steps * samples_per_step,
            "evaluate_every_steps": 0,
            "data": data.model_copy(update={"held_out_samples": min(HELD_OUT_SAMPLES, data.held_out_samples)}),
        }
    )
    return scenario.model_copy(update={"workload": workload})


def last_steps(scenario: Scenario) -> int:
    """Return the steps at the end in which nothing is looked up any more: those are left out, too."""
    return scenario.staleness_permits


def run_real(
    scenario: Scenario, folder: Path, *, options: Options, show: Callable[[float, float], None], interrupts: Interrupts, planned_s: float
) -> RealRun:
    """Train a scenario in an empty folder; `show` hears the fraction done and samples/s.

    Raises:
        TooSlow: it takes far longer than `planned_s`.
        RunFailed: it cannot be run.
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """
    (folder / "scenario.yaml").write_text(resolved_yaml(scenario), encoding="utf-8", newline="\n")

    def progress(now: Progress) -> None:
        show(now.fraction, now.samples_per_s)
        if now.phase == "training" and now.samples_per_s and scenario.workload.samples / now.samples_per_s > _OVERRUN * max(planned_s, 1.0):
            fewest = (FEWEST_STEPS + settling_steps(scenario)) * scenario.workload.batch_size * scenario.ranks
            if scenario.workload.samples > 2 * fewest and now.samples >= fewest / 2:
                raise TooSlow(now.samples_per_s)

    with Probe() as probe:
        outcome = coordinator.run(scenario, folder, options=options, progress=progress, interrupts=interrupts)
    return _measure(scenario, outcome, probe, sorted((folder / "attempts").iterdir())[-1])


def _measure(scenario: Scenario, outcome: Outcome, probe: Probe, attempt: Path) -> RealRun:
    """Cut off what comes before the run has settled, and the end.

    There nothing is looked up any more, and the last batches have the machine to themselves.
    """
    ranks, steps = outcome.plan.ranks, len(outcome.trained_s) // outcome.plan.ranks
    ends_s = outcome.trained_s[ranks - 1 :: ranks]
    last = steps - min(last_steps(scenario), steps // 5)
    settled = max(settling_steps(scenario), bisect_right(ends_s, ends_s[0] + SETTLING_S))
    ends_s = ends_s[min(settled, steps // 2) : last]
    warmup, interval = measured(ends_s, float(ranks * scenario.workload.batch_size))
    ends_s = ends_s[warmup - 1 :]
    version: Counter[int] = Counter()
    spans = []
    lookups: list[Span] = []
    pushes: list[Span] = []
    for record in _records(attempt):
        if isinstance(record, StalenessRecord):
            if ends_s[0] < record.applied_s <= ends_s[-1]:
                version[record.version] += 1
            continue
        if record.tier == "nn_worker" and record.name in ("lookup", "push"):
            (lookups if record.name == "lookup" else pushes).append(record)
        if ends_s[0] <= record.start_s and record.end_s <= ends_s[-1]:
            spans.append(record)
    result = result_json(scenario, outcome, digest=log_digest(attempt))
    return RealRun(
        samples_per_s=interval,
        gaps_s=[end_s - start_s for start_s, end_s in pairwise(ends_s)],
        version=version,
        in_flight=in_flight_at_lookups(lookups, pushes, ends_s[0], ends_s[-1]),
        stages_s=stages(spans),
        timeline=_timeline(spans, ranks),
        readings=probe.mean(outcome.began_at_s + ends_s[0], outcome.began_at_s + ends_s[-1]),
        at_s=outcome.began_at_s + 0.5 * (ends_s[0] + ends_s[-1]),
        facts=shared_facts(result),
    )


def in_flight_at_lookups(lookups: Sequence[Span], pushes: Sequence[Span], start_s: float, end_s: float) -> Counter[int]:
    """Return the histogram of a rank's batches under way, itself included, at each lookup that begins between the two times."""
    found: Counter[int] = Counter()
    for rank in {span.index for span in lookups}:
        begun_s = sorted(span.start_s for span in lookups if span.index == rank)
        pushed_s = sorted(span.end_s for span in pushes if span.index == rank)
        for number, at_s in enumerate(begun_s, start=1):
            if start_s <= at_s <= end_s:
                found[number - bisect_right(pushed_s, at_s)] += 1
    return found


def _records(attempt: Path) -> Iterator[Record]:
    for path in sorted((attempt / TRACES).glob("*.jsonl")):
        yield from read_trace(path)


def measured_world(runs: Sequence[RealRun]) -> World:
    """Return the runs of one case, at least one, as one world."""
    gaps_s = [gap for run in runs for gap in run.gaps_s]
    version = sum((run.version for run in runs), Counter())
    in_flight = sum((run.in_flight for run in runs), Counter())
    return World(
        samples_per_s=combine([(run.samples_per_s, len(run.gaps_s)) for run in runs]),
        step_time_s=step_time(list(accumulate(gaps_s, initial=0.0))),
        version=staleness_from_histogram({value: float(count) for value, count in version.items()} or {0: 1.0}),
        in_flight=staleness_from_histogram({value: float(count) for value, count in in_flight.items()} or {0: 1.0}),
        stages_s=mean_stages([run.stages_s for run in runs]),
        spans=runs[0].timeline,
        facts=runs[-1].facts,
    )


def mean_stages(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over runs of every stage that all of them have."""
    return {stage: sum(run[stage] for run in runs) / len(runs) for stage in runs[0] if all(stage in run for run in runs)}


def _timeline(spans: Sequence[Span], ranks: int) -> list[Span]:
    """Return the spans of a few successive batches of rank 0 in the middle of the window."""
    steps = sorted({span.batch // ranks for span in spans if span.batch % ranks == 0})
    middle = max(0, len(steps) // 2 - TIMELINE_STEPS // 2)
    wanted = {step * ranks for step in steps[middle : middle + TIMELINE_STEPS]}
    return [span for span in spans if span.batch in wanted]
