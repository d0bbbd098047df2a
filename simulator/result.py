"""What a simulation returns: the typed form of the JSON that `persia simulate --json` prints.

Units are last in every name: `_s` seconds, `_gib` GiB, `_usd_per_hour` US dollars an hour; a fraction is 0..1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from persia.trace import Span

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its 95 % confidence interval, in the unit of the field that holds it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Samples a second over the measured window, all ranks together."""

    samples_per_s: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The 90 % interval of the true throughput, in samples/s, and what lies outside the profile's domain, in words."""

    interval: Interval
    outside: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Quantiles of the time between two steps, in seconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Staleness:
    """One staleness measure: its moments and `histogram`, value -> number of records."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    histogram: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StalenessReport:
    """Version, in-flight and row staleness, as README's words define them."""

    version: Staleness
    in_flight: Staleness
    row: Staleness


@dataclass(frozen=True, slots=True, kw_only=True)
class Bottleneck:
    """The resource that holds the cluster back; `next` is the one behind it."""

    tier: str
    resource: str
    sentence: str
    share: float
    next: Bottleneck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierMemory:
    """Memory of one process group of a tier: needed and available over the whole tier, in GiB."""

    needed_gib: float
    available_gib: float
    fits: bool
    parts_gib: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierCost:
    """What one tier's machines cost, in US dollars an hour."""

    machine_type: str
    machines: int
    usd_per_hour: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The bill: by the hour, by a billion samples, by tier; None where no price is known."""

    usd_per_hour: float | None
    usd_per_billion_samples: float | None
    pricing_model: str
    tiers: Mapping[str, TierCost] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPart:
    """One piece of a rank's step on its critical lane: mean seconds, and its share of the step."""

    part: str
    seconds: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLoad:
    """One loaded link of the network map: capacity in Gbit/s and the busier direction's utilisation 0..1."""

    source: str
    target: str
    gbps: float
    utilisation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumption:
    """An input that is not read from a published source, or that is: evidence says which.

    evidence: S read in the source, D derived from it, M from memory and unverified, I inferred, F fitted.
    """

    path: str
    value: str
    why: str
    source: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Everything one simulation of one scenario says."""

    scenario: str
    scenario_digest: str
    digest: str
    seed: int
    mode: str
    fidelity: str
    engine: str
    ranks: int
    batch_size: int
    steps: int
    warmup_steps: int
    throughput: Throughput
    step_time_s: StepTime
    staleness: StalenessReport
    utilisation: Mapping[str, Mapping[str, float]]
    bottleneck: Bottleneck
    memory: Mapping[str, TierMemory]
    cost: Cost
    step_parts: Sequence[StepPart]
    latency_s: Mapping[str, float]
    unique_ids_per_batch: float
    batch_unique_indices_rate: float
    hit_rate: float
    links: Sequence[LinkLoad]
    assumptions: Sequence[Assumption]
    events: int
    simulated_s: float
    wall_s: float
    spans: Sequence[Span] = ()
    quality: None = None
    emulated: str | None = None
    prediction: Prediction | None = None  # where the profile was calibrated
    beside: Mapping[str, float] = field(default_factory=dict)  # stage -> which part of its work was done beside busy cores
    sleeps: Mapping[str, float] = field(default_factory=dict)  # role -> how often a batch's own threads of its processes slept

    def with_throughput(self, interval: Interval, *, events: int, wall_s: float) -> SimulationResult:
        """Return this result with the throughput, events and wall time of several replications."""
        bill = self.cost.usd_per_hour
        per_billion = None if bill is None else bill / (interval.mean * 3600.0) * 1e9
        return replace(
            self,
            throughput=Throughput(samples_per_s=interval),
            cost=replace(self.cost, usd_per_billion_samples=per_billion),
            events=events,
            wall_s=wall_s,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object of `persia simulate --json`; spans are left to the trace file, `beside` and `sleeps` to calibration."""
        payload: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        del payload["spans"], payload["beside"], payload["sleeps"]
        return payload
