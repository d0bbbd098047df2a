"""A process's one inbox and its ways to other inboxes; every message is one-way, and an answer is a message like any other.

Nothing here waits for a peer: a message that cannot be queued is the sender's to send again, as is one that gets lost when
a peer dies.  Order holds between two mailboxes as long as both live.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import zmq

from persia.runtime.transport.door import Door
from persia.runtime.transport.endpoints import ipc_path, somebody_listens
from persia.runtime.transport.frames import (
    ARRAYS_MAX,
    HEADER_BYTES_MAX,
    ROLES,
    TOKEN_BYTES,
    Array,
    Buffer,
    FrameError,
    Kind,
    Message,
    pack,
    unpack,
)
from persia.runtime.transport.refusals import Refusals

QUEUE_MESSAGES = 256
LINGER_MS = 500
_COPY_BELOW_BYTES = 1 << 20  # an array sent as it lies wakes a thread that frees it, as costly as copying a megabyte
_COPY_RECEIVED_BELOW_BYTES = 16 << 10  # a frame object costs more than such a copy, and may lie askew
_RECONNECT_MS = 50  # so soon is a peer found that came back
_HANDSHAKE_MS = 10_000  # so long may a stranger keep a connection

_DONTWAIT_MORE = zmq.DONTWAIT | zmq.SNDMORE
_send = zmq.backend.Socket.send  # without the options that the method of zmq.Socket goes through first


@dataclass(frozen=True, slots=True)
class Posted:
    """What another thread of this process posted."""

    item: Any


class Mailbox:
    """One inbox, and a queue to each peer; only the thread that uses it first may use it, except for `post` and `close`.

    Attributes:
        endpoint: the address of the inbox, with the port that a tcp endpoint of port 0 was given.
        unsent: messages that `send` could not queue.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        role: str,
        index: int,
        token: bytes,
        limit_bytes: int = 1 << 30,
        compress: bool = False,
        queue_messages: int = QUEUE_MESSAGES,
    ) -> None:
        """Open the inbox.

        Args:
            endpoint: `ipc://PATH` of at most 107 bytes, or `tcp://ADDRESS:PORT`; port 0 takes a free one.
            role: the role of this process, one of `frames.ROLES`.
            index: its index among its role.
            token: the run's 16 bytes, without which nobody gets in.
            limit_bytes: the largest message, sent or received.
            compress: compress what is sent.
            queue_messages: messages that may wait for one peer here, and as many again in its inbox.

        Raises:
            ValueError: an endpoint, role, token or size that cannot be.
            OSError: the endpoint cannot be bound, or another process listens there.
        """
        if role not in ROLES or index < 0 or len(token) != TOKEN_BYTES or limit_bytes < 1 or queue_messages < 1:
            raise ValueError(f"no mailbox for {role!r} {index} with a token of {len(token)} bytes, {limit_bytes=}, {queue_messages=}")
        ipc_path(endpoint)
        self.role, self.index, self.unsent = role, index, 0
        self._token, self._limit_bytes, self._compress, self._queue_messages = token, limit_bytes, compress, queue_messages
        self._addresses: dict[tuple[str, int], str] = {}
        self._ways: dict[tuple[str, int], zmq.Socket[bytes]] = {}
        self._posted: SimpleQueue[Any] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.RLock()  # guards the descriptor that wakes; a signal's handler may post too
        self._closed = False
        self._thread: int | None = None
        self._open_sockets: set[zmq.Socket[bytes]] = set()
        self.endpoint = ""
        self._path = ""  # of the inbox's file, from when on it is this mailbox's
        self._refusals = Refusals(f"{role} {index}")
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._door = Door(self._context, token, self._refusals.add)
            self._inbox = self._open_inbox(endpoint)
        except BaseException:
            self.close()
            raise
        self._sources: list[tuple[Any, int]] = [(self._inbox, zmq.POLLIN), (self._wake, zmq.POLLIN)]
        self._posted_last = False

    def _socket(self, kind: int, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        self._open_sockets.add(socket)
        socket.linger = LINGER_MS
        socket.ipv6 = "[" in endpoint
        socket.tcp_keepalive, socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 1, 10, 5, 3
        return socket

    def _open_inbox(self, endpoint: str) -> zmq.Socket[bytes]:
        path = ipc_path(endpoint)
        if path and somebody_listens(path):
            raise OSError(f"{endpoint}: another process listens there")
        inbox = self._socket(zmq.PULL, endpoint)
        self._door.guard(inbox)
        inbox.handshake_ivl = _HANDSHAKE_MS
        inbox.rcvhwm = self._queue_messages
        inbox.maxmsgsize = self._limit_bytes + HEADER_BYTES_MAX
        try:
            inbox.bind(endpoint)
        except zmq.ZMQError as error:
            raise OSError(error.errno, f"{endpoint}: {error}") from None
        self._path = path
        last_endpoint = inbox.get(zmq.LAST_ENDPOINT)
        assert isinstance(last_endpoint, bytes)
        self.endpoint = last_endpoint.rstrip(b"\0").decode()
        return inbox

    @property
    def refused(self) -> int:
        """How many messages and connections were refused."""
        return sum(self._refusals.counts.values())

    @property
    def refusals(self) -> dict[str, int]:
        """How many were refused of each kind of fault."""
        return dict(self._refusals.counts)

    def connect(self, role: str, index: int, endpoint: str) -> None:
        """Note where a peer's inbox is; the connection is made when something is sent.

        A new address replaces the old one: what still waits there is delivered within half a second or dropped.

        Raises:
            ValueError: the endpoint cannot be one.
        """
        ipc_path(endpoint)
        self._own()
        if self._addresses.get((role, index)) == endpoint:
            return
        self._addresses[role, index] = endpoint
        way = self._ways.pop((role, index), None)
        if way is not None:
            self._drop(way)

    def send(
        self,
        role: str,
        index: int,
        kind: Kind,
        number: int = 0,
        arrays: Sequence[Array] = (),
        extra: int = 0,
        payload: dict[str, Any] | None = None,
    ) -> bool:
        """Queue a message to a peer, without ever waiting; return False where its queue is full or its address unknown.

        Large arrays are sent as they lie in memory, some time later: do not write to an array that was sent.

        Args:
            role: the receiver's role.
            index: the receiver's index.
            kind: what the message says.
            number: batch, step or request.
            arrays: what it carries.
            extra: a second integer.
            payload: a dictionary of JSON values, which becomes the last array.

        Raises:
            ValueError: the message is none that the protocol has, or larger than the limit.
        """
        self._own()
        if payload is not None:
            arrays = (*arrays, Message.json(payload))
        size_bytes = sum([array.nbytes for array in arrays])
        if size_bytes > self._limit_bytes:
            raise ValueError(f"{kind.name} of {size_bytes:,} bytes; {self._limit_bytes:,} is the limit")
        way = self._ways.get((role, index)) or self._open_way(role, index)
        if way is None or not self._queue(
            way, pack(Message(kind, self.role, self.index, number, extra, tuple(arrays)), self._token, self._compress)
        ):
            self.unsent += 1
            return False
        return True

    def _open_way(self, role: str, index: int) -> zmq.Socket[bytes] | None:
        endpoint = self._addresses.get((role, index))
        if endpoint is None:
            return None
        way = self._socket(zmq.PUSH, endpoint)
        self._door.key(way)
        way.sndhwm = self._queue_messages
        way.reconnect_ivl = _RECONNECT_MS
        try:
            way.connect(endpoint)
        except zmq.ZMQError as error:
            self._refusals.add("address", f"to send to {role} {index} at {endpoint}: {error}")
            self._drop(way)
            del self._addresses[role, index]
            return None
        self._ways[role, index] = way
        return way

    def _drop(self, way: zmq.Socket[bytes]) -> None:
        way.close()
        self._open_sockets.discard(way)

    def _queue(self, way: zmq.Socket[bytes], frames: list[Buffer]) -> bool:
        last = len(frames) - 1
        try:
            for place, frame in enumerate(frames):
                size_bytes = len(frame) if type(frame) is bytes else frame.nbytes
                _send(way, frame, zmq.DONTWAIT if place == last else _DONTWAIT_MORE, copy=size_bytes < _COPY_BELOW_BYTES)
        except zmq.Again:
            return False
        return True

    def receive(self, timeout_s: float | None = None) -> Message | Posted | None:
        """Return the next message or posted item, or None after `timeout_s` seconds; None waits for ever, 0 not at all.

        Messages and posted items take turns where both wait.  What is no message of this run is counted, logged, skipped.
        """
        self._own()
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            posted = not self._posted.empty()
            if posted and not self._posted_last:
                self._posted_last = True
                return Posted(self._posted.get_nowait())
            self._posted_last = False
            wait_s = 0.0 if posted else None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if self._poll(wait_s):
                message = self._take_message()
                if message is not None:
                    return message
            if deadline_s is not None and self._posted.empty() and time.monotonic() >= deadline_s:
                return None  # after a refusal too: a flood of them must not hold up what is due

    def _poll(self, wait_s: float | None) -> bool:
        """Wait for a message or a posted item; return whether it is a message."""
        ready = zmq.zmq_poll(self._sources, -1 if wait_s is None else math.ceil(1e3 * wait_s))
        if ready and ready[-1][0] == self._wake:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._wake)
        return bool(ready) and ready[0][0] is self._inbox

    def _take_message(self) -> Message | None:
        """Return the message that waits, or None where there is none or it is refused."""
        try:
            frame = self._inbox.recv(zmq.DONTWAIT, copy=False)
        except zmq.Again:  # what woke the inbox was no message
            return None
        frames: list[Buffer] = [frame.bytes]
        while frame.more:
            frame = self._inbox.recv(zmq.DONTWAIT, copy=False)  # a message arrives as a whole
            if len(frames) <= ARRAYS_MAX + 1:
                frames.append(frame if len(frame) >= _COPY_RECEIVED_BELOW_BYTES else frame.bytes)
        try:
            return unpack(frames, self._token, self._limit_bytes)
        except FrameError as error:
            self._refusals.add(error.fault, str(error))
            return None

    def post(self, item: Any) -> None:
        """Hand an item to the thread that receives, from any thread; it comes as `Posted(item)`.

        After `close` an item is dropped: nobody receives any more.
        """
        self._posted.put(item)
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def _own(self) -> None:
        """Sockets must not be shared between threads: they would end the process without a word."""
        thread = threading.get_ident()
        if self._thread != thread:
            if self._thread is not None:
                raise RuntimeError("a mailbox belongs to the thread that used it first; other threads may post to it")
            self._thread = thread

    def close(self) -> None:
        """Close everything, once nobody receives any more; what is queued gets half a second, and an ipc endpoint's file goes.

        May be called twice.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._wake)
        if self._path:  # ZeroMQ leaves it; while this inbox is open, nobody else's can be there
            Path(self._path).unlink(missing_ok=True)
        for socket in self._open_sockets:
            socket.close()
        self._context.term()  # waits for what lingers and for the door

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
