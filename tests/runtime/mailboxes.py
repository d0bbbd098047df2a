"""What the tests of the transport share: mailboxes, a process that sends everything back, strangers at the door."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import zmq

from persia.runtime.transport import Kind, Mailbox, Message
from tests.support import ROOT, persia_environment

TOKEN = bytes(range(16))
LONG_S = 30.0  # for what must come: a test that fails waits so long
SHORT_S = 0.1  # for what must not come
DTYPES = ("u1", "i4", "i8", "u8", "f2", "f4", "f8")

# A parameter server that sends every message back to where HELLO says, until STOP.
ECHO = """
import sys
from persia.runtime.transport import Kind, Mailbox

mailbox = Mailbox(endpoint=sys.argv[1], role="parameter_server", index=int(sys.argv[2]), token=bytes(range(16)), compress=len(sys.argv) > 3)
print(mailbox.endpoint, flush=True)
while (message := mailbox.receive(30.0)) is not None and message.kind != Kind.STOP:
    if message.kind == Kind.HELLO:
        mailbox.connect(message.role, message.index, message.payload()["endpoint"])
    mailbox.send(message.role, message.index, message.kind, message.number, message.arrays, extra=message.extra)
mailbox.close()
"""


def mailbox(endpoint: str, role: str = "embedding_worker", index: int = 0, **options: Any) -> Mailbox:
    return Mailbox(endpoint=endpoint, role=role, index=index, token=options.pop("token", TOKEN), **options)


def message_from(box: Mailbox) -> Message:
    received = box.receive(LONG_S)
    assert isinstance(received, Message)
    return received


class Echo:
    """The process of one parameter server; it is killed where it has not ended."""

    def __init__(self, endpoint: str, index: int = 0, *options: str) -> None:
        self.index = index
        self.process = subprocess.Popen(
            [sys.executable, "-c", ECHO, endpoint, str(index), *options],
            cwd=ROOT,
            env=persia_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint, "the process did not start"

    def greet(self, box: Mailbox) -> None:
        box.connect("parameter_server", self.index, self.endpoint)
        assert box.send("parameter_server", self.index, Kind.HELLO, payload={"endpoint": box.endpoint})
        assert message_from(box).kind == Kind.HELLO

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextlib.contextmanager
def stranger(endpoint: str, password: str = TOKEN.hex()) -> Iterator[Any]:
    """A bare socket that passes the door, where the password is right, and then sends anything."""
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.linger, push.sndhwm = 1000, 0
    push.plain_username, push.plain_password = b"persia", password.encode()
    push.connect(endpoint)
    try:
        yield push
    finally:
        push.close()
        context.term()


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"PLAIN".ljust(20, b"\0") + bytes(32)


def connection(box: Mailbox) -> socket.socket:
    """A bare connection to a tcp or ipc endpoint."""
    scheme, _, address = box.endpoint.partition("://")
    bare = socket.socket(socket.AF_UNIX if scheme == "ipc" else socket.AF_INET)
    host, _, port = address.rpartition(":")
    bare.settimeout(LONG_S)
    bare.connect(address if scheme == "ipc" else (host, int(port)))
    return bare


def command(name: bytes, body: bytes) -> bytes:
    return b"\x04" + bytes([1 + len(name) + len(body), len(name)]) + name + body


def admitted(box: Mailbox) -> socket.socket:
    """A bare connection that has shaken hands by the book (ZMTP 3.0, PLAIN) and may send messages."""
    bare = connection(box)
    bare.sendall(GREETING)
    password = TOKEN.hex().encode()
    bare.sendall(command(b"HELLO", b"\x06persia" + bytes([len(password)]) + password))
    wanted = b"\x07WELCOME"
    while wanted not in (answer := bare.recv(4096)):
        assert answer
    bare.sendall(command(b"INITIATE", b"\x0bSocket-Type\0\0\0\x04PUSH"))
    assert b"\x05READY" in bare.recv(4096)
    return bare
