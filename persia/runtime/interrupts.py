"""Ctrl-C and SIGTERM: noted at once, raised where nothing is half done, and then not heard any more."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While the block runs, an interrupt is only noted: `check` raises it; the tidying-up that follows is not interrupted.

    A signal that this process ignores is left alone (`nohup`), and off the main thread nothing is done.  A process that
    ends when it is interrupted (`ends_process`) does not hear any more signals after the block either.
    """

    def __init__(self, *, ends_process: bool = False) -> None:
        self._ends_process = ends_process
        self._noted = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                try:
                    self._before[number] = signal.signal(number, self._note)
                except ValueError:  # not the main thread, which is the only one that signals reach
                    break
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_IGN if self._noted and self._ends_process else before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = True

    def check(self) -> None:
        """Raise KeyboardInterrupt if there was an interrupt."""
        if self._noted:
            raise KeyboardInterrupt
