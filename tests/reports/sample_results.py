"""Results of the 64-A100 cluster in four modes, written by hand, and the scenario's plain data that belongs to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from persia.trace import Span
from simulator.result import (
    Assumption,
    Bottleneck,
    Cost,
    Interval,
    LinkLoad,
    SimulationResult,
    Staleness,
    StalenessReport,
    StepPart,
    StepTime,
    Throughput,
    TierCost,
    TierMemory,
)

RANKS, BATCH = 64, 2048
STEP_S = {"sync": 0.1796, "naive-hybrid": 0.0904, "hybrid": 0.0732, "async": 0.0712}
PARTS_S = {
    "sync": {
        "lookup": 0.0512,
        "host work": 0.0044,
        "forward + backward": 0.0578,
        "exposed all-reduce": 0.0174,
        "optimizer": 0.001,
        "push": 0.0418,
        "barrier": 0.006,
    },
    "naive-hybrid": {
        "waiting for embeddings": 0.0073,
        "host work": 0.0044,
        "forward + backward": 0.0578,
        "waiting for the slowest rank": 0.002,
        "exposed all-reduce": 0.0179,
        "optimizer": 0.001,
    },
    "hybrid": {
        "waiting for embeddings": 0.0021,
        "host work": 0.0044,
        "forward + backward": 0.0578,
        "waiting for the slowest rank": 0.002,
        "exposed all-reduce": 0.0059,
        "optimizer": 0.001,
    },
    "async": {"waiting for embeddings": 0.0080, "host work": 0.0044, "forward + backward": 0.0578, "optimizer": 0.001},
}
ASSUMPTIONS = [
    ("workload.batch_size", "2,048 samples a rank", "not published; fits an exposed all-reduce", "arXiv 2111.05897, figure 9", "I"),
    ("catalog.m2-ultramem-416.nic_gbps", "32 Gbps", "the default of its generation", "https://cloud.google.com/network-bandwidth", "M"),
    ("catalog.a2-highgpu-8g.nic_gbps", "100 Gbps", "read in Google's GPU bandwidth table", "cloud.google.com, GPU network bandwidth", "S"),
    ("model.features.rows", "60,096,153,846 rows a feature", "100e12 parameters over 26 features of dim 64", "100e12 / (26 * 64)", "D"),
    ("profile.server.lookup_s_per_row", "4.1 µs", "fitted to two rows of the published table", "criteo-syn, 64 A100, hybrid", "F"),
    ("model.bytes_per_parameter", "2 bytes", "in fp32 the tables need 400 TB, more than the servers have <RAM & all>", "memory fit", "I"),
]  # fmt: skip


@dataclass(frozen=True)
class PlainScenario:
    """A scenario whose dump is given."""

    plain: dict[str, Any]

    def model_dump(self) -> dict[str, Any]:
        return self.plain


@dataclass(frozen=True)
class PlainMachine:
    accelerator: str | None


@dataclass(frozen=True)
class PlainCatalog:
    machines: dict[str, PlainMachine]


def sample_scenario() -> PlainScenario:
    tiers = {
        "loader": {"machine_type": None, "count": 8, "hosted_on": "nn_worker"},
        "embedding_worker": {"machine_type": "c2-standard-30", "count": 100, "hosted_on": None},
        "parameter_server": {"machine_type": "m2-ultramem-416", "count": 30, "hosted_on": None},
        "nn_worker": {"machine_type": "a2-highgpu-8g", "count": 8, "hosted_on": None},
    }
    return PlainScenario(
        {
            "name": "persia-100t",
            "description": "The published 138-machine cluster on Google Cloud, training 100 trillion parameters.",
            "model": {"features": [{"count": 26, "rows": 60_096_153_846, "dim": 64}]},
            "cluster": {"machine_types": {}, "tiers": tiers, "network": {"zone": "us-central1-a"}},
            "schedule": {"mode": "hybrid", "staleness_permits": 10},
            "pricing": {"model": "on-demand"},
        }
    )


def sample_catalog() -> PlainCatalog:
    kinds = {"a2-highgpu-8g": "a100", "c2-standard-30": None, "m2-ultramem-416": None}
    return PlainCatalog({name: PlainMachine(accelerator) for name, accelerator in kinds.items()})


def bell(mean: float, spread: float) -> Staleness:
    """A staleness whose histogram is a rounded normal curve."""
    values = range(max(0, int(mean - 4 * spread)), int(mean + 4 * spread) + 2)
    histogram = {value: float(round(1e5 * math.exp(-(((value - mean) / spread) ** 2) / 2))) for value in values}
    kept = {value: weight for value, weight in histogram.items() if weight}
    return Staleness(
        mean=mean, p50=round(mean), p90=round(mean + 1.28 * spread), p99=round(mean + 2.33 * spread), max=max(kept), histogram=kept
    )


def flat(value: int) -> Staleness:
    return Staleness(mean=value, p50=value, p90=value, p99=value, max=value, histogram={value: 64_000.0})


def row_staleness() -> Staleness:
    histogram = {0: 91_000.0, 1: 5_000.0, 2: 1_600.0, 3: 700.0, 5: 600.0, 9: 400.0, 20: 300.0, 60: 250.0, 140: 100.0, 300: 50.0}
    mean = sum(value * weight for value, weight in histogram.items()) / sum(histogram.values())
    return Staleness(mean=mean, p50=0, p90=0, p99=20, max=300, histogram=histogram)


def sample_spans(ranks: int = RANKS, batches: int = 6) -> list[Span]:
    """Six batches of rank 0 in a pipeline, and two of rank 1 that a timeline must leave out."""
    spans = []
    for step in range(40, 40 + batches):
        batch, start = step * ranks, 0.0732 * (step - 40)
        stages = [
            ("loader", 0, "read", 0.006), ("embedding_worker", step % 7, "dedup", 0.021), ("parameter_server", 0, "lookup", 0.038),
            ("embedding_worker", step % 7, "pool", 0.016), ("nn_worker", 0, "host work", 0.0044),
            ("nn_worker", 0, "forward + backward", 0.0578),
            ("nn_worker", 0, "all-reduce", 0.0059), ("nn_worker", 0, "optimizer", 0.001), ("embedding_worker", step % 7, "un-pool", 0.024),
            ("parameter_server", 0, "update", 0.047),
        ]  # fmt: skip
        for tier, index, name, length in stages:
            spans.append(Span(tier=tier, index=index, name=name, batch=batch, start_s=5 + start, end_s=5 + start + length))
            start += length + (0.031 if name == "pool" else 0.0004)
        lookup_s, push_s = 5 + 0.0732 * (step - 40) + 0.006, 5 + start - 0.072
        spans.append(Span(tier="nn_worker", index=0, name="lookup", batch=batch, start_s=lookup_s, end_s=lookup_s + 0.0776))
        spans.append(Span(tier="nn_worker", index=0, name="push", batch=batch, start_s=push_s, end_s=5 + start))
    other = ranks * 40 + 1
    return [*spans, *(Span(tier="nn_worker", index=0, name="lookup", batch=other + ranks * k, start_s=5.0, end_s=5.1) for k in range(2))]


def sample_memory() -> dict[str, TierMemory]:
    return {
        "parameter_server": TierMemory(
            needed_gib=259_800,
            available_gib=346_009,
            fits=True,
            parts_gib={"rows": 186_265, "optimizer_state": 46_566, "row_index": 22_500, "process_overhead": 4_469},
        ),
        "embedding_worker": TierMemory(
            needed_gib=2_310, available_gib=11_110, fits=True, parts_gib={"buffered_batches": 2_010, "process_overhead": 300}
        ),
        "nn_worker": TierMemory(needed_gib=512, available_gib=5_276, fits=True, parts_gib={"input_queue": 212, "process_overhead": 300}),
        "nn_worker.hbm": TierMemory(
            needed_gib=190, available_gib=2_560, fits=True, parts_gib={"dense_model": 13, "activations": 41, "forward_buffers": 136}
        ),
    }


def sample_cost(samples_per_s: float) -> Cost:
    source = "list price, us-central1, 2026-07-16"
    tiers = {
        "nn_worker": TierCost(machine_type="a2-highgpu-8g", machines=8, usd_per_hour=235.10, source=source),
        "embedding_worker": TierCost(machine_type="c2-standard-30", machines=100, usd_per_hour=156.61, source=source),
        "parameter_server": TierCost(machine_type="m2-ultramem-416", machines=30, usd_per_hour=2526.72, source=source),
    }
    total = sum(tier.usd_per_hour for tier in tiers.values())
    return Cost(usd_per_hour=total, usd_per_billion_samples=total / 3600 / samples_per_s * 1e9, pricing_model="on-demand", tiers=tiers)


def sample_staleness(mode: str) -> StalenessReport:
    if mode == "sync":
        return StalenessReport(version=flat(0), in_flight=flat(63), row=flat(0))
    mean = {"naive-hybrid": 131.0, "hybrid": 163.4, "async": 171.9}[mode]
    return StalenessReport(version=bell(mean, 14.0), in_flight=bell(3.1 * mean, 9.0), row=row_staleness())


def sample_links() -> list[LinkLoad]:
    zone = "us-central1-a"
    return [
        LinkLoad(source="nn_worker", target=zone, gbps=100, utilisation=0.88),
        LinkLoad(source="embedding_worker", target=zone, gbps=32, utilisation=0.34),
        LinkLoad(source="parameter_server", target=zone, gbps=32, utilisation=0.61),
        LinkLoad(source="loader", target=zone, gbps=100, utilisation=0.02),
    ]


def sample_result(mode: str = "hybrid") -> SimulationResult:
    step_s = STEP_S[mode]
    samples_per_s = RANKS * BATCH / step_s
    behind = Bottleneck(
        tier="nn_worker",
        resource="all-reduce",
        sentence="The dense all-reduce over the NN workers' network cards is exposed for 5.9 ms of each 73.2 ms step (8%).",
        share=0.081,
    )
    return SimulationResult(
        scenario="persia-100t",
        scenario_digest="5f" * 32,
        digest={"sync": "aa", "naive-hybrid": "bb", "hybrid": "cc", "async": "dd"}[mode] * 32,
        seed=1,
        mode=mode,
        fidelity="phase",
        engine="simpy",
        ranks=RANKS,
        batch_size=BATCH,
        steps=900,
        warmup_steps=60,
        throughput=Throughput(samples_per_s=Interval(mean=samples_per_s, low=0.9966 * samples_per_s, high=1.0034 * samples_per_s)),
        step_time_s=StepTime(p50=step_s, p95=1.06 * step_s, p99=1.11 * step_s),
        staleness=sample_staleness(mode),
        utilisation={
            "loader": {"cpu": 0.11},
            "embedding_worker": {"cpu": 0.58, "nic_rx": 0.34, "nic_tx": 0.31},
            "parameter_server": {"cpu": 0.09, "nic_rx": 0.47, "nic_tx": 0.61, "dram": 0.02},
            "nn_worker": {"training_lane": 0.97, "accelerator": 0.80, "nic_rx": 0.88, "nic_tx": 0.71, "host_link": 0.07},
        },
        bottleneck=Bottleneck(
            tier="nn_worker",
            resource="accelerator",
            sentence="forward and backward take 57.8 ms of each 73.2 ms step (79%)",
            share=0.79,
            next=behind,
        ),
        memory=sample_memory(),
        cost=sample_cost(samples_per_s),
        step_parts=[StepPart(part=part, seconds=value, share=value / step_s) for part, value in PARTS_S[mode].items()],
        latency_s={"lookup": 0.0911, "push": 0.0822, "all_reduce": 0.0103},
        unique_ids_per_batch=41_213.0,
        batch_unique_indices_rate=0.774,
        hit_rate=0.998,
        links=sample_links(),
        assumptions=[Assumption(path=p, value=v, why=w, source=s, evidence=e) for p, v, w, s, e in ASSUMPTIONS],
        events=512_311,
        simulated_s=70.3,
        wall_s=2.4,
        spans=sample_spans() if mode == "hybrid" else (),
    )


def sample_results() -> list[SimulationResult]:
    return [sample_result(mode) for mode in ("hybrid", "sync", "naive-hybrid", "async")]
