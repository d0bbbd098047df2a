"""Emulated accelerators on a shared machine: ranks that meet and wait, as `persia/runtime/emulation.py` does it.

Each rank tells rank 0 when it began; rank 0 tells all when the last one did; the step ends for all at one and the same
time after that, or when a rank hears of it, whichever is later.  Messages are real work; waiting is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.host_process import HostDriving, HostProcess

Done = Callable[[int, int, float], None]


class EmulatedRanks:
    """Carries out TrainDense for ranks whose dense part is a wait of `step_s` seconds behind the step's last beginning."""

    def __init__(self, host: HostDriving, ranks: Sequence[HostProcess], step_s: float, *, meets: bool, done: Done) -> None:
        """`done(rank, batch, began_s)` is called on the rank's own thread when a batch is trained; `meets` is false in mode async."""
        self._host = host
        self._ranks = ranks
        self._step_s = step_s
        self._meets = meets and len(ranks) > 1
        self._done = done
        self._joined: list[tuple[int, int, float]] = []  # rank, batch, when it began

    def begin(self, index: int, batch: int, now_s: float) -> None:
        """Begin the dense part of a batch, as a part of what the rank is carrying out."""
        joined = (index, batch, now_s)
        if not self._meets:
            self._wait(joined, now_s)
        elif index == 0:
            self._join(joined)
        else:
            message_s = self._host.costs.meeting_message_s
            self._host.send(self._ranks[index], self._ranks[0], 0.0, message_s, message_s, self._join, joined)

    def _join(self, joined: tuple[int, int, float]) -> None:
        """Rank 0 counts; with the last one it tells all when that one began."""
        self._joined.append(joined)
        if len(self._joined) < len(self._ranks):
            return
        everyone, self._joined = self._joined, []
        last_s = max(began_s for _, _, began_s in everyone)
        message_s = self._host.costs.meeting_message_s
        for each in everyone:
            if each[0] == 0:
                self._wait(each, last_s)
            else:
                self._host.send_next(self._ranks[0], self._ranks[each[0]], 0.0, message_s, message_s, self._wait, each, last_s)

    def _wait(self, joined: tuple[int, int, float], last_s: float) -> None:
        index, batch, began_s = joined
        left_s = max(0.0, last_s + self._step_s - self._host.now_s)
        self._host.call_later(left_s, self._host.report, self._ranks[index], self._done, (index, batch, began_s))
