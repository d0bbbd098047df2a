"""Flows as events: messages that share links max-min fairly, recomputed whenever one comes or goes.

Time in seconds, sizes in bytes, rates in bytes per second. Latency is the caller's: a flow here is transmission alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from simulator.arrays import FloatArray, IntArray
from simulator.network.fairshare import affected_flows, max_min_rates

Callback = Callable[..., None]
LONGEST_PATH = 8
SAME_MOMENT = 1e-12


class Engine(Protocol):
    """What flows need of a discrete-event engine."""

    @property
    def now_s(self) -> float:
        """Return the simulated time."""
        ...

    def call_later(self, delay_s: float, callback: Callback, *args: Any) -> None:
        """Call `callback(*args)` after `delay_s` seconds of simulated time."""
        ...


class FlowNetwork:
    """A set of links and the flows on them.

    All comings and goings of one instant are settled together, by one recomputation after the instant's other events
    (a fan-out to 30 servers is one). Only flows in the same component as a changed link are touched. Flows that end at
    the same instant report in the order in which they started.
    """

    def __init__(self, engine: Engine, capacity_bytes_per_s: FloatArray) -> None:
        self._engine = engine
        self._capacity = np.asarray(capacity_bytes_per_s, dtype=np.float64)
        self._links = len(self._capacity)
        self._paths: IntArray = np.full((0, LONGEST_PATH), self._links, dtype=np.int64)
        self._left_bytes = np.zeros(0)
        self._rate = np.zeros(0)
        self._since_s = np.zeros(0)  # when `_left_bytes` was true
        self._end_s = np.zeros(0)  # infinite in an unused slot
        self._serial: IntArray = np.zeros(0, dtype=np.int64)
        self._on_done: list[tuple[Callback, tuple[Any, ...]] | None] = []
        self._free: list[int] = []
        self._started = 0
        self._changed: list[int] = []
        self._settling = False
        self._wake_up = 0  # number of the only wake-up that counts
        self.carried_bytes: FloatArray = np.zeros(self._links)
        self.settlements = 0

    @property
    def flows(self) -> int:
        """Return how many flows are under way."""
        return len(self._on_done) - len(self._free)

    def start(self, size_bytes: float, path: Sequence[int], on_done: Callback, *args: Any) -> None:
        """Start a flow over the links `path`; `on_done(*args)` is called when its last byte has passed.

        Raises:
            ValueError: the path has more than eight links.
        """
        if len(path) == 0 or size_bytes <= 0.0:
            self._engine.call_later(0.0, on_done, *args)
            return
        if len(path) > LONGEST_PATH:
            raise ValueError(f"a path of {len(path)} links; the longest is {LONGEST_PATH}")
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._paths[slot, : len(path)] = path
        self._left_bytes[slot] = size_bytes
        self._rate[slot] = 0.0
        self._since_s[slot] = self._engine.now_s
        self._serial[slot] = self._started
        self._on_done[slot] = (on_done, args)
        self._started += 1
        self._mark(path)
        for link in path:
            self.carried_bytes[link] += size_bytes

    def _grow(self) -> None:
        """Double the number of slots."""
        old = len(self._on_done)
        more = max(64, old)
        self._paths = np.vstack((self._paths, np.full((more, LONGEST_PATH), self._links, dtype=np.int64)))
        self._left_bytes, self._rate, self._since_s = (
            np.concatenate((values, np.zeros(more))) for values in (self._left_bytes, self._rate, self._since_s)
        )
        self._end_s = np.concatenate((self._end_s, np.full(more, np.inf)))
        self._serial = np.concatenate((self._serial, np.zeros(more, dtype=np.int64)))
        self._on_done.extend([None] * more)
        self._free.extend(range(old + more - 1, old - 1, -1))

    def _mark(self, path: Sequence[int]) -> None:
        """Note changed links; settle them at the end of this instant."""
        self._changed.extend(path)
        if not self._settling:
            self._settling = True
            self._engine.call_later(0.0, self._settle)

    def _settle(self) -> None:
        """Recompute the rates around the changed links, and sleep until the next flow ends."""
        self._settling = False
        self.settlements += 1
        now_s = self._engine.now_s
        changed = np.array(self._changed, dtype=np.int64)
        self._changed.clear()
        rows = affected_flows(self._paths, self._links, changed)
        if len(rows):
            self._left_bytes[rows] -= self._rate[rows] * (now_s - self._since_s[rows])
            self._since_s[rows] = now_s
            rates = max_min_rates(self._paths[rows], self._capacity)
            self._rate[rows] = rates
            self._end_s[rows] = now_s + np.maximum(self._left_bytes[rows], 0.0) / rates
        self._sleep()

    def _sleep(self) -> None:
        """Ask to be woken at the earliest end; every earlier wake-up is void."""
        self._wake_up += 1
        if self.flows:
            now_s = self._engine.now_s
            self._engine.call_later(max(0.0, float(self._end_s.min()) - now_s), self._wake, self._wake_up)

    def _wake(self, number: int) -> None:
        """End the flows whose time has come."""
        if number != self._wake_up:
            return
        now_s = self._engine.now_s
        ended = np.nonzero(self._end_s <= now_s + SAME_MOMENT * max(1.0, now_s))[0]
        ended = ended[np.argsort(self._serial[ended])]
        calls: list[tuple[Callback, tuple[Any, ...]]] = []
        for slot in ended.tolist():
            row = self._paths[slot]
            self._mark(row[row < self._links].tolist())
            done = self._on_done[slot]
            if done is not None:
                calls.append(done)
            self._on_done[slot] = None
            self._end_s[slot] = np.inf
            row[:] = self._links
            self._free.append(slot)
        if not calls:
            self._sleep()
        for callback, args in calls:
            callback(*args)
