"""What every simulation does with the core's schedules: tells them events, sets their timers, checks their laws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from persia.schedule import messages as m
from persia.schedule.invariants import CollectiveOrder, broken_laws
from persia.schedule.log import Log, Schedule
from persia.schedule.rank import RankSchedule
from simulator.costs import BatchCosts, DenseCosts
from simulator.engine import Engine
from simulator.hardware import Cluster
from simulator.recorder import Recorder

Hand = Callable[[int, Any], Any]


class BrokenLaw(AssertionError):
    """A schedule broke an invariant in a run with checks: a defect of the core, never of the scenario."""


class Process:
    """One schedule with its place in the cluster, and when its timer runs out."""

    __slots__ = ("handle", "index", "next_timer_s", "role", "schedule", "wake_s")

    def __init__(self, role: str, index: int, schedule: Schedule) -> None:
        self.role = role
        self.index = index
        self.schedule = schedule
        self.handle = schedule.handle
        self.next_timer_s = schedule.next_timer_s
        self.wake_s = inf


class Driving:
    """Gives events to schedules and what they decide to `hands`, command by command; what `run` needs of any simulation.

    `servers_weight` is how many servers one recorded version staleness stands for; `on_step` hears that a step has ended.
    """

    recorder: Recorder
    cluster: Cluster
    batch: BatchCosts
    dense: DenseCosts
    servers_weight: int
    on_step: Callable[[int], None]

    def __init__(self, engine: Engine, log: Log, *, ranks: int, checked: bool) -> None:
        self._engine = engine
        self._record = log.record
        self._order = CollectiveOrder(ranks) if checked else None
        self._hands: dict[type[m.Word], Hand] = {}

    def beside(self) -> dict[str, float]:
        """Return for each stage which part of its work was done beside busy cores, 0..1; nothing where cores are not simulated."""
        return {}

    def sleeps(self) -> dict[str, float]:
        """Return for each role how often a batch's own threads of its processes slept; nothing where threads are not simulated."""
        return {}

    def start(self) -> None:
        """Begin: raises NotImplementedError here."""
        raise NotImplementedError

    def _tell(self, process: Process, event: m.Event) -> None:
        """Give one event to a schedule and carry out what it decides."""
        now_s, index, hands = self._engine.now_s, process.index, self._hands
        commands = process.handle(event, now_s)
        self._record(now_s, process.role, index, event, commands)
        if self._order is not None:
            self._check(process.schedule, index, commands)
        for command in commands:
            hands[type(command)](index, command)
        due_s = process.next_timer_s()
        if due_s is not None and due_s < process.wake_s:
            self._set_timer(process, due_s)

    def _set_timer(self, process: Process, due_s: float) -> None:
        process.wake_s = due_s
        self._engine.call_later(due_s - self._engine.now_s, self._wake, process, due_s)

    def _wake(self, process: Process, wake_s: float) -> None:
        """A timer has run out: tell the schedule if it still wants it, else wait for the time it wants now."""
        if wake_s != process.wake_s:  # an earlier one was set after it
            return
        process.wake_s = inf
        due_s = process.next_timer_s()
        if due_s is None:
            return
        if due_s <= self._engine.now_s:
            self._tell(process, m.Timer())
        else:
            self._set_timer(process, due_s)

    def _check(self, schedule: Schedule, index: int, commands: Sequence[m.Command]) -> None:
        broken = broken_laws(schedule)
        if isinstance(schedule, RankSchedule) and self._order is not None:
            broken += self._order.broken_laws(index, commands)
        if broken:
            raise BrokenLaw("; ".join(broken))
