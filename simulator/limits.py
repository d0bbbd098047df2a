"""A scenario's limits for the schedules of every role: what an event log's header holds, and a replay starts from."""

from __future__ import annotations

from persia.scenario import Scenario
from persia.schedule.log import Header
from persia.schedule.modes import LoaderLimits, Mode, ServerLimits, WorkerLimits, rank_limits, server_gather
from simulator.hardware import Cluster

_READ_AHEAD = 2
_COMMIT_EVERY = 8


def run_header(scenario: Scenario, cluster: Cluster) -> Header:
    """Return the limits of every role: what the schedules of this scenario are built from."""
    schedule = scenario.schedule
    mode = Mode(schedule.mode)
    ranks = cluster.tiers["nn_worker"].processes
    loaders = cluster.tiers["loader"].processes
    permits = scenario.staleness_permits
    workers = cluster.tiers["embedding_worker"]
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
            servers=cluster.tiers["parameter_server"].processes,
            buffer_max=schedule.buffered_batches_per_loader * loaders,
            fan_outs_max=max(8, 2 * workers.threads_per_process),
            expiry_s=schedule.buffer_expiry,
            remember_max=64 + 4 * in_flight // workers.processes,
            retry_s=schedule.retry_backoff,
        ),
        server=ServerLimits(
            world_size=ranks,
            service_slots=cluster.tiers["parameter_server"].threads_per_process,
            gather=server_gather(mode, ranks),
            remember_max=4 * in_flight,
        ),
        loader=LoaderLimits(
            loader=0,
            loaders=loaders,
            world_size=ranks,
            workers=workers.processes,
            read_ahead_max=_READ_AHEAD,
            input_queue_max=schedule.input_queue_batches,
            commit_every=_COMMIT_EVERY,
        ),
    )
