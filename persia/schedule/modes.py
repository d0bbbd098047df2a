"""The four published schedules as values: what differs between them is data, never code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reduction(StrEnum):
    """When the dense gradients of a batch are averaged over the ranks."""

    OVERLAPPED = "overlapped"  # bucket by bucket, while backward still runs
    AFTER_BACKWARD = "after-backward"
    NONE = "none"  # never: dense parameters are exchanged through a parameter server


class Mode(StrEnum):
    """Names of the published schedules (Lian et al., KDD 2022, section 4)."""

    SYNC = "sync"
    ASYNC = "async"
    NAIVE_HYBRID = "naive-hybrid"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one rank may have under way at once; counts are batches of that rank.

    `barrier_every_steps` and `checkpoint_every_steps` are 0 for never.  `retry_s` is the first back-off after a lost
    lookup or push in seconds; it doubles with each further loss of the same batch, up to 64 times.
    """

    world_size: int
    lookups_max: int
    prefetch_max: int
    staleness_permits: int
    pushes_max: int
    reduction: Reduction
    barrier_every_steps: int = 0
    checkpoint_every_steps: int = 0
    retry_s: float = 0.05

    def __post_init__(self) -> None:
        counts = (self.world_size, self.lookups_max, self.prefetch_max, self.staleness_permits, self.pushes_max)
        _check(self, min(counts) >= 1, "every limit is at least 1")
        _check(self, min(self.barrier_every_steps, self.checkpoint_every_steps) >= 0, "a period is at least 0")
        _check(self, self.retry_s > 0, "a back-off is positive")


def _check(limits: object, holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(f"{sentence}: {limits}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """What one embedding worker may hold.

    `servers` it asks; `buffer_max` batches, beyond which it grants no credit; `fan_outs_max` lookups fanned out at once
    (updates fan out at once); `expiry_s` after which a batch that nobody came for is forgotten; `remember_max` applied
    batches whose repeated push it answers by itself (an older one is answered by way of loader and servers).
    """

    servers: int
    buffer_max: int
    fan_outs_max: int
    expiry_s: float
    remember_max: int
    retry_s: float = 0.05

    def __post_init__(self) -> None:
        _check(self, min(self.servers, self.buffer_max, self.fan_outs_max, self.remember_max) >= 1, "every limit is at least 1")
        _check(self, min(self.expiry_s, self.retry_s) > 0, "a time is positive")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one parameter server does at once.

    `gather` is the number of batches of one step that are summed before one optimizer step (sync mode: the world size;
    1 elsewhere: every update is applied as it arrives).  `remember_max` is how many applied batches may be ahead of one
    that is missing before a checked run complains: all are remembered, so that none is ever applied twice.
    """

    world_size: int
    service_slots: int
    gather: int
    remember_max: int

    def __post_init__(self) -> None:
        _check(self, min(self.world_size, self.service_slots, self.remember_max) >= 1, "every limit is at least 1")
        _check(self, self.gather in (1, self.world_size), "a server gathers nothing, or one batch of every rank")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderLimits:
    """What one data loader may have under way: batches read ahead, and batches in each rank's input queue.

    `first_batch` is where it begins or a CommitOffset told it to; `stop_batch` ends the data, after a whole step.
    """

    loader: int
    loaders: int
    world_size: int
    workers: int
    read_ahead_max: int
    input_queue_max: int
    first_batch: int = 0
    stop_batch: int | None = None
    commit_every: int = 1

    def __post_init__(self) -> None:
        counts = (self.loaders, self.world_size, self.workers, self.read_ahead_max, self.input_queue_max, self.commit_every)
        _check(self, min(counts) >= 1, "every limit is at least 1")
        _check(self, 0 <= self.loader < self.loaders, "a loader is one of the loaders")
        _check(self, self.first_batch >= 0, "batches count from 0")
        _check(self, (self.stop_batch or 0) % self.world_size == 0, "the data end after a whole step, lest a barrier never pass")


_REDUCTION = {
    Mode.SYNC: Reduction.AFTER_BACKWARD,
    Mode.ASYNC: Reduction.NONE,
    Mode.NAIVE_HYBRID: Reduction.AFTER_BACKWARD,
    Mode.HYBRID: Reduction.OVERLAPPED,
}


def rank_limits(
    mode: Mode,
    *,
    world_size: int,
    staleness_permits: int,
    lookups_max: int,
    prefetch_max: int,
    pushes_max: int,
    checkpoint_every_steps: int = 0,
    retry_s: float = 0.05,
) -> Limits:
    """Return the limits that make `mode`.

    sync: one permit and a barrier every step, so that nothing overlaps and the next lookup waits until every rank's
    gradients of this step are applied.  async: lookups, pushes and dense exchange all overlap other batches.
    naive-hybrid: lookups and pushes overlap, the all-reduce is exposed after backward.  hybrid: the all-reduce
    overlaps backward as well.
    """
    sync = mode is Mode.SYNC
    return Limits(
        world_size=world_size,
        lookups_max=lookups_max,
        prefetch_max=prefetch_max,
        staleness_permits=1 if sync else staleness_permits,
        pushes_max=pushes_max,
        reduction=_REDUCTION[mode],
        barrier_every_steps=1 if sync else 0,
        checkpoint_every_steps=checkpoint_every_steps,
        retry_s=retry_s,
    )


def server_gather(mode: Mode, world_size: int) -> int:
    """Return how many updates of a step a server sums before it applies them: all ranks' in sync mode, else one."""
    return world_size if mode is Mode.SYNC else 1
