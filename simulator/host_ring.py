"""The all-reduce of ranks that share a machine: a ring, hop by hop, on threads of its own.

In each of 2 (R - 1) hops a rank takes the piece that the rank before it has sent and sends one to the rank behind it
(Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", JPDC 69, 2009).  Where threads
wait for a core, the ring waits at every hop, for every rank: that, not the work, is what makes it long on a crowded machine.
As in gloo, which the runtime uses, one thread of a rank moves bytes and another one adds them up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from simulator.core import Thread
from simulator.host_process import HostDriving, HostProcess

_MOVING = 0.75  # of a hop's work, that is the thread's which moves bytes: seen in a trace of the scheduler

Done = Callable[[int, int, float], None]


class Ring:
    """Carries out the all-reduce of one step after another; a rank joins when its backward pass is done."""

    def __init__(self, host: HostDriving, ranks: Sequence[HostProcess], reduce_s: float, done: Done) -> None:
        """`reduce_s` is one rank's processor time in a step; `done(rank, batch, since_s)` is called when a rank has its sum."""
        self._host = host
        self._hops = 2 * (len(ranks) - 1)
        self._hop_s = reduce_s / self._hops
        self._done = done
        self._moving = [Thread(rank.main.group) for rank in ranks]
        self._adding = [Thread(rank.main.group) for rank in ranks]
        # Counts of all steps so far: a rank may be in the next step before the rank behind it has ended this one.
        self._wanted = [0] * len(ranks)  # hops
        self._arrived = [0] * len(ranks)  # pieces
        self._taken = [0] * len(ranks)  # hops begun
        self._ended = [0] * len(ranks)  # hops
        self._joined: list[tuple[int, float]] = [(0, 0.0)] * len(ranks)  # batch, since when

    def join(self, rank: int, batch: int, since_s: float) -> None:
        """Let a rank take part with a batch that it trains since then."""
        self._joined[rank] = batch, since_s
        self._wanted[rank] += self._hops
        self._send(rank)
        self._take(rank)

    def _send(self, rank: int) -> None:
        behind = (rank + 1) % len(self._moving)
        self._arrived[behind] += 1
        self._take(behind)

    def _take(self, rank: int) -> None:
        """Begin a rank's next hop, if it takes part, its last hop is over and the piece is there."""
        if self._taken[rank] == self._ended[rank] < min(self._wanted[rank], self._arrived[rank]):
            self._taken[rank] += 1
            self._host.run(self._moving[rank], _MOVING * self._hop_s, self._moved, rank)

    def _moved(self, rank: int) -> None:
        self._host.run(self._adding[rank], (1.0 - _MOVING) * self._hop_s, self._added, rank)

    def _added(self, rank: int) -> None:
        self._ended[rank] += 1
        if self._ended[rank] % self._hops:
            self._send(rank)
            self._take(rank)
        else:
            self._done(rank, *self._joined[rank])
