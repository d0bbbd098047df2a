"""A machine's processor, shared by all threads that want to run: what a host with fewer cores than runnable threads is.

Each thread does its jobs one after another.  Every core has a queue of its own, as Linux's fair scheduler has: a thread that
wakes goes where the fewest run, its last core where several are alike, and the threads of one core share it equally
(processor sharing: Kleinrock, "Time-shared systems: a theoretical treatment", JACM 14, 1967).  A core that falls idle takes
a thread that waits at another; otherwise a thread moves only when one core has two more than another, and only at a tick of
the scheduler's clock (Lozi et al., "The Linux scheduler: a decade of wasted cores", EuroSys 2016).  An idle core takes
`wake_s` to wake, which is dear on a virtual machine: a halted core must be entered again.  A job's work is given in seconds
on a core whose neighbours idle; while other cores are busy it takes longer, by its thread's slowdown.

A group of threads may have a quota, as a control group of Linux has: in every period of `PERIOD_S` it gets so many
core-seconds, and when they are used up its threads wait for the next period (Turner, Rao and Rao, "CPU bandwidth control
for CFS", 2010).

Times in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from typing import Any

from simulator.engine import Engine

PERIOD_S = 0.1  # of a quota: the kernel's default
TICK_S = 0.004  # of the scheduler's clock: 250 Hz
_NOTHING_S = 1e-9  # less work than this is rounding


@dataclass(frozen=True, slots=True)
class Job:
    """Work for one thread: seconds on a core whose neighbours idle, and what follows."""

    work_s: float
    then: Callable[..., None]
    args: tuple[Any, ...] = ()


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
    """One thread and its queue of jobs; `busy_s` is the processor time it has used.

    Its work takes `slowdown` times longer beside busy cores than beside idle ones; where that is less than one, what many jobs
    in a row save weighs more than what they lose to a cold cache.
    """

    __slots__ = ("busy_s", "core", "group", "job", "jobs", "left_s", "share", "slowdown", "speed", "waking")

    def __init__(self, group: Group, slowdown: float = 1.0) -> None:
        self.group = group
        self.slowdown = slowdown
        self.jobs: deque[Job] = deque()
        self.job: Job | None = None  # under way, or just ending
        self.core = 0  # on which it runs, or ran last
        self.left_s = 0.0
        self.share = 0.0  # of a core that it gets now
        self.speed = 0.0  # work done per second now
        self.busy_s = 0.0
        self.waking = False  # with its core


class Processor:
    """C cores and the threads that share them."""

    def __init__(self, engine: Engine, cores: float, *, wake_s: float = 0.0, pace: float = 1.0, crowded_pace: float = 1.0) -> None:
        """`cores` may be a fraction: what other work of the machine leaves, of each core alike.

        Work takes `pace` times longer on a core whose neighbours idle, `crowded_pace` times where they are busy.

        Raises:
            ValueError: no cores.
        """
        if not cores > 0.0:
            raise ValueError(f"a processor has a positive number of cores, not {cores}")
        self._engine = engine
        self.cores = cores
        self._wake_s = wake_s
        self._pace = pace
        self._crowded_pace = crowded_pace
        self._running: list[Thread] = []  # those with a job under way
        self._queues: list[list[Thread]] = [[] for _ in range(max(1, ceil(cores)))]  # the same, by core
        self._since_s = 0.0
        self._serial = 0  # of the planned event that counts; older ones are void
        self._groups: list[Group] = []  # those with a quota
        self._period = 0
        self._tick = 0  # at which threads were moved

    def group(self, quota_cores: float = inf) -> Group:
        """Return a new group of threads."""
        group = Group(quota_cores)
        if quota_cores < inf:
            self._groups.append(group)
        return group

    def run(self, thread: Thread, job: Job) -> None:
        """Let a thread do a job after those it has; `job.then` is called when it is done."""
        thread.jobs.append(job)
        if thread.job is None:
            self._wake(thread)

    def run_next(self, thread: Thread, jobs: list[Job]) -> None:
        """Put jobs in front of those a thread has waiting: for what the job that is just ending has led to."""
        thread.jobs.extendleft(reversed(jobs))
        if jobs and thread.job is None:
            self._wake(thread)

    def _wake(self, thread: Thread) -> None:
        self._catch_up()
        queues = self._queues
        thread.core = min(range(len(queues)), key=lambda core: (len(queues[core]), core != thread.core))
        self._begin_next(thread)
        if self._wake_s > 0.0 and len(queues[thread.core]) == 1:
            thread.waking = True
            self._engine.call_later(self._wake_s, self._awake, thread)
        self._plan()

    def _awake(self, thread: Thread) -> None:
        self._catch_up()
        thread.waking = False
        self._plan()

    def _begin_next(self, thread: Thread) -> None:
        """Take the thread's next job, on the core where it is, or let it sleep."""
        if not thread.jobs:
            thread.job = None
            return
        thread.job = thread.jobs.popleft()
        thread.left_s = thread.job.work_s
        self._running.append(thread)
        self._queues[thread.core].append(thread)

    def _catch_up(self) -> None:
        """Do the work since the last change."""
        now_s = self._engine.now_s
        passed_s, self._since_s = now_s - self._since_s, now_s
        if passed_s <= 0.0:
            return
        for thread in self._running:
            if thread.speed > 0.0:
                used_s = thread.share * passed_s
                thread.left_s -= thread.speed * passed_s
                thread.busy_s += used_s
                thread.group.left_s -= used_s
        for group in self._groups:
            group.throttled = group.left_s <= _NOTHING_S

    def _plan(self) -> None:
        """Share the cores out anew and plan the next change."""
        self._serial += 1
        if not self._running:
            return
        self._renew_quotas()
        balanced_s = self._balance()
        busy = self._share_out()
        others = max(0.0, busy - 1.0) / max(1, len(self._queues) - 1)
        next_s = min(balanced_s, self._quotas_end_s())
        for thread in self._running:
            if thread.share == 0.0:
                thread.speed = 0.0
                continue
            thread.speed = thread.share / ((1.0 - others) * self._pace + others * self._crowded_pace * thread.slowdown)
            next_s = min(next_s, max(0.0, thread.left_s) / thread.speed)
        if next_s < inf:
            self._engine.call_later(next_s, self._change, self._serial)

    def _balance(self) -> float:
        """Move threads to cores that have two less than another, once a tick or when they are idle; return when there is cause to."""
        queues, now_s = self._queues, self._engine.now_s
        tick = int(now_s / TICK_S + 1e-6)
        while True:
            most, least = max(queues, key=len), min(queues, key=len)
            if len(most) - len(least) < 2:
                return inf
            if tick == self._tick and least:
                return (tick + 1) * TICK_S - now_s
            thread = most.pop()
            thread.core = queues.index(least)
            least.append(thread)
            if len(least) > 1 and len(max(queues, key=len)) - len(min(queues, key=len)) < 2:
                self._tick = tick

    def _share_out(self) -> int:
        """Give every thread its share of its core; return how many cores are busy."""
        whole = min(1.0, self.cores / len(self._queues))
        busy = 0
        for queue in self._queues:
            runnable = sum(not (thread.group.throttled or thread.waking) for thread in queue)
            busy += runnable > 0
            for thread in queue:
                thread.share = 0.0 if thread.group.throttled or thread.waking else whole / runnable
        return busy

    def _quotas_end_s(self) -> float:
        """Return in how many seconds a quota in use is used up or renewed."""
        end_s = inf
        for group in self._groups:
            shares = sum(thread.share for thread in self._running if thread.group is group)
            if shares > 0.0 or group.throttled:
                end_s = min(end_s, (self._period + 1) * PERIOD_S - self._engine.now_s)
            if shares > 0.0:
                end_s = min(end_s, group.left_s / shares)
        return max(0.0, end_s)

    def _renew_quotas(self) -> None:
        period = int(self._engine.now_s / PERIOD_S + 1e-9)
        if period > self._period:
            self._period = period
            for group in self._groups:
                group.left_s = group.quota_cores * PERIOD_S
                group.throttled = False

    def _change(self, serial: int) -> None:
        """A job is done, or a quota: tell whom it concerns, go on with the next."""
        if serial != self._serial:
            return
        self._catch_up()
        ended = [thread for thread in self._running if thread.left_s <= _NOTHING_S and not thread.waking]
        for thread in ended:
            self._running.remove(thread)
            self._queues[thread.core].remove(thread)
        for thread in ended:
            assert thread.job is not None
            thread.job.then(*thread.job.args)
            self._begin_next(thread)
        self._plan()
