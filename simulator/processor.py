"""A machine's processor, shared by all threads that want to run: what a host with fewer cores than runnable threads is.

Each thread does its jobs one after another.  Cores run threads as Linux's fair scheduler does (EEVDF: Stoica and Abdel-Wahab,
"Earliest eligible virtual deadline first", 1995; in Linux since 6.6): in the long run the threads of a core share it equally,
which is processor sharing (Kleinrock, "Time-shared systems: a theoretical treatment", JACM 14, 1967), but at one moment a core
runs one.  A thread is eligible unless it has had more than its share, and due a slice after it became so; of the eligible ones
that which is due first has the next turn, of a slice at least.  Whether a turn is over shows when a thread wakes or falls
asleep, or at a tick of the scheduler's clock.  A thread keeps what its core owed it while it sleeps, so that it goes first when
it wakes; one that fell asleep having had more than its share stays on its core until the others have caught up (delayed
dequeue, since 6.12), even where another core idles.

A thread that wakes goes to an idle core, its last one where that idles, else to the one that has been less busy of late.  A
core that falls idle takes a thread that waits at another at a tick only, and so machines idle while threads wait (Lozi et al.,
"The Linux scheduler: a decade of wasted cores", EuroSys 2016).  An idle core takes `wake_s` to wake, which is dear on a virtual
machine: a halted core must be entered again.  A job's work is given in seconds on a core whose neighbours idle; while other
cores are busy it takes longer, by its slowdown.

A group of threads may have a quota, as a control group of Linux has: in every period of `PERIOD_S` it gets so many
core-seconds, and when they are used up its threads wait for the next period (Turner, Rao and Rao, "CPU bandwidth control
for CFS", 2010).

Times in seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, log2
from typing import Any

from simulator.engine import Engine

PERIOD_S = 0.1  # of a quota: the kernel's default
TICK_S = 0.004  # of the scheduler's clock: 250 Hz
_SLICE_S = 0.0007  # of one core; of several it is longer
_SWAP_TICKS = 32  # between cores that are both busy, one with a thread more than the other
_HALF_LIFE_S = 0.032  # of how busy a core has been
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

    __slots__ = ("busy_s", "core", "due_s", "group", "job", "jobs", "kept_s", "lag_s", "left_s", "slowdown", "stays", "virtual_s", "waking")

    def __init__(self, group: Group, slowdown: float = 1.0) -> None:
        self.group = group
        self.slowdown = slowdown
        self.jobs: deque[Job] = deque()
        self.job: Job | None = None  # under way, or just ending
        self.core = 0  # on which it runs, or ran last
        self.left_s = 0.0
        self.busy_s = 0.0
        self.virtual_s = 0.0  # processor time on its core, compared with that of the core's other threads
        self.due_s = 0.0  # virtual time at which it should have had its slice
        self.kept_s = 0.0  # virtual time up to which its turn lasts
        self.lag_s = 0.0  # what its core owed it when it fell asleep
        self.stays = False  # on its core though it sleeps
        self.waking = False  # with its core


class _Core:
    """A core: the threads on it, which have a job or have had too much, and the one that runs."""

    __slots__ = ("current", "load", "slice_s", "speed", "threads")

    def __init__(self, slice_s: float) -> None:
        self.threads: list[Thread] = []
        self.current: Thread | None = None
        self.slice_s = slice_s
        self.speed = 0.0  # work that is done per second
        self.load = 0.0  # threads with work here, of late

    @property
    def waiting(self) -> int:
        """Return how many threads have work here, the running one included."""
        return sum(thread.job is not None for thread in self.threads)

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
        mean_s = _mean_s(ready) + _NOTHING_S
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


class Processor:
    """C cores and the threads that share them."""

    def __init__(self, engine: Engine, cores: float, *, wake_s: float = 0.0) -> None:
        """`cores` may be a fraction: what other work of the machine leaves, which takes cores that idle first.

        Raises:
            ValueError: no cores.
        """
        if not cores > 0.0:
            raise ValueError(f"a processor has a positive number of cores, not {cores}")
        self._engine = engine
        self.cores = cores
        self._wake_s = wake_s
        count = max(1, ceil(cores))
        self._cores = [_Core(_SLICE_S * (1.0 + int(log2(min(count, 8))))) for _ in range(count)]
        self._share = 1.0  # of each core that runs a thread, that it has
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
        if not thread.stays:
            thread.core = self._place(thread.core)
        core = self._cores[thread.core]
        over = core.turn_is_over(self._since_tick_s())
        idle = core.waiting == 0
        if thread.stays:
            core.wake(thread)
        else:
            core.enter(thread)
        _begin_next(thread)
        if over:
            core.turn()
        elif core.next() is thread:
            core.give(thread)
        if idle and self._wake_s > 0.0:
            thread.waking = True
            self._engine.call_later(self._wake_s, self._awake, thread)
        self._plan()

    def _place(self, last: int) -> int:
        """Return the core for a thread that wakes: an idle one, its last one first; else the one that has been less busy of late."""
        idle = [number for number, core in enumerate(self._cores) if not core.waiting]
        if idle:
            return last if last in idle else idle[0]
        least = min(range(len(self._cores)), key=lambda number: self._cores[number].load)
        return least if self._cores[least].load < self._cores[last].load else last

    def _awake(self, thread: Thread) -> None:
        self._catch_up()
        thread.waking = False
        self._plan()

    def _since_tick_s(self) -> float:
        return (self._engine.now_s - self._ticks() * TICK_S) * self._share

    def _catch_up(self) -> None:
        """Do the work since the last change."""
        now_s = self._engine.now_s
        passed_s, self._since_s = now_s - self._since_s, now_s
        if passed_s <= 0.0:
            return
        used_s, remembered = self._share * passed_s, 0.5 ** (passed_s / _HALF_LIFE_S)
        for core in self._cores:
            waiting = core.waiting
            core.load = waiting + (core.load - waiting) * remembered
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
        running: list[tuple[_Core, Thread, Job]] = []
        for core in self._cores:
            if core.current is None or core.current.group.throttled:
                core.turn()
            core.speed = 0.0
            if core.current is not None and core.current.job is not None and not core.current.waking:
                running.append((core, core.current, core.current.job))
        self._share = min(1.0, self.cores / max(1, len(running)))
        others = (len(running) - 1) / max(1, len(self._cores) - 1)
        for core, thread, job in running:
            slowdown = thread.slowdown if job.slowdown is None else job.slowdown
            core.speed = self._share / (1.0 + others * (slowdown - 1.0))
            next_s = min(next_s, max(0.0, thread.left_s) / core.speed)
        next_s = min(next_s, self._quotas_end_s())
        if next_s < inf:
            self._engine.call_later(next_s, self._change, self._serial)

    def _take_turns(self) -> float:
        """At a tick end turns that are over, and move threads; return when that is due again."""
        tick = self._ticks()
        if tick > self._tick and self._waiting:
            self._balance(tick)
            for core in self._cores:
                if core.turn_is_over(0.0):
                    core.turn()
        self._tick = tick
        self._waiting = any(len(core.threads) > 1 for core in self._cores)
        return (tick + 1) * TICK_S - self._engine.now_s if self._waiting else inf

    def _ticks(self) -> int:
        return int(self._engine.now_s / TICK_S + 1e-6)

    def _balance(self, tick: int) -> None:
        """Move threads that wait to cores that have two less than theirs; now and then to those that have one less."""
        swap = tick // _SWAP_TICKS > self._tick // _SWAP_TICKS
        while True:
            most = max(self._cores, key=lambda core: core.waiting)
            least = min(self._cores, key=lambda core: core.waiting)
            if most.waiting - least.waiting < (1 if swap and most.waiting > 1 else 2):
                return
            swap = False
            thread = next(each for each in most.threads if each.job is not None and each is not most.current)
            most.leave(thread)
            thread.core = self._cores.index(least)
            least.enter(thread)

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
                if group.throttled:
                    self._let_go_on(group)

    def _let_go_on(self, group: Group) -> None:
        """Let a group's threads go on that waited for their quota, owed nothing."""
        for core in self._cores:
            back = [thread for thread in core.threads if thread.group is group]
            for thread in back:
                core.leave(thread)
                thread.lag_s = 0.0
            for thread in back:
                core.enter(thread)
        group.throttled = False

    def _change(self, serial: int) -> None:
        """A job is done, or a quota: tell whom it concerns, go on with the next."""
        if serial != self._serial:
            return
        self._catch_up()
        ended = [
            core.current
            for core in self._cores
            if core.current is not None and core.current.job is not None and core.speed > 0.0 and core.current.left_s <= _NOTHING_S
        ]
        self._changing = True
        for thread in ended:
            assert thread.job is not None
            thread.job.then(*thread.job.args)
        self._changing = False
        for thread in ended:
            if thread.jobs:
                _begin_next(thread)
                continue
            thread.job = None
            core = self._cores[thread.core]
            core.turn_is_over(self._since_tick_s())
            core.fall_asleep(thread)
            core.turn()
        self._plan()


def _begin_next(thread: Thread) -> None:
    """Let a thread begin its next job."""
    thread.job = thread.jobs.popleft()
    thread.left_s = thread.job.work_s


def _mean_s(threads: Sequence[Thread]) -> float:
    """Return the mean of threads' virtual times: one that is further has had more than its share."""
    return sum(thread.virtual_s for thread in threads) / len(threads) if threads else 0.0
