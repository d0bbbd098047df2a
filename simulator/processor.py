"""A machine's processor, shared by all threads that want to run: what a host with fewer cores than runnable threads is.

Each thread does its jobs one after another.  Cores run threads as Linux's fair scheduler does (EEVDF: Stoica and Abdel-Wahab,
"Earliest eligible virtual deadline first", 1995; in Linux since 6.6): in the long run the threads of a core share it equally,
which is processor sharing (Kleinrock, "Time-shared systems: a theoretical treatment", JACM 14, 1967), but at one moment a core
runs one.  A thread that wakes goes to an idle core, its last one where that idles, else where the fewest are.  It goes first
there, unless it has had more than its share: that is settled at the next tick of the scheduler's clock.  A thread that fell
asleep having had more than its share is not free to go elsewhere until the others of its core have caught up (delayed dequeue,
since 6.12), even where another core idles.  A core that falls idle takes a thread that waits at another at a tick only, and so
machines idle while threads wait (Lozi et al., "The Linux scheduler: a decade of wasted cores", EuroSys 2016).  An idle core
takes `wake_s` to wake, which is dear on a virtual machine: a halted core must be entered again.  A job's work is given in
seconds on a core whose neighbours idle; while other cores are busy it takes longer, by its slowdown.

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
_NOTHING_S = 1e-12  # less work than this is rounding


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
    """One thread and its queue of jobs; `busy_s` is the processor time it has used.

    Its work takes `slowdown` times longer beside busy cores than beside idle ones; where that is less than one, what many jobs
    in a row save weighs more than what they lose to a cold cache.
    """

    __slots__ = ("busy_s", "core", "group", "job", "jobs", "lag_s", "left_s", "slowdown", "virtual_s", "waking")

    def __init__(self, group: Group, slowdown: float = 1.0) -> None:
        self.group = group
        self.slowdown = slowdown
        self.jobs: deque[Job] = deque()
        self.job: Job | None = None  # under way, or just ending
        self.core = 0  # on which it runs, or ran last
        self.left_s = 0.0
        self.busy_s = 0.0
        self.virtual_s = 0.0  # processor time on its core, compared with that of the core's other threads
        self.lag_s = 0.0  # what its core owed it when it fell asleep
        self.waking = False  # with its core


class _Core:
    """A core: the threads on it that have a job under way, and the one that runs."""

    __slots__ = ("current", "speed", "threads")

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        self.current: Thread | None = None
        self.speed = 0.0  # work that is done per second

    @property
    def virtual_s(self) -> float:
        """Return the mean of its threads' virtual times: one that is further has had more than its share."""
        return sum(thread.virtual_s for thread in self.threads) / len(self.threads) if self.threads else 0.0

    def turn(self) -> None:
        """Let the thread run that has had least."""
        self.current = min((thread for thread in self.threads if not thread.group.throttled), key=_virtual_s, default=None)

    def choose(self) -> bool:
        """Keep to the running thread, or choose another where it is gone; return whether one runs."""
        if self.current is None or self.current.group.throttled:
            self.turn()
        self.speed = 0.0
        return self.current is not None and not self.current.waking


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
        self._cores = [_Core() for _ in range(max(1, ceil(cores)))]
        self._share = min(1.0, cores / len(self._cores))  # of each core, that these threads have
        self._since_s = 0.0
        self._serial = 0  # of the planned event that counts; older ones are void
        self._changing = False  # jobs that have ended are being told
        self._groups: list[Group] = []  # those with a quota
        self._period = 0
        self._tick = 0  # the last one
        self._waiting = False  # a thread for its turn, since the last change

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
        behind = self._cores[thread.core]
        if behind.threads and thread.virtual_s > behind.virtual_s:
            self._begin_next(thread)  # it has not left its core: it waits until its turn comes
        else:
            thread.core = self._place(thread.core)
            core = self._cores[thread.core]
            thread.virtual_s = core.virtual_s - thread.lag_s
            self._begin_next(thread)
            if core.current is None or thread.virtual_s <= core.current.virtual_s:
                core.current = thread
            if self._wake_s > 0.0 and len(core.threads) == 1:
                thread.waking = True
                self._engine.call_later(self._wake_s, self._awake, thread)
        self._plan()

    def _place(self, last: int) -> int:
        """Return the core for a thread that wakes: an idle one, its last one first."""
        return min(range(len(self._cores)), key=lambda number: (len(self._cores[number].threads), number != last))

    def _awake(self, thread: Thread) -> None:
        self._catch_up()
        thread.waking = False
        self._plan()

    def _begin_next(self, thread: Thread) -> None:
        """Take the thread's next job, on the core where it is."""
        thread.job = thread.jobs.popleft()
        thread.left_s = thread.job.work_s
        self._cores[thread.core].threads.append(thread)

    def _catch_up(self) -> None:
        """Do the work since the last change."""
        now_s = self._engine.now_s
        passed_s, self._since_s = now_s - self._since_s, now_s
        if passed_s <= 0.0:
            return
        used_s = self._share * passed_s
        for core in self._cores:
            thread = core.current
            if thread is not None and core.speed > 0.0:
                thread.left_s -= core.speed * passed_s
                thread.busy_s += used_s
                thread.virtual_s += used_s
                thread.group.left_s -= used_s
        for group in self._groups:
            group.throttled = group.left_s <= _NOTHING_S

    def _plan(self) -> None:
        """Choose what runs on each core and plan the next change."""
        if self._changing:
            return
        self._serial += 1
        self._renew_quotas()
        next_s = self._take_turns()
        running = [core for core in self._cores if core.choose()]
        others = (len(running) - 1) / max(1, len(self._cores) - 1)
        for core in running:
            thread = core.current
            assert thread is not None
            assert thread.job is not None
            slowdown = thread.slowdown if thread.job.slowdown is None else thread.job.slowdown
            core.speed = self._share / ((1.0 - others) * self._pace + others * self._crowded_pace * slowdown)
            next_s = min(next_s, max(0.0, thread.left_s) / core.speed)
        next_s = min(next_s, self._quotas_end_s())
        if next_s < inf:
            self._engine.call_later(next_s, self._change, self._serial)

    def _take_turns(self) -> float:
        """At a tick let every core turn to the thread that has had least, and move threads; return when that is due again."""
        tick = self._ticks()
        if tick > self._tick and self._waiting:
            self._balance()
            for core in self._cores:
                core.turn()
        self._tick = tick
        self._waiting = any(len(core.threads) > 1 for core in self._cores)
        return (tick + 1) * TICK_S - self._engine.now_s if self._waiting else inf

    def _ticks(self) -> int:
        return int(self._engine.now_s / TICK_S + 1e-6)

    def _balance(self) -> None:
        """Move threads that wait to cores that have two less than theirs."""
        while True:
            most = max(self._cores, key=lambda core: len(core.threads))
            least = min(self._cores, key=lambda core: len(core.threads))
            if len(most.threads) - len(least.threads) < 2:
                return
            thread = next(each for each in most.threads if each is not most.current)
            ahead_s = thread.virtual_s - most.virtual_s
            most.threads.remove(thread)
            thread.virtual_s = least.virtual_s + ahead_s
            thread.core = self._cores.index(least)
            least.threads.append(thread)

    def _quotas_end_s(self) -> float:
        """Return in how many seconds a quota in use is used up or renewed."""
        end_s = inf
        for group in self._groups:
            using = sum(core.speed > 0.0 and core.current is not None and core.current.group is group for core in self._cores)
            if using or group.throttled:
                end_s = min(end_s, (self._period + 1) * PERIOD_S - self._engine.now_s)
            if using:
                end_s = min(end_s, group.left_s / (using * self._share))
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
        ended = [
            core.current for core in self._cores if core.current is not None and core.speed > 0.0 and core.current.left_s <= _NOTHING_S
        ]
        self._changing = True
        for thread in ended:
            assert thread.job is not None
            thread.job.then(*thread.job.args)
        self._changing = False
        for thread in ended:
            core = self._cores[thread.core]
            core.threads.remove(thread)
            if thread.jobs:
                self._begin_next(thread)
                continue
            thread.job = None
            thread.lag_s = min(max(0.0, core.virtual_s - thread.virtual_s), TICK_S) if core.threads else 0.0
            if core.current is thread:
                core.current = None
        self._plan()


def _virtual_s(thread: Thread) -> float:
    return thread.virtual_s
