"""How batches are scheduled and how a simulation is run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from persia.scenario.base import (
    Count,
    Many,
    Name,
    Part,
    PositiveBytes,
    PositiveSeconds,
    Quantity,
    Seconds,
    TierName,
    Window,
)
from persia.scenario.units import COUNT, REAL

Wire = Literal["fp32", "fp16", "fp16-scaled"]


class Precision(Part):
    """The number format on each hop."""

    server_worker: Wire = Field(default="fp32", description="Rows and gradients between servers and embedding workers.", examples=["fp32"])
    worker_rank: Wire = Field(
        default="fp16", description="Pooled embeddings and gradients between embedding workers and ranks.", examples=["fp16"]
    )
    dense: Literal["fp32", "fp16"] = Field(default="fp32", description="Dense gradients in the all-reduce.", examples=["fp32"])


class Schedule(Part):
    """Mode, windows, time-outs and precision; the defaults are the original system's."""

    mode: Literal["sync", "async", "naive-hybrid", "hybrid"] = Field(
        default="hybrid",
        description="Which phases of different batches overlap, and how dense gradients are exchanged.",
        examples=["hybrid"],
    )
    staleness_permits: Window | None = Field(
        default=None,
        description="Batches of a rank between lookup and acknowledged update; null: 10. In sync mode always 1.",
        examples=[10],
    )
    lookups_in_flight: Window = Field(default=10, description="Lookups under way per rank.", examples=[10])
    prefetch_batches: Window = Field(
        default=20, description="Batches per rank looked up or being looked up ahead of the dense part.", examples=[20]
    )
    pushes_in_flight: Window = Field(default=8, description="Gradient pushes under way per rank.", examples=[8])
    input_queue_batches: Window = Field(default=10, description="Batches that wait in a rank's input queue.", examples=[10])
    buffered_batches_per_loader: Window = Field(
        default=1000, description="Batches an embedding worker keeps for each loader.", examples=[1000]
    )
    buffer_expiry: PositiveSeconds = Field(default=1000.0, description="Age at which a buffered batch is dropped.", examples=["1000s"])
    bucket_size: PositiveBytes = Field(default=25_000_000, description="Dense gradients that are reduced together.", examples=["25MB"])
    first_bucket_size: PositiveBytes = Field(
        default=1_000_000, description="Size of the first bucket, which starts the overlap.", examples=["1MB"]
    )
    request_timeout: PositiveSeconds = Field(default=2.0, description="Time after which a request counts as lost.", examples=["2s"])
    retry_backoff: Seconds = Field(
        default=0.05, description="First pause before a lost request is sent again; it doubles.", examples=["50ms"]
    )
    checkpoint_every_steps: Count = Field(default=0, description="Steps between checkpoints; 0 for none.", examples=[1000])
    gradient_scaling: Literal["mean", "sum"] = Field(
        default="mean", description="Whether embedding gradients are divided by the number of ranks.", examples=["mean"]
    )
    precision: Precision = Field(default_factory=Precision, description="The number format on each hop.")


class SlowMachine(Part):
    """One machine that takes `factor` times as long as its peers."""

    tier: TierName = Field(description="The tier.", examples=["nn_worker"])
    index: Count = Field(description="Which of its machines, from 0.", examples=[0])
    factor: Annotated[float, Quantity(dimension=REAL, above=0, high=1e6)] = Field(
        description="How many times longer its work takes.", examples=[1.5]
    )


class Simulation(Part):
    """How long and how exactly to simulate."""

    steps: Annotated[int, Quantity(dimension=COUNT, low=10, high=1_000_000)] | None = Field(
        default=None, description="Steps to simulate, warm-up included; null runs until the interval is narrow enough.", examples=[1000]
    )
    interval_target: Annotated[float, Quantity(dimension=REAL, above=0, below=1)] = Field(
        default=0.01,
        description="Half-width of the 95 % interval of throughput at which to stop, as a fraction of the mean.",
        examples=[0.01],
    )
    max_steps: Window = Field(default=5000, description="Steps after which to stop in any case.", examples=[5000])
    seed: Count = Field(default=1, description="Seed of every random stream.", examples=[1])
    replications: Annotated[int, Quantity(dimension=COUNT, low=1, high=10_000)] = Field(
        default=1, description="Independent runs, with seeds spawned from `seed`.", examples=[1]
    )
    fidelity: Literal["phase", "message"] = Field(
        default="phase", description="One event for each phase of a batch, or one for each request.", examples=["phase"]
    )
    engine: Literal["simpy", "heapq"] = Field(default="simpy", description="Event loop; both give the same digest.", examples=["simpy"])
    profile: Name = Field(
        default="persia-original",
        description="Calibrated costs: a packaged profile, or the path of a YAML file.",
        examples=["persia-original"],
    )
    step_noise_cv: Annotated[float, Quantity(dimension=REAL, low=0, high=10)] = Field(
        default=0.02, description="Coefficient of variation of the lognormal noise on a rank's dense time.", examples=[0.02]
    )
    message_loss: Annotated[float, Quantity(dimension=REAL, low=0, below=1)] = Field(
        default=0.0,
        description="Fraction of requests and answers between workers and servers that is lost (message fidelity).",
        examples=[0],
    )
    emulated_accelerator: Name | None = Field(
        default=None,
        description="Accelerator of the catalogue whose predicted time ranks wait for instead of computing the dense part; null: none.",
        examples=["a100"],
    )
    pace: Annotated[float, Quantity(dimension=REAL, above=0, high=1000)] | None = Field(
        default=None,
        description="How many times longer processor work takes than at the calibration; null: the same, with the drift it had then.",
        examples=[1.1],
    )
    slow_machines: Many[SlowMachine] = Field(default=(), max_length=10_000, description="Machines slower than their peers.", examples=[[]])
    latency_jitter_sigma: Annotated[float, Quantity(dimension=REAL, low=0, high=10)] = Field(
        default=0.25, description="Sigma of the lognormal latency.", examples=[0.25]
    )
