"""Keeps one core as busy as the other roles of a run would: `python -m persia.runtime.neighbour PARENT`.

Products of matrices, random rows of an array larger than the caches, and copies take turns, until the parent is gone.
"""

from __future__ import annotations

import os
import sys
import time

import numpy as np

_TURN_S = 0.005


def main(parent: int) -> None:
    """Work for ever."""
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal((256, 256), dtype=np.float32) for _ in range(2))
    rows = generator.standard_normal((400_000, 32), dtype=np.float32)
    wanted = generator.integers(0, len(rows), 4096)
    source = np.zeros(1 << 20, np.uint8)
    turns = (lambda: left @ right, lambda: rows[wanted], source.copy)
    while os.getppid() == parent:
        for turn in turns:
            end_s = time.monotonic() + _TURN_S
            while time.monotonic() < end_s:
                turn()


if __name__ == "__main__":
    main(int(sys.argv[1]))
