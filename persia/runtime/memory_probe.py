"""How fast the machine's memory is at a moment: what reading at random from a few megabytes takes, again and again, meanwhile.

On a machine that others share, the time of one and the same batch changes with that of these reads: they left less of it
unexplained than plain arithmetic, matrix products, copies, page faults or pipes did, and all together hardly less.  Each look
reads other places than the looks before it, out of caches as the other threads have left them, since that is how a batch's stages
find them.  Reads are timed by the thread's processor clock, so that waiting for a core does not count.
"""

from __future__ import annotations

import threading
import time
from itertools import cycle
from statistics import geometric_mean

import numpy as np

from persia.embedding.reads import read_at

_VALUES = 1 << 21  # float32: 8 MiB, more than a core's own cache holds
_READS = 10_000  # a look
_LOOKS = 16  # until places come again
_EVERY_S = 0.015


class MemoryProbe:
    """Reads from memory in a thread of its own while the block runs, about one hundredth of a core's time; a context manager."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._values = generator.random(_VALUES, dtype=np.float32)
        self._places = generator.integers(0, _VALUES, (_LOOKS, _READS))
        self._taken: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory", daemon=True)

    def __enter__(self) -> MemoryProbe:
        read_at(self._values, self._places[0])
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        for places in cycle(self._places):
            if self._over.wait(_EVERY_S):
                return
            began_s = time.thread_time()
            read_at(self._values, places)
            self._taken.append((time.time(), time.thread_time() - began_s))

    def mean_s(self, start_s: float, end_s: float) -> float:
        """Return the geometric mean of the seconds that the reads took between two times since the epoch.

        Raises:
            ValueError: nothing was read in between.
        """
        taken_s = [each_s for at_s, each_s in self._taken if start_s <= at_s <= end_s]
        if not taken_s:
            raise ValueError("nothing was read from memory in that time")
        return geometric_mean(taken_s)
