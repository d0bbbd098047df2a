"""What a validation says: each case in both worlds, how far they are apart, and whether that is close enough.

Units are last in every name; errors are signed, simulated over measured, in per cent of the measured value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from persia.readings import Readings, mean_readings
from persia.trace import Span
from simulator.result import Interval, Staleness, StepTime
from simulator.validation.metrics import coverage, kendall_tau, kolmogorov_smirnov, regret_pct, signed_error_pct, wasserstein_1
from simulator.validation.noise import Noise

MEAN_ERROR_MOST_PCT = 5.0
ERROR_MOST_PCT = 12.0
STALENESS_MOST_VERSIONS = 0.5
STALENESS_MOST_FRACTION = 0.1
TAU_LEAST = 0.9
QUANTILES = ("p50", "p95", "p99")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One case in one world, measured or simulated.

    `stages_s` is, by `tier.stage`, the mean time of a batch from the stage's first start to its last end.  `spans` are those of
    a few successive batches.  `facts` are the other keys that a real and a simulated run's JSON share.
    """

    samples_per_s: Interval
    step_time_s: StepTime
    version: Staleness
    in_flight: Staleness
    stages_s: Mapping[str, float]
    spans: Sequence[Span] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """One real run of a case: its throughput, steps and seconds after the warm-up; what disturbed it; whether it counts.

    `readings` are what the probe told of the machine meanwhile, `at_s` is its middle in seconds since the epoch; None where not known.
    """

    samples_per_s: Interval
    steps: int
    seconds: float
    noise: Noise
    used: bool
    readings: Readings | None = None
    at_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A point of the calibration, measured between the cases: its settings, when, from batch to batch, and the probe's readings.

    `crowded`: several batches are under way at once; `at_s` is in seconds since the epoch.
    """

    settings: Sequence[str]
    crowded: bool
    at_s: float
    step_s: float
    readings: Readings


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """One case; where it could not be run, `failure` says why and a world is missing.

    `predicted` is the simulation's 90 % interval of the throughput, its inputs' uncertainty included; `pace` is how many times
    longer work took than at the calibration, as the probe and references have told.
    """

    name: str
    mode: str
    settings: Mapping[str, str]
    ranks: int = 1
    measured: World | None = None
    simulated: World | None = None
    predicted: Interval | None = None
    repeats: Sequence[Repeat] = ()
    failure: str = ""
    pace: float | None = None

    @property
    def worlds(self) -> tuple[World, World] | None:
        """Return both worlds, measured first; None where one is missing."""
        return None if self.measured is None or self.simulated is None else (self.measured, self.simulated)

    @property
    def readings(self) -> Readings | None:
        """Return what the probe told of the machine in the runs that count; None where unknown."""
        known = [(repeat.readings, repeat.seconds) for repeat in self.repeats if repeat.used and repeat.readings is not None]
        return mean_readings(known) if known else None

    @property
    def error_pct(self) -> float | None:
        """Return the error of the throughput."""
        if self.measured is None or self.simulated is None:
            return None
        return signed_error_pct(self.simulated.samples_per_s.mean, self.measured.samples_per_s.mean)

    @property
    def step_time_error_pct(self) -> Mapping[str, float]:
        """Return the errors of the step time's quantiles; none where a world is missing."""
        if self.measured is None or self.simulated is None:
            return {}
        one, other = self.simulated.step_time_s, self.measured.step_time_s
        return {name: signed_error_pct(getattr(one, name), getattr(other, name)) for name in QUANTILES}

    @property
    def staleness_w1(self) -> float | None:
        """Return the 1-Wasserstein distance of version staleness, in versions."""
        return None if (both := self.worlds) is None else wasserstein_1(both[0].version.histogram, both[1].version.histogram)

    @property
    def staleness_ks(self) -> float | None:
        """Return the Kolmogorov-Smirnov distance of version staleness, 0..1."""
        return None if (both := self.worlds) is None else kolmogorov_smirnov(both[0].version.histogram, both[1].version.histogram)

    @property
    def staleness_most(self) -> float | None:
        """Return the largest distance that is close enough, in versions."""
        return None if self.measured is None else max(STALENESS_MOST_VERSIONS, STALENESS_MOST_FRACTION * self.measured.version.mean)

    @property
    def covered(self) -> bool | None:
        """Return whether the predicted interval holds the measured mean."""
        if self.measured is None or self.predicted is None:
            return None
        return self.predicted.low <= self.measured.samples_per_s.mean <= self.predicted.high

    @property
    def disturbed(self) -> bool:
        """Return whether every repeat of the case was disturbed, so that disturbed ones had to count."""
        return any(repeat.used and repeat.noise.disturbance for repeat in self.repeats)

    @property
    def misses(self) -> list[str]:
        """Return what is not close enough, in words; empty where all is."""
        error, distance, most = self.error_pct, self.staleness_w1, self.staleness_most
        if self.failure or error is None or distance is None or most is None:
            return [self.failure or "not run"]
        found = []
        if abs(error) > ERROR_MOST_PCT:
            found.append(f"throughput {error:+.1f} %, at most {ERROR_MOST_PCT:.0f} % is allowed")
        if distance > most:
            found.append(f"staleness off by {distance:.2f} versions, at most {most:.2f} is allowed")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """A piece of physics left out, and the errors without it."""

    name: str
    mape_pct: float
    max_error_pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """All cases in a few numbers; None where no case could be run.  `regret_pct`: the loss by choosing the fastest by simulation."""

    mape_pct: float | None
    median_error_pct: float | None
    max_error_pct: float | None
    kendall_tau: float | None
    regret_pct: float | None
    coverage_90: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """All cases of one validation, with what they were run on and predicted from.

    `kind` says which cases: `grid`, `random` or `scenarios`; `seed` is the draw's; `references` were measured between them.
    """

    kind: str
    machine: Mapping[str, Any]
    date: str
    profile: str
    cases: Sequence[CaseResult]
    seed: int | None = None
    command: str = ""
    ablation: Sequence[Ablation] = ()
    references: Sequence[Reference] = ()

    @property
    def summary(self) -> Summary:
        """Return the errors over the cases that ran."""
        done = [(case, both) for case in self.cases if (both := case.worlds) is not None]
        if not done:
            return Summary(mape_pct=None, median_error_pct=None, max_error_pct=None, kendall_tau=None, regret_pct=None, coverage_90=None)
        measured = [both[0].samples_per_s.mean for _, both in done]
        simulated = [both[1].samples_per_s.mean for _, both in done]
        errors = [abs(signed_error_pct(one, other)) for one, other in zip(simulated, measured, strict=True)]
        intervals = [case.predicted or both[1].samples_per_s for case, both in done]
        return Summary(
            mape_pct=fmean(errors),
            median_error_pct=median(errors),
            max_error_pct=max(errors),
            kendall_tau=kendall_tau(simulated, measured),
            regret_pct=regret_pct(simulated, measured),
            coverage_90=coverage([(interval.low, interval.high) for interval in intervals], measured),
        )

    @property
    def shown(self) -> list[CaseResult]:
        """Return the cases whose timelines are worth a look: the one predicted best and the one predicted worst."""
        ran = sorted((case for case in self.cases if case.error_pct is not None), key=lambda case: abs(case.error_pct or 0.0))
        return ran if len(ran) <= 1 else [ran[0], ran[-1]]

    @property
    def misses(self) -> list[str]:
        """Return everything that is outside its bound, in words."""
        found = [f"{case.name}: {miss}" for case in self.cases for miss in case.misses]
        summary = self.summary
        if summary.mape_pct is None or summary.kendall_tau is None:
            return found or ["no case was run"]
        if summary.mape_pct > MEAN_ERROR_MOST_PCT:
            found.append(f"mean absolute error {summary.mape_pct:.1f} %, at most {MEAN_ERROR_MOST_PCT:.0f} % is allowed")
        if summary.kendall_tau < TAU_LEAST:
            found.append(f"Kendall's tau {summary.kendall_tau:.2f}, at least {TAU_LEAST} is asked for")
        return found

    @property
    def passed(self) -> bool:
        """Return whether everything is within its bound."""
        return not self.misses
