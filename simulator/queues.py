"""FIFO resources as busy-until vectors: a queue of any length without one event.

A first-come-first-served server with c cores is known completely by the c times at which its cores fall idle (Kiefer and
Wolfowitz, "On the theory of queues with many servers", 1955): a job that arrives at a starts at max(a, earliest idle time).
So `serve` answers at once when a job will end, and the caller schedules one event for it.

Order: jobs are served in the order of the calls. Callers call in event order; an arrival that lies a little before that of an
earlier call (two servers of one fan-out, two hops of different length) is served after it, but never starts before its own
arrival. That is exact for arrivals in order, and otherwise wrong by no more than the disorder itself.

Shapes: S servers (or links), C cores, N messages. Times in seconds, sizes in bytes, rates in bytes per second.
"""

from __future__ import annotations

import heapq

import numpy as np

from simulator.arrays import BoolArray, FloatArray


class Cores:
    """One FIFO server with `count` equal cores (G/G/c)."""

    __slots__ = ("_idle_from_s", "busy_s", "count", "jobs")

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"a server needs at least one core, not {count}")
        self.count = count
        self.jobs = 0
        self.busy_s = 0.0  # core-seconds given out
        self._idle_from_s = [0.0] * count  # a heap: the earliest idle core is first

    def serve(self, arrival_s: float, service_s: float) -> float:
        """Return when a job ends that arrives at `arrival_s` and holds one core for `service_s`."""
        earliest_s = self._idle_from_s[0]
        end_s = (arrival_s if arrival_s > earliest_s else earliest_s) + service_s
        heapq.heapreplace(self._idle_from_s, end_s)
        self.busy_s += service_s
        self.jobs += 1
        return end_s

    def idle_at_s(self) -> float:
        """Return the earliest time at which a core is idle: what a job that arrives now waits for."""
        return self._idle_from_s[0]


class CoresVector:
    """S equal FIFO servers of C cores each, served together: one job on every server per call.

    `idle_from_s` [C, S] holds when each core falls idle. Cores of a server are exchangeable, so all servers share one
    pointer p into the ring of C rows: in the common case row p, used C calls ago, is idle everywhere, and the call costs
    a few numpy operations on S elements. A server whose core p is busy takes its earliest idle core instead, and the two
    cores swap names; the multiset of idle times, which is all that matters, stays exact.
    """

    __slots__ = ("_idle_from_s", "_point", "_servers", "_shared_busy_s", "_vector_busy_s", "cores", "jobs", "servers")

    def __init__(self, servers: int, cores: int) -> None:
        if servers < 1 or cores < 1:
            raise ValueError(f"need at least one server and one core, not {servers} and {cores}")
        self.servers = servers
        self.cores = cores
        self.jobs = 0  # calls: each is one job per server
        self._idle_from_s = np.zeros((cores, servers))
        self._servers = np.arange(servers)
        self._point = 0
        self._shared_busy_s = 0.0
        self._vector_busy_s = np.zeros(servers)

    @property
    def busy_s(self) -> FloatArray:
        """Core-seconds given out on each server [S]."""
        busy_s: FloatArray = self._vector_busy_s + self._shared_busy_s
        return busy_s

    def serve(self, arrival_s: FloatArray, service_s: FloatArray | float) -> FloatArray:
        """Return when the job of each server ends [S], for arrivals [S] and service times [S] or one for all."""
        end_s = self.serve_uncounted(arrival_s, service_s)
        if isinstance(service_s, float):
            self._shared_busy_s += service_s
        else:
            self._vector_busy_s += service_s
        return end_s

    def serve_uncounted(self, arrival_s: FloatArray, service_s: FloatArray | float) -> FloatArray:
        """Do as `serve` for a caller that counts busy time itself: the hot path of a simulation."""
        point = self._point
        row = self._idle_from_s[point]
        idle = row <= arrival_s
        start_s = arrival_s if np.logical_and.reduce(idle) else self._start_where_busy(arrival_s, row, idle)
        end_s: FloatArray = start_s + service_s
        row[:] = end_s
        self._point = point + 1 if point + 1 < self.cores else 0
        self.jobs += 1
        return end_s

    def _start_where_busy(self, arrival_s: FloatArray, row: FloatArray, idle: BoolArray) -> FloatArray:
        """Return the start times [S]; give each server whose pointed core is busy its earliest idle core, by a swap of names."""
        busy = (~idle).nonzero()[0]
        if 4 * len(busy) > self.servers:  # a copy of so many columns would cost more than searching them all
            busy = self._servers
            earliest = self._idle_from_s.argmin(axis=0)
        else:
            earliest = self._idle_from_s[:, busy].argmin(axis=0)
        idle_from_s = self._idle_from_s[earliest, busy]
        self._idle_from_s[earliest, busy] = row[busy]
        start_s = arrival_s.copy()
        start_s[busy] = np.maximum(start_s[busy], idle_from_s)
        return start_s

    def serve_one(self, server: int, arrival_s: float, service_s: float) -> float:
        """Return when a job on one server ends (a retry, or a request that not every server gets)."""
        row = self._idle_from_s[:, server]
        earliest = int(row.argmin())
        end_s = max(arrival_s, float(row[earliest])) + service_s
        row[earliest] = end_s
        self._vector_busy_s[server] += service_s
        return end_s


class Link:
    """One direction of a NIC or a bus: messages pass one after another at `bytes_per_s`."""

    __slots__ = ("busy_until_s", "bytes_per_s", "bytes_sent")

    def __init__(self, bytes_per_s: float) -> None:
        if not bytes_per_s > 0:
            raise ValueError(f"a link needs a positive rate, not {bytes_per_s}")
        self.bytes_per_s = bytes_per_s
        self.busy_until_s = 0.0
        self.bytes_sent = 0.0

    @property
    def busy_s(self) -> float:
        """Seconds of transmission given out."""
        return self.bytes_sent / self.bytes_per_s

    def send(self, arrival_s: float, size_bytes: float) -> float:
        """Return when the last byte of a message has passed."""
        start_s = arrival_s if arrival_s > self.busy_until_s else self.busy_until_s
        self.busy_until_s = start_s + size_bytes / self.bytes_per_s
        self.bytes_sent += size_bytes
        return self.busy_until_s

    def book(self, now_s: float, arrival_s: float, size_bytes: float) -> float:
        """Return when a message that will arrive at `arrival_s` > now has passed; its time is taken from now on.

        What arrives in between finds the link's work, but not a gap of idle time that only the order of calls would make.
        """
        transmission_s = size_bytes / self.bytes_per_s
        busy_until_s = self.busy_until_s
        self.busy_until_s = (now_s if now_s > busy_until_s else busy_until_s) + transmission_s
        self.bytes_sent += size_bytes
        return (arrival_s if arrival_s > busy_until_s else busy_until_s) + transmission_s

    def fan_out(self, arrival_s: float, count: int, size_bytes: float) -> FloatArray:
        """Return when each of `count` equal messages [N], all ready at `arrival_s`, has passed, one behind the other."""
        start_s = arrival_s if arrival_s > self.busy_until_s else self.busy_until_s
        ends_s: FloatArray = np.arange(1.0, count + 1.0)
        ends_s *= size_bytes / self.bytes_per_s
        ends_s += start_s
        self.busy_until_s = float(ends_s[-1])
        self.bytes_sent += count * size_bytes
        return ends_s

    def fan_in(self, arrivals_s: FloatArray, size_bytes: float) -> float:
        """Return when the last of N equal messages with arrivals [N] (in any order) has passed, earliest first.

        Unrolled recurrence end_k = max(end_{k-1}, a_k) + t, with t seconds a message: the last end is
        max(busy + N t, max_k(a_(k) + (N - k) t)) over the sorted arrivals a_(0), a_(1), ...
        """
        count = len(arrivals_s)
        each_s = size_bytes / self.bytes_per_s
        behind_s = np.arange(float(count), 0.0, -1.0)
        behind_s *= each_s
        behind_s += np.sort(arrivals_s)
        self.busy_until_s = max(self.busy_until_s + count * each_s, float(behind_s.max()))
        self.bytes_sent += count * size_bytes
        return self.busy_until_s


class LinkVector:
    """S links of equal rate, each FIFO: one message on every link per call."""

    __slots__ = ("_shared_bytes", "_vector_bytes", "busy_until_s", "bytes_per_s", "links")

    def __init__(self, links: int, bytes_per_s: float) -> None:
        if links < 1 or not bytes_per_s > 0:
            raise ValueError(f"need at least one link and a positive rate, not {links} and {bytes_per_s}")
        self.links = links
        self.bytes_per_s = bytes_per_s
        self.busy_until_s: FloatArray = np.zeros(links)
        self._shared_bytes = 0.0
        self._vector_bytes = np.zeros(links)

    @property
    def bytes_sent(self) -> FloatArray:
        """Bytes given to each link [S]."""
        sent: FloatArray = self._vector_bytes + self._shared_bytes
        return sent

    @property
    def busy_s(self) -> FloatArray:
        """Seconds of transmission given out on each link [S]."""
        busy_s: FloatArray = self.bytes_sent / self.bytes_per_s
        return busy_s

    def send(self, arrival_s: FloatArray | float, size_bytes: FloatArray | float) -> FloatArray:
        """Return when the last byte has passed each link [S]; arrivals and sizes [S], or one for all."""
        end_s: FloatArray = np.maximum(self.busy_until_s, arrival_s)
        end_s += size_bytes / self.bytes_per_s
        self.busy_until_s[:] = end_s
        if isinstance(size_bytes, float):
            self._shared_bytes += size_bytes
        else:
            self._vector_bytes += size_bytes
        return end_s

    def send_uncounted(self, arrival_s: FloatArray | float, transmission_s: FloatArray) -> FloatArray:
        """Do as `send`, with transmission times [S], for a caller that counts bytes itself: the hot path of a simulation.

        Returns the links' own busy-until times [S], not a copy: read them before the next call.
        """
        busy_until_s = self.busy_until_s
        np.maximum(busy_until_s, arrival_s, out=busy_until_s)
        busy_until_s += transmission_s
        return busy_until_s

    def book_one(self, link: int, now_s: float, arrival_s: float, size_bytes: float) -> float:
        """Do on one link as `Link.book`."""
        transmission_s = size_bytes / self.bytes_per_s
        busy_until_s = float(self.busy_until_s[link])
        self.busy_until_s[link] = max(now_s, busy_until_s) + transmission_s
        self._vector_bytes[link] += size_bytes
        return max(arrival_s, busy_until_s) + transmission_s

    def send_one(self, link: int, arrival_s: float, size_bytes: float) -> float:
        """Return when a message on one link has passed."""
        end_s = max(arrival_s, float(self.busy_until_s[link])) + size_bytes / self.bytes_per_s
        self.busy_until_s[link] = end_s
        self._vector_bytes[link] += size_bytes
        return end_s
