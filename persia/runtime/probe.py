"""How fast a machine is at a moment: what a little work takes, again and again, meanwhile.

On a machine that others share, the time of one and the same batch changes within seconds, and by two things that hardly follow one
another: how fast the memory is, and how much of its cores' other threads, which belong to somebody else, leave them.  So each look
reads at random from a few megabytes, other places than the looks before it, out of caches as the other threads have left them; and
it passes some messages to itself, which takes system calls, pages of memory and copies within a core's own caches, as a batch's
stages do.  On one kind of machine it is the former that tells of batches and on another the latter: a calibration finds out.  Both
are timed by the thread's processor clock, so that waiting for a core does not count.
"""

from __future__ import annotations

import os
import threading
import time
from itertools import cycle
from types import TracebackType

import numpy as np

from persia.embedding.reads import read_at
from persia.readings import Readings, mean_readings

_VALUES = 1 << 21  # float32: 8 MiB, more than a core's own cache holds
_READS = 10_000  # a look
_LOOKS = 16  # until places come again
_MESSAGES, _MESSAGE = 6, bytes(40_000)  # a look; a pipe holds one at a time
_EVERY_S = 0.015


class Probe:
    """Looks in a thread of its own while the block runs, about one hundredth of a core's time; a context manager."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._values = generator.random(_VALUES, dtype=np.float32)
        self._places = generator.integers(0, _VALUES, (_LOOKS, _READS))
        self._taken: list[tuple[float, Readings]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="probe", daemon=True)

    def __enter__(self) -> Probe:
        read_at(self._values, self._places[0])
        self._out, self._into = os.pipe()
        os.set_blocking(self._into, False)  # a pipe may hold less than a message: then it takes a part
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        for end in (self._out, self._into):
            os.close(end)

    def _look(self) -> None:
        for places in cycle(self._places):
            if self._over.wait(_EVERY_S):
                return
            began_s = time.thread_time()
            read_at(self._values, places)
            read_s = time.thread_time()
            for _ in range(_MESSAGES):
                os.read(self._out, os.write(self._into, _MESSAGE))
            self._taken.append((time.time(), Readings(read_s - began_s, time.thread_time() - read_s)))

    def mean(self, start_s: float, end_s: float) -> Readings:
        """Return the geometric means of what looks took between two times since the epoch.

        Raises:
            ValueError: there was no look in between.
        """
        taken = [(each, 1.0) for at_s, each in self._taken if start_s <= at_s <= end_s]
        if not taken:
            raise ValueError("nothing was read of the machine in that time")
        return mean_readings(taken)
