"""What drives a schedule in a real process: messages and finished work become events, commands are carried out.

The driver decides nothing.  One thread owns schedule, log and sockets; work that takes long runs in other threads, which
hand their results to `Mailbox.post`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TextIO, TypeVar

from persia.runtime.transport import Kind, Mailbox, Message
from persia.schedule.log import FileLog, Schedule
from persia.schedule.messages import Command, Event, Timer

K = TypeVar("K", bound=Hashable)

Action = Callable[[Any], None]
Listener = Callable[[Message], None]

_LONGEST_WAIT_S = 0.5  # how often a role looks whether its parent still lives


class Clock:
    """Seconds since the run began: wall time at the start of the process, monotonic from there on."""

    __slots__ = ("_offset_s",)

    def __init__(self, began_at_s: float) -> None:
        """`began_at_s` is the run's beginning in seconds since the epoch, the same for all processes."""
        self._offset_s = time.time() - began_at_s - time.monotonic()

    def now_s(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() + self._offset_s

    def watch(self) -> Stopwatch:
        """Return a stopwatch that runs from now on, for this thread."""
        return Stopwatch(self)


class Stopwatch:
    """Takes the time of a piece of work, and the processor time that its thread uses for it."""

    __slots__ = ("_clock", "_cpu_s", "_start_s")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._start_s = clock.now_s()
        self._cpu_s = time.thread_time()

    def stop(self) -> Taken:
        """Return what the work has taken so far."""
        return Taken(self._start_s, self._clock.now_s(), time.thread_time() - self._cpu_s)


class Taken(NamedTuple):
    """When a piece of work began and ended, in seconds since the run began; the processor time that it used, if that is known."""

    start_s: float
    end_s: float
    cpu_s: float | None = None


class Deadlines(Generic[K]):
    """Requests that must be answered within one and the same time."""

    __slots__ = ("_due_s", "_queue", "_timeout_s")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._due_s: dict[K, float] = {}
        self._queue: deque[tuple[float, K]] = deque()

    def start(self, key: K, now_s: float) -> None:
        """Expect an answer from now on; a request that is repeated begins anew."""
        due_s = now_s + self._timeout_s
        self._due_s[key] = due_s
        self._queue.append((due_s, key))

    def stop(self, key: K) -> None:
        """The answer is here, or no longer wanted."""
        self._due_s.pop(key, None)

    def waiting(self) -> list[K]:
        """Return what is not answered yet, the oldest first."""
        return list(self._due_s)

    def expired(self, now_s: float) -> list[K]:
        """Return, once, what was not answered in time."""
        late: list[K] = []
        while self._queue and (self._queue[0][0] <= now_s or self._due_s.get(self._queue[0][1]) != self._queue[0][0]):
            due_s, key = self._queue.popleft()
            if self._due_s.get(key) == due_s:
                del self._due_s[key]
                late.append(key)
        return late

    def next_due_s(self) -> float | None:
        """Return when the oldest request is late, or None."""
        return self._queue[0][0] if self._queue else None


class Role(Protocol):
    """What a process does beside its schedule's decisions."""

    def actions(self) -> Mapping[type[Command], Action]:
        """Return what carries out each command."""
        ...

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return what hears each kind of message."""
        ...

    def posted(self, item: object) -> None:
        """Hear what one of this process's own threads has finished."""
        ...

    def tick(self, now_s: float) -> float | None:
        """Report what is late; return when to look again, or None."""
        ...


class Driver:
    """Feeds one schedule and carries out what it says, until `stop` is called or the parent process is gone."""

    def __init__(
        self, *, schedule: Schedule, role: str, index: int, log: FileLog, log_file: TextIO, mailbox: Mailbox, clock: Clock
    ) -> None:
        self.schedule = schedule
        self.mailbox = mailbox
        self.clock = clock
        self._role = role
        self._index = index
        self._log = log
        self._log_file = log_file
        self._actions: Mapping[type[Command], Action] = {}
        self._told: deque[tuple[Sequence[Event], Callable[[], None] | None]] = deque()
        self._telling = False
        self._running = True

    def tell(self, *events: Event, recorded: Callable[[], None] | None = None) -> None:
        """Tell the schedule what happened and carry out its commands; during a command, afterwards.

        The events enter the log together, and `recorded` runs when they are in the file, before any command.
        """
        self._told.append((events, recorded))
        if self._telling:
            return
        self._telling = True
        try:
            while self._told:
                self._handle(*self._told.popleft())
        finally:
            self._telling = False

    def _handle(self, events: Sequence[Event], recorded: Callable[[], None] | None) -> None:
        now_s = self.clock.now_s()
        commands: list[Command] = []
        if recorded is not None:
            self._log_file.flush()  # so that the events' lines leave in one piece
        for event in events:
            given = self.schedule.handle(event, now_s)
            self._log.record(now_s, self._role, self._index, event, given)
            commands += given
        if recorded is not None:
            self._log_file.flush()
            recorded()
        for command in commands:
            self._actions[type(command)](command)

    def stop(self) -> None:
        """End the loop after what is being handled."""
        self._running = False

    def run(self, role: Role, first: Event | None = None, *, parent: int | None = None) -> None:
        """Serve messages, finished work and timers until stopped, or until `parent` is gone; `first` is told before all else."""
        self._actions = role.actions()
        listeners = role.listeners()
        if first is not None:
            self.tell(first)
        while self._running and (parent is None or os.getppid() == parent):
            received = self.mailbox.receive(self._wait_s(role))
            if isinstance(received, Message):
                listener = listeners.get(received.kind)
                if listener is not None:
                    listener(received)
            elif received is not None:
                role.posted(received.item)
        self._log_file.flush()

    def _wait_s(self, role: Role) -> float:
        """Report what is due; return how long there is nothing to do but to wait for a message."""
        now_s = self.clock.now_s()
        due_s = self.schedule.next_timer_s()
        if due_s is not None and due_s <= now_s:
            self.tell(Timer())
            due_s = self.schedule.next_timer_s()
        late_s = role.tick(now_s)
        waits = [due - now_s for due in (due_s, late_s) if due is not None]
        return max(0.0, min([_LONGEST_WAIT_S, *waits]))
