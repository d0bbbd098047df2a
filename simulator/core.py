"""Threads and the cores that run them by turns, as Linux's fair scheduler does; `processor` moves threads between cores.

Times in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

PERIOD_S = 0.1  # of a quota: the kernel's default
TICK_S = 0.004  # of the scheduler's clock: 250 Hz
HALF_LIFE_S = 0.032  # of a thread's load, and so of a core's
_HOT_S = 0.0005  # after it has run a thread is not moved: its core's cache still holds what it works on
NOTHING_S = 1e-12  # less work than this is rounding


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one thread: seconds on a core whose neighbours idle, and what follows; without a slowdown it has its thread's."""

    work_s: float
    then: Callable[..., None]
    args: tuple[Any, ...] = ()
    slowdown: float | None = None


class Group:
    """Threads that share a quota in cores; `inf` is no limit."""

    __slots__ = ("left_s", "quota_cores", "throttled")

    def __init__(self, quota_cores: float) -> None:
        if not quota_cores > 0.0:
            raise ValueError(f"a quota is a positive number of cores, not {quota_cores}")
        self.quota_cores = quota_cores
        self.left_s = quota_cores * PERIOD_S
        self.throttled = False


class Thread:
    """One thread and its queue of jobs; `busy_s` is the processor time it has used, `beside_s` how much of that beside busy cores.

    Its work takes `slowdown` times longer beside busy cores than beside idle ones; where that is less than one, what many jobs
    in a row save weighs more than what they lose to a cold cache.
    """

    __slots__ = (
        *("beside_s", "busy_s", "core", "due_s", "group", "halved_s", "job", "jobs", "kept_s"),
        *("lag_s", "left_s", "load", "ran_s", "slowdown", "stays", "virtual_s", "wakee", "wakes", "waking"),
    )

    def __init__(self, group: Group, slowdown: float = 1.0) -> None:
        self.group = group
        self.slowdown = slowdown
        self.jobs: deque[Job] = deque()
        self.job: Job | None = None  # under way, or just ending
        self.core = 0  # on which it runs, or ran last
        self.left_s = 0.0
        self.busy_s = self.beside_s = 0.0
        self.virtual_s = 0.0  # processor time on its core, compared with that of the core's other threads
        self.due_s = 0.0  # virtual time at which it should have had its slice
        self.kept_s = 0.0  # virtual time up to which its turn lasts
        self.lag_s = 0.0  # what its core owed it when it fell asleep
        self.ran_s = -inf  # time at which it ran last
        self.load = 0.0  # part of the time, of late, in which it has work
        self.wakee: Thread | None = None  # which it has woken last
        self.wakes = 0  # of another thread than the one before, of late
        self.halved_s = 0.0  # time at which those were last halved
        self.stays = False  # on its core though it sleeps
        self.waking = False  # with its core


class Core:
    """A core: the threads on it, which have a job or have had too much, and the one that runs."""

    __slots__ = ("current", "load", "slice_s", "speed", "threads")

    def __init__(self, slice_s: float) -> None:
        self.threads: list[Thread] = []
        self.current: Thread | None = None
        self.slice_s = slice_s
        self.speed = 0.0  # work that is done per second
        self.load = 0.0  # of the threads that have run here last

    @property
    def waiting(self) -> int:
        """Return how many threads have work here, the running one included."""
        return sum(thread.job is not None for thread in self.threads)

    def remember(self, remembered: float) -> None:
        """Let time pass, of which loads remember that much of what was before, 0..1."""
        waiting = 0
        for thread in self.threads:
            if thread.job is not None:
                waiting += 1
                thread.load = 1.0 + (thread.load - 1.0) * remembered
        self.load = waiting + (self.load - waiting) * remembered

    def movable(self, now_s: float) -> Thread | None:
        """Return the thread that has waited longest since it ran last, of those that wait and are not hot any more."""
        waiting = [each for each in self.threads if each.job is not None and each is not self.current and now_s - each.ran_s >= _HOT_S]
        return min(waiting, key=lambda each: each.ran_s, default=None)

    def enter(self, thread: Thread) -> None:
        """Take a thread in; what it is owed counts beside the others."""
        others, mean_s = len(self.threads), _mean_s(self.threads)
        thread.virtual_s = mean_s - thread.lag_s * (others + 1) / others if others else 0.0
        thread.due_s = thread.virtual_s + self.slice_s
        self.threads.append(thread)

    def leave(self, thread: Thread) -> None:
        """Let a thread go, and keep what it is owed, at most a tick."""
        thread.lag_s = max(-TICK_S, min(_mean_s(self.threads) - thread.virtual_s, TICK_S))
        self.threads.remove(thread)
        if self.current is thread:
            self.current = None

    def fall_asleep(self, thread: Thread) -> None:
        """Let a thread sleep that has no more work: it stays while it has had more than its share."""
        if thread.virtual_s > _mean_s(self.threads):
            thread.stays = True
            if self.current is thread:
                self.current = None
        else:
            self.leave(thread)

    def wake(self, thread: Thread) -> None:
        """Let a thread that has stayed go on; what it would be owed by now is forgotten."""
        thread.stays = False
        if thread.virtual_s < _mean_s(self.threads):
            self.leave(thread)
            thread.lag_s = 0.0
            self.enter(thread)

    def turn_is_over(self, since_tick_s: float) -> bool:
        """Return whether another thread may have the next turn; `since_tick_s` is what the core has done since the last tick."""
        thread = self.current
        if thread is None:
            return True
        alone = len(self.threads) == 1
        at_tick_s = thread.virtual_s - since_tick_s
        if alone and at_tick_s >= thread.due_s:
            thread.due_s = at_tick_s + self.slice_s
        over = thread.virtual_s >= thread.due_s
        if over:
            thread.due_s = thread.virtual_s + self.slice_s
        return not alone and (over or thread.virtual_s >= thread.kept_s)

    def next(self) -> Thread | None:
        """Return whose turn it is."""
        ready = [thread for thread in self.threads if not thread.group.throttled]
        if not ready:
            return None
        mean_s = _mean_s(ready) + NOTHING_S
        current = self.current
        if current is not None and not current.group.throttled and current.virtual_s <= mean_s and current.virtual_s < current.kept_s:
            return current
        return min((each for each in ready if each.virtual_s <= mean_s), key=lambda each: (each.due_s, each is current))

    def turn(self) -> None:
        """Let the next thread run; those that sleep and whose turn it would be go."""
        thread = self.next()
        while thread is not None and thread.stays:
            self.leave(thread)
            thread.stays, thread.lag_s = False, 0.0
            thread = self.next()
        self.give(thread)

    def give(self, thread: Thread | None) -> None:
        """Let a thread run."""
        if thread is not None and thread is not self.current:
            thread.kept_s = thread.due_s
        self.current = thread


def _mean_s(threads: Sequence[Thread]) -> float:
    """Return the mean of threads' virtual times: one that is further has had more than its share."""
    return sum(thread.virtual_s for thread in threads) / len(threads) if threads else 0.0
