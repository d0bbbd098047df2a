"""Keeping the memory of one batch for the next.

A training step takes and frees some tens of MiB. By default glibc gives freed memory of that size back to the system and asks
for it again a moment later; every page is then faulted in and zeroed anew, which is up to a tenth of a step's time.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to 1 GiB of freed memory in this process; return False where it cannot be told.

    For a process that trains, once, before its first batch. Its resident memory stays at its peak.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False  # not glibc: nothing to tell
    return bool(mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)) and bool(mallopt(_MMAP_THRESHOLD, _KEPT_BYTES))
