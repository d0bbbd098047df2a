"""The event engines: simpy, and a bare heapq behind the same thin interface.

Both keep the same order: by time, ties by the serial number of the call, and nothing else; both compute the due time as
now + delay, so that one seed gives one digest on either.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

import simpy
from simpy.events import NORMAL

Callback = Callable[..., None]


class Engine(Protocol):
    """What the physics needs of a discrete-event engine: the time, and calls in the future."""

    @property
    def now_s(self) -> float:
        """Return the simulated time in seconds."""
        ...

    def call_later(self, delay_s: float, callback: Callback, *args: Any) -> None:
        """Call `callback(*args)` after `delay_s` >= 0 seconds of simulated time."""
        ...

    def run(self) -> int:
        """Run until `stop` is called or nothing is left to do; return how many events have run."""
        ...

    def stop(self) -> None:
        """Let `run` return after the present event."""
        ...


class HeapEngine:
    """The bare engine: a heap of (time, serial, callback, arguments)."""

    __slots__ = ("_heap", "_running", "_serial", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callback, tuple[Any, ...]]] = []
        self._serial = count()
        self._running = False

    def call_later(self, delay_s: float, callback: Callback, *args: Any) -> None:
        """Call `callback(*args)` after `delay_s` >= 0 seconds of simulated time."""
        if delay_s < 0.0:
            raise ValueError(f"a call in the past: {delay_s} s")
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._serial), callback, args))

    def run(self) -> int:
        """Run until `stop` is called or nothing is left to do; return how many events have run."""
        heap, pop = self._heap, heapq.heappop
        self._running = True
        events = 0
        while heap and self._running:
            self.now_s, _, callback, args = pop(heap)
            callback(*args)
            events += 1
        return events

    def stop(self) -> None:
        """Let `run` return after the present event."""
        self._running = False


class _Call(simpy.Event):
    """An event that is triggered when it is made, as simpy's own Timeout is, and calls one function at `due_s`."""

    def __init__(
        self,
        environment: simpy.Environment,
        callbacks: list[Callable[[simpy.Event], None]],
        due_s: float,
        callback: Callback,
        args: tuple[Any, ...],
    ) -> None:
        self.env = environment
        self.callbacks = callbacks
        self._ok = True
        self.due_s = due_s
        self.callback = callback
        self.args = args


class SimpyEngine:
    """The same on simpy: one event per call; all share one list of callbacks, which simpy only reads."""

    __slots__ = ("_callbacks", "_environment", "_running", "_schedule", "now_s")

    def __init__(self) -> None:
        self._environment = simpy.Environment()
        self._schedule = self._environment.schedule
        self._callbacks: list[Callable[[Any], None]] = [self._fire]
        self._running = False
        self.now_s = 0.0

    def call_later(self, delay_s: float, callback: Callback, *args: Any) -> None:
        """Call `callback(*args)` after `delay_s` >= 0 seconds of simulated time."""
        if delay_s < 0.0:
            raise ValueError(f"a call in the past: {delay_s} s")
        self._schedule(_Call(self._environment, self._callbacks, self.now_s + delay_s, callback, args), NORMAL, delay_s)

    def _fire(self, call: _Call) -> None:
        self.now_s = call.due_s  # the same sum that simpy makes
        call.callback(*call.args)

    def run(self) -> int:
        """Run until `stop` is called or nothing is left to do; return how many events have run."""
        self._running = True
        step = self._environment.step
        events = 0
        try:
            while self._running:
                step()
                events += 1
        except simpy.core.EmptySchedule:
            pass
        return events

    def stop(self) -> None:
        """Let `run` return after the present event."""
        self._running = False


def new_engine(name: str) -> Engine:
    """Return the engine called `name`, simpy or heapq.

    Raises:
        ValueError: there is no such engine.
    """
    match name:
        case "simpy":
            return SimpyEngine()
        case "heapq":
            return HeapEngine()
    raise ValueError(f"no engine {name!r}: simpy or heapq")
