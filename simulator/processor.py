"""A machine's processor, shared by all threads that want to run: what a host with fewer cores than runnable threads is.

Each thread does its jobs one after another.  Cores run threads as Linux's fair scheduler does (EEVDF: Stoica and Abdel-Wahab,
"Earliest eligible virtual deadline first", 1995; in Linux since 6.6): in the long run the threads of a core share it equally,
which is processor sharing (Kleinrock, "Time-shared systems: a theoretical treatment", JACM 14, 1967), but at one moment a core
runs one.  A thread is eligible unless it has had more than its share, and due a slice after it became so; of the eligible ones
that which is due first has the next turn, of a slice at least.  Whether a turn is over shows when a thread wakes or falls
asleep, or at a tick of the scheduler's clock.  A thread keeps what its core owed it while it sleeps, so that it goes first when
it wakes; one that fell asleep having had more than its share stays on its core until the others have caught up (delayed
dequeue, since 6.12), even where another core idles.

A thread that wakes goes on where it ran last, even where another core idles, but for a share of wakes, `moves_on_wake`: those go
to an idle core.  On a virtual machine that share is small, since a core that has halted is one that its host may have taken away
(`available_idle_cpu`).  For the same reason it may go to the core on which the thread runs that wakes it, from its own that idles,
too: where that core is less loaded, counted with the load that the thread brings (`wake_affine_weight`; a load is the part of the
time, of late, in which there was work), and either nothing else runs there or neither of the two wakes many others (`wake_wide`:
so a thread that serves many does not gather them).  A core that
falls idle takes a thread that waits at another now and then (since 6.18 as often as it has paid of late); one that idles looks
every few ticks, a busy one more seldom.  A thread that has run just now is not moved.  So machines idle while threads
wait (Lozi et al., "The Linux scheduler: a decade of wasted cores", EuroSys 2016).

An idle core takes `wake_s` to wake, which is dear on a virtual machine: a halted core must be entered again.  A job's work is
given in seconds on a core whose neighbours idle; while other cores are busy it takes longer, by its slowdown.

A group of threads may have a quota, as a control group of Linux has: in every period of `PERIOD_S` it gets so many
core-seconds, and when they are used up its threads wait for the next period (Turner, Rao and Rao, "CPU bandwidth control
for CFS", 2010).

Times in seconds.
"""

from __future__ import annotations

from math import ceil, inf, log2

from simulator.core import HALF_LIFE_S, NOTHING_S, PERIOD_S, TICK_S, Core, Group, Job, Thread
from simulator.engine import Engine

_SLICE_S = 0.0007  # of one core; of several it is longer
_IMBALANCE = 1.08  # a core's load counts so much more where a thread might leave it
_TAKES = 0.25  # of cores that fall idle while a thread waits at another that may be moved: take it
_IDLE_TICKS = 3  # between looks of an idle core for threads that wait at others
_BUSY_TICKS = 16  # between looks of a busy core
_SWAP_TICKS = 32  # between cores that are both busy, one with a thread more than the other
_HALVED_S = 1.0  # between halvings of how many other threads one has woken


class Processor:
    """C cores and the threads that share them."""

    def __init__(self, engine: Engine, cores: float, *, wake_s: float = 0.0, moves_on_wake: float = 1.0) -> None:
        """`cores` may be a fraction: what other work of the machine leaves, which takes cores that idle first.

        Of wakes the share `moves_on_wake`, 0..1, finds an idle core that may be used, the thread's last one or another.

        Raises:
            ValueError: no cores.
        """
        if not cores > 0.0:
            raise ValueError(f"a processor has a positive number of cores, not {cores}")
        self._engine = engine
        self.cores = cores
        self._wake_s = wake_s
        self._moves_on_wake = moves_on_wake
        self._to_move = self._to_take = 0.0  # wakes and chances so far, of which whole ones are due
        count = max(1, ceil(cores))
        self._cores = [Core(_SLICE_S * (1.0 + int(log2(min(count, 8))))) for _ in range(count)]
        self._share = 1.0  # of each core that runs a thread, that it has
        self._others = 0.0  # which part of the other cores runs a thread beside one
        self._since_s = 0.0
        self._serial = 0  # of the planned event that counts; older ones are void
        self._changing = False  # jobs that have ended are being told
        self._waker: Thread | None = None  # whose job has ended and leads to more
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
            self._note_wake(thread)
            self._settle(thread, self._place(thread))
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

    def _place(self, thread: Thread) -> int:
        """Return the core for a thread that wakes."""
        last, waker = thread.core, self._waker
        new, idles = thread.ran_s == -inf, not self._cores[last].waiting
        idle = [number for number, core in enumerate(self._cores) if not core.waiting] if new or not idles else []
        if new:
            return idle[0] if idle else min(range(len(self._cores)), key=lambda number: self._cores[number].load)
        if idle:
            self._to_move += self._moves_on_wake
            if self._to_move >= 1.0:
                self._to_move -= 1.0
                return idle[0]
        elif waker is not None and waker.core != last and self._joins(thread, waker):
            return waker.core
        return last

    def _joins(self, thread: Thread, waker: Thread) -> bool:
        """Return whether a thread that wakes goes to its waker's core: the less loaded one, as it will be (`wake_affine_weight`)."""
        here, there = self._cores[waker.core], self._cores[thread.core]
        if here.load + thread.load >= _IMBALANCE * (there.load - thread.load):
            return False
        fewer, more = sorted((thread.wakes, waker.wakes))
        cores = len(self._cores)
        return here.waiting == 1 or fewer < cores or more < cores * fewer

    def _note_wake(self, thread: Thread) -> None:
        """Count how many different threads one wakes, and let a thread's load have faded while it slept."""
        thread.load *= 0.5 ** ((self._engine.now_s - thread.ran_s) / HALF_LIFE_S)
        waker = self._waker
        if waker is None:
            return
        if self._engine.now_s > waker.halved_s + _HALVED_S:
            waker.wakes >>= 1
            waker.halved_s = self._engine.now_s
        if waker.wakee is not thread:
            waker.wakee = thread
            waker.wakes += 1

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
        used_s, remembered = self._share * passed_s, 0.5 ** (passed_s / HALF_LIFE_S)
        for core in self._cores:
            core.remember(remembered)
            thread = core.current
            if thread is not None and core.speed > 0.0:
                thread.left_s -= core.speed * passed_s
                thread.busy_s += used_s
                thread.beside_s += used_s * self._others
                thread.ran_s = now_s
                thread.virtual_s += used_s
                thread.group.left_s -= used_s
        for group in self._groups:
            group.throttled = group.left_s <= NOTHING_S

    def _plan(self) -> None:
        """Choose what runs on each core and plan the next change."""
        if self._changing:
            return
        self._serial += 1
        self._renew_quotas()
        next_s, running = self._take_turns(), list[tuple[Core, Thread, Job]]()
        for core in self._cores:
            if core.current is None or core.current.group.throttled:
                core.turn()
            core.speed = 0.0
            if core.current is not None and core.current.job is not None and not core.current.waking:
                running.append((core, core.current, core.current.job))
        self._share = min(1.0, self.cores / max(1, len(running)))
        self._others = (len(running) - 1) / max(1, len(self._cores) - 1)
        for core, thread, job in running:
            slowdown = thread.slowdown if job.slowdown is None else job.slowdown
            core.speed = self._share / (1.0 + self._others * (slowdown - 1.0))
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
        """Let idle cores take a thread from those where one waits, and now and then busy ones from those that have two more."""
        idle, busy, swap = (tick // ticks > self._tick // ticks for ticks in (_IDLE_TICKS, _BUSY_TICKS, _SWAP_TICKS))
        while True:
            most = max(self._cores, key=lambda core: core.waiting)
            least = min(self._cores, key=lambda core: core.waiting)
            more = most.waiting - least.waiting
            if more < (1 if swap and most.waiting > 1 else 2) or not (busy if least.waiting else idle):
                return
            swap = False
            thread = most.movable(self._engine.now_s)
            if thread is None:
                return
            self._move(thread, most, least)

    def _take(self, core: Core) -> None:
        """Let a core that falls idle take a thread that waits at another."""
        for other in self._cores:
            thread = other.movable(self._engine.now_s) if other.waiting > 1 else None
            if thread is not None:
                self._to_take += _TAKES
                if self._to_take >= 1.0:
                    self._to_take -= 1.0
                    self._move(thread, other, core)
                return

    def _move(self, thread: Thread, source: Core, target: Core) -> None:
        source.leave(thread)
        self._settle(thread, self._cores.index(target))
        target.enter(thread)

    def _settle(self, thread: Thread, core: int) -> None:
        """Let a thread be of a core from now on, and its load with it."""
        self._cores[thread.core].load -= thread.load
        thread.core = core
        self._cores[core].load += thread.load

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
            if core.current is not None and core.current.job is not None and core.speed > 0.0 and core.current.left_s <= NOTHING_S
        ]
        self._changing = True
        for thread in ended:
            assert thread.job is not None
            self._waker = thread
            thread.job.then(*thread.job.args)
        self._waker = None
        self._changing = False
        for thread in ended:
            if thread.jobs:
                _begin_next(thread)
                continue
            thread.job = None
            core = self._cores[thread.core]
            core.turn_is_over(self._since_tick_s())
            core.fall_asleep(thread)
            if not core.waiting:
                self._take(core)
            core.turn()
        self._plan()


def _begin_next(thread: Thread) -> None:
    """Let a thread begin its next job."""
    thread.job = thread.jobs.popleft()
    thread.left_s = thread.job.work_s
