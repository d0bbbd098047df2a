"""Work on many items in as many processes as there are cores: simulations, each of which is one core's work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def parallel_map(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    """Yield what a function of a module makes of each item, in order, as soon as it is known; what it raises is raised.

    Once the iterator is closed nothing more is begun.  An interrupt is for this process: the others do not hear it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1  # signals are kept from workers as Linux can
    workers = min(len(items), cores)
    if workers < 2:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            results = pool.map(function, items)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        try:
            yield from results
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Let this process end with its parent, even if that is killed; it does not hear Ctrl-C, which all processes of a terminal get."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
