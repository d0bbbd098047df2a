"""A scenario's limits for the schedules of every role: what an event log's header holds, a run and a replay start from."""

from __future__ import annotations

from persia.scenario.scenario import Scenario
from persia.schedule.log import Header
from persia.schedule.modes import LoaderLimits, Mode, ServerLimits, WorkerLimits, rank_limits, server_gather

_READ_AHEAD = 2
_COMMIT_EVERY = 8


def run_header(
    scenario: Scenario, *, server_threads: int, worker_threads: int, first_step: int = 0, stop_batch: int | None = None
) -> Header:
    """Return the limits of every role, from which both worlds build their schedules.

    The threads are those of one process; the run begins before `first_step` and its data end before `stop_batch`.
    """
    schedule = scenario.schedule
    mode = Mode(schedule.mode)
    ranks = scenario.ranks
    loaders, workers, servers = (scenario.processes(tier) for tier in ("loader", "embedding_worker", "parameter_server"))
    permits = scenario.staleness_permits
    in_flight = ranks * permits
    return Header(
        rank=rank_limits(
            mode,
            world_size=ranks,
            staleness_permits=permits,
            lookups_max=schedule.lookups_in_flight,
            prefetch_max=schedule.prefetch_batches,
            pushes_max=schedule.pushes_in_flight,
            checkpoint_every_steps=schedule.checkpoint_every_steps,
            retry_s=schedule.retry_backoff,
        ),
        worker=WorkerLimits(
            servers=servers,
            buffer_max=schedule.buffered_batches_per_loader * loaders,
            fan_outs_max=max(8, 2 * worker_threads),
            expiry_s=schedule.buffer_expiry,
            remember_max=64 + 4 * in_flight // workers,
            retry_s=schedule.retry_backoff,
        ),
        server=ServerLimits(
            world_size=ranks,
            service_slots=server_threads,
            gather=server_gather(mode, ranks),
            remember_max=4 * in_flight,
        ),
        loader=LoaderLimits(
            loader=0,
            loaders=loaders,
            world_size=ranks,
            workers=workers,
            read_ahead_max=_READ_AHEAD,
            input_queue_max=schedule.input_queue_batches,
            first_batch=first_step * ranks,
            stop_batch=stop_batch,
            commit_every=_COMMIT_EVERY,
        ),
        first_step=first_step,
    )
