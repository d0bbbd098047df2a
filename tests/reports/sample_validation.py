"""A made-up validation: calm and noisy cases, a throughput miss, a staleness miss, one that could not be run."""

from __future__ import annotations

from persia.readings import Readings
from persia.trace import Span
from simulator.result import Interval, StepTime
from simulator.statistics import staleness_from_histogram
from simulator.validation.noise import Noise
from simulator.validation.predict import SHARED_KEYS
from simulator.validation.result import Ablation, CaseResult, Repeat, Validation, World

CALM = Noise(steal_fraction=0.0, foreign_fraction=0.01)
BUSY = Noise(steal_fraction=0.05, foreign_fraction=0.2)
MODES = ("sync", "naive-hybrid", "hybrid", "async")


def interval(mean: float, half: float = 0.02) -> Interval:
    return Interval(mean=mean, low=mean * (1 - half), high=mean * (1 + half))


def world(speed: float, staleness: dict[int, float], *, simulated: bool, step_s: float = 0.02) -> World:
    names = ("host work", "forward + backward") if simulated else ("train",)
    spans = []
    for step in range(6):
        start_s = 1.0 + step * step_s
        spans.append(Span(tier="loader", index=0, name="read", batch=2 * step, start_s=start_s, end_s=start_s + 0.001))
        spans.append(Span(tier="nn_worker", index=0, name="lookup", batch=2 * step, start_s=start_s + 0.001, end_s=start_s + 0.006))
        for number, name in enumerate(names):
            at_s = start_s + 0.006 + 0.004 * number
            spans.append(Span(tier="nn_worker", index=0, name=name, batch=2 * step, start_s=at_s, end_s=at_s + 0.004))
        spans.append(Span(tier="nn_worker", index=0, name="push", batch=2 * step, start_s=start_s + 0.014, end_s=start_s + 0.02))
    return World(
        samples_per_s=interval(speed),
        step_time_s=StepTime(p50=step_s, p95=1.2 * step_s, p99=1.5 * step_s),
        version=staleness_from_histogram(staleness),
        in_flight=staleness_from_histogram({1: 3.0, 2: 1.0}),
        stages_s={"nn_worker.lookup": 0.005, "nn_worker.train": 0.008, "nn_worker.push": 0.006},
        spans=spans,
        facts=dict.fromkeys(SHARED_KEYS),
    )


def case(
    name: str, mode: str, measured: float, simulated: float, *, stale: float = 0.0, noise: Noise = CALM, half: float = 0.05
) -> CaseResult:
    """One case; `stale` shifts the simulated staleness by whole versions."""
    histogram = {0: 1.0, 1: 2.0, 2: 1.0}
    readings = Readings(memory_s=2e-4, core_s=5e-5)
    run = Repeat(samples_per_s=interval(measured), steps=100, seconds=6.0, noise=noise, used=True, readings=readings)
    return CaseResult(
        name=name,
        mode=mode,
        settings={"schedule.mode": mode, "workload.batch_size": "512"},
        ranks=2,
        measured=world(measured, histogram, simulated=False),
        simulated=world(simulated, {value + int(stale): weight for value, weight in histogram.items()}, simulated=True),
        predicted=interval(simulated, half),
        repeats=[run],
    )


def sample_validation(*, good: bool = False) -> Validation:
    cases = [case(f"grid-{number:02d}", MODES[number % 4], 2000.0 * 1.4**number, 2000.0 * 1.4**number * 1.03) for number in range(1, 9)]
    if not good:
        cases += [
            case("grid-09", "hybrid", 5000.0, 6500.0, noise=BUSY),
            case("grid-10", "async", 900.0, 910.0, stale=2),
            CaseResult(name="grid-11", mode="sync", settings={}, failure="the real run failed: <nobody> & nothing"),
        ]
    return Validation(
        kind="grid",
        machine={"cpu": "A processor", "cores": 2, "ram_gib": 8.0, "packages": {"numpy": "2.0", "torch": None}},
        date="2026-01-02 03:04 UTC",
        profile="made-up",
        cases=cases,
        command="persia validate --grid --report",
        ablation=[Ablation(name="without host overhead", mape_pct=31.0, max_error_pct=77.0)],
    )
