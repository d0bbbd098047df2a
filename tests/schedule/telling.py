"""How the tests talk to one schedule: events in, commands out, the laws asked after every one."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

from persia.schedule.invariants import broken_laws
from persia.schedule.log import Schedule
from persia.schedule.messages import Command, Event
from persia.schedule.modes import Limits, LoaderLimits, Mode, ServerLimits, WorkerLimits, rank_limits

# Where only the verdict counts (tests/seeded_faults.py), the search for the smallest failing example is left out.
PHASES = [Phase.explicit, Phase.generate] if "PERSIA_TESTS_DO_NOT_SHRINK" in os.environ else list(Phase)
MACHINE = settings(
    max_examples=100,
    stateful_step_count=60,
    derandomize=True,
    deadline=None,
    phases=PHASES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def tell(schedule: Schedule, *events: Event, now_s: float = 0.0) -> list[Command]:
    """Give the events to the schedule and return all its commands; no law may break, no timer may be due already."""
    commands: list[Command] = []
    for event in events:
        commands += schedule.handle(event, now_s)
        assert broken_laws(schedule) == []
        due_s = schedule.next_timer_s()
        assert due_s is None or due_s > now_s, f"woken at {now_s}, it wants to be woken at {due_s}"
    return commands


def small_rank_limits(mode: Mode = Mode.HYBRID, **changes: int | float) -> Limits:
    """Return limits that a test can fill by hand: one rank, two permits, roomy elsewhere."""
    values = {"world_size": 1, "staleness_permits": 2, "lookups_max": 10, "prefetch_max": 20, "pushes_max": 8, "retry_s": 1.0, **changes}
    return rank_limits(mode, **values)


def small_worker_limits(**changes: int | float) -> WorkerLimits:
    """Return limits of a worker that asks two servers."""
    values = {"servers": 2, "buffer_max": 10, "fan_outs_max": 10, "expiry_s": 100.0, "remember_max": 10, "retry_s": 1.0, **changes}
    return WorkerLimits(**values)


def small_server_limits(**changes: int) -> ServerLimits:
    """Return limits of a server with one slot, of two ranks, that gathers nothing."""
    return ServerLimits(**{"world_size": 2, "service_slots": 1, "gather": 1, "remember_max": 100, **changes})


def small_loader_limits(**changes: int | None) -> LoaderLimits:
    """Return limits of the only loader of two ranks and one worker."""
    values = {
        "loader": 0,
        "loaders": 1,
        "world_size": 2,
        "workers": 1,
        "read_ahead_max": 2,
        "input_queue_max": 1,
        "stop_batch": 8,
        **changes,
    }
    return LoaderLimits(**values)
