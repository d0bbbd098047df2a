"""Who may connect: only peers that name the run's token, so that a stranger's bytes never pile up in memory.

A socket takes in whole messages, however many frames they have, before anyone can judge them.  ZeroMQ therefore asks a
handler (its protocol ZAP, RFC 27) about every new connection's user and password (mechanism PLAIN, RFC 24).  This keeps out
other runs, port scanners and accidents; it encrypts nothing, so it is no protection from who can read the network.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable

import zmq

_USER = b"persia"
_ENDPOINT = "inproc://zeromq.zap.01"
_REQUEST_FRAMES = 8  # version, request, domain, address, identity, mechanism, user, password


class Door(threading.Thread):
    """The handler of one context: a thread that sleeps until somebody connects."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], token: bytes, refused: Callable[[str, str], None]) -> None:
        """Start to answer; call `refused` with a fault and a sentence, from this thread, for every connection turned away."""
        super().__init__(name="transport door", daemon=True)
        self._password = token.hex().encode()
        self._refused = refused
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        try:
            self._socket.bind(_ENDPOINT)
            self.start()
        except BaseException:
            self._socket.close()
            raise

    def guard(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket, before it is bound, take in only peers that know the token."""
        socket.plain_server = True
        socket.zap_domain = b"persia"

    def key(self, socket: zmq.Socket[bytes]) -> None:
        """Let a socket, before it connects, name the token."""
        socket.plain_username = _USER
        socket.plain_password = self._password

    def run(self) -> None:
        """Answer until the context ends."""
        try:
            while True:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        except zmq.ContextTerminated:
            pass
        finally:
            self._socket.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        known = len(request) == _REQUEST_FRAMES and request[5] == b"PLAIN" and hmac.compare_digest(request[7], self._password)
        if known:
            return [request[0], request[1], b"200", b"OK", b"", b""]  # without a user: its name would wake the inbox once
        self._refused("stranger", f"a connection from {request[3].decode(errors='replace') or 'this host'} without the run's token")
        return [request[0], request[1], b"400", b"not of this run", b"", b""]
