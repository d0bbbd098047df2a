"""Which updates a server's tables hold: a growing file of batch numbers beside the tables, read again after a restart."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from persia.schedule.memory import Done

_BYTES = 8


class AppliedLog:
    """Batch numbers, appended one by one; a kill leaves it whole, for an append is one write of 8 bytes."""

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def append(self, batch: int) -> None:
        """Note that the tables hold the batch's update."""
        os.write(self._file, batch.to_bytes(_BYTES, "little"))

    def batches(self) -> list[int]:
        """Return every batch in the order of its application."""
        size = os.fstat(self._file).st_size // _BYTES * _BYTES
        numbers: list[int] = np.frombuffer(os.pread(self._file, size, 0), "<i8").tolist()
        return numbers

    def done(self, world_size: int, first_step: int) -> Done:
        """Return what a schedule remembers of them."""
        done = Done(world_size, first_step)
        for batch in self.batches():
            if batch not in done:
                done.add(batch)
        return done

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
