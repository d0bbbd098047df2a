"""The fixed piece of work of the noise check, as a process of its own: for each line with a number, so many shots; prints their median.

A shot is integer work in the interpreter and a sort by numpy, about 20 ms on a core of 2023; no linear algebra, whose
library would start threads.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np

_ROUNDS = 60_000
_VALUES = 100_000


def shot(values: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> float:
    """Return the seconds that one piece of work takes."""
    began_s = time.perf_counter()
    state = 1
    for _ in range(_ROUNDS):
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
    np.sort(values)
    return time.perf_counter() - began_s


def main() -> None:
    """Answer every line until the input ends."""
    values = np.random.default_rng(1).integers(0, 2**63, size=_VALUES, dtype=np.uint64)
    for line in sys.stdin:
        sys.stdout.write(f"{statistics.median(shot(values) for _ in range(int(line)))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
