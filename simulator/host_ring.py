"""The all-reduce of ranks that share a machine: a ring, piece by piece, on threads of its own.

In each of 2 (R - 1) hops a rank takes a part of the gradient that the rank before it has sent and sends one to the rank behind it
(Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69, 2009).  Where threads
wait for a core, the ring waits at every hop, for every rank: that, not the work, is what makes it long on a crowded machine.

As in gloo, which the runtime uses (its allreduce.cc), a hop is of two pieces, so that one is on its way while the other is added up;
a piece is sent when it is there and the one that takes it has said that it is ready; one thread of a rank moves bytes and hears
who is ready, another one adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.core import Thread
from simulator.host_process import HostDriving, HostProcess

_PIECES = 2  # of a hop: under way at once
_MOVING, _HEARING = 0.55, 0.2  # of a piece's work, that are the thread's which moves bytes and hears who is ready: seen in traces

Done = Callable[[int, int, float], None]


class Ring:
    """Carries out the all-reduce of one step after another; a rank joins when its backward pass is done."""

    def __init__(self, host: HostDriving, ranks: Sequence[HostProcess], reduce_s: float, done: Done) -> None:
        """`reduce_s` is one rank's processor time in a step; `done(rank, batch, since_s)` is called when a rank has its sum."""
        self._host = host
        self._pieces = _PIECES * 2 * (len(ranks) - 1)
        self._piece_s = reduce_s / self._pieces
        self._done = done
        self._moving = [Thread(rank.main.group) for rank in ranks]
        self._adding = [Thread(rank.main.group) for rank in ranks]
        # Pieces of all steps so far: a rank may be in the next step before the rank behind it has ended this one.
        self._left = [0] * len(ranks)  # of the step that a rank is in
        self._unasked = [0] * len(ranks)  # pieces that are there for the rank behind; below 0 those it is ready for that are not
        self._joined: list[tuple[int, float]] = [(0, 0.0)] * len(ranks)  # batch, since when

    def join(self, rank: int, batch: int, since_s: float) -> None:
        """Let a rank take part with a batch that it trains since then."""
        self._joined[rank] = batch, since_s
        self._left[rank] = self._pieces
        self._host.run(self._adding[rank], 0.0, self._begin, rank)

    def _begin(self, rank: int) -> None:
        for _ in range(_PIECES):
            self._exchange(rank)

    def _exchange(self, rank: int) -> None:
        """Say that a rank is ready for the next piece, and that its own next one is there."""
        before = (rank - 1) % len(self._moving)
        self._host.run(self._moving[before], _HEARING * self._piece_s, self._hear, before)
        self._unasked[rank] += 1
        if self._unasked[rank] <= 0:
            self._send(rank)

    def _hear(self, rank: int) -> None:
        self._unasked[rank] -= 1
        if self._unasked[rank] >= 0:
            self._send(rank)

    def _send(self, rank: int) -> None:
        """Send a rank's next piece, which is there, to the rank behind, which is ready."""
        behind = (rank + 1) % len(self._moving)
        self._host.run(self._moving[behind], _MOVING * self._piece_s, self._moved, behind)

    def _moved(self, rank: int) -> None:
        self._host.run(self._adding[rank], (1.0 - _MOVING - _HEARING) * self._piece_s, self._added, rank)

    def _added(self, rank: int) -> None:
        self._left[rank] -= 1
        if self._left[rank] >= _PIECES:
            self._exchange(rank)
        elif not self._left[rank]:
            self._done(rank, *self._joined[rank])
