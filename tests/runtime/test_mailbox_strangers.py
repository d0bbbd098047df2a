from __future__ import annotations

import contextlib
import logging
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
zmq = pytest.importorskip("zmq")
pytest.importorskip("lz4")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from persia.runtime.transport import Kind, Mailbox, Message  # noqa: E402
from persia.runtime.transport.frames import pack  # noqa: E402
from tests.runtime.mailboxes import GREETING, SHORT_S, TOKEN, admitted, connection, mailbox, message_from, stranger  # noqa: E402

# --- strangers and hostile bytes ----------------------------------------------------------------------------------------


def assert_serves(box: Mailbox, endpoint: str) -> None:
    """A message of the run still arrives, whatever was sent before it."""
    with mailbox(endpoint, "loader", 7) as friend:
        friend.connect(box.role, box.index, box.endpoint)
        assert friend.send(box.role, box.index, Kind.FEATURES, 99, [np.arange(5)])
        message = message_from(box)
        assert (message.kind, message.index, message.number) == (Kind.FEATURES, 7, 99)


def test_malformed_messages_are_counted_by_fault_and_logged_once(endpoints: Iterator[str], caplog: pytest.LogCaptureFixture) -> None:
    good = [bytes(frame) for frame in pack(Message(Kind.ROWS, "loader", 0, 0, 0, (np.arange(4),)), TOKEN)]
    other_run = pack(Message(Kind.STOP, "coordinator", 0, 0), bytes(16))
    bad = [[b""], [b"GET / HTTP/1.1\r\n" * 4], good[:1], [*good, *[b"x"] * 5000], [good[0], b""], other_run, [b"x" * 100_000] * 3]
    with caplog.at_level(logging.WARNING), mailbox(next(endpoints)) as box:
        with stranger(box.endpoint) as push:
            for _ in range(3):
                for frames in bad:
                    push.send_multipart(frames)
            push.send_multipart(good)
            assert message_from(box).arrays[0].tolist() == [0, 1, 2, 3]
        assert box.refused == 3 * len(bad)
        assert box.refusals == {"length": 6, "magic": 3, "count": 6, "size": 3, "token": 3}
        assert len(caplog.records) == len(box.refusals)
        assert_serves(box, next(endpoints))


def test_a_flood_of_malformed_messages_holds_up_nothing(folder: Path) -> None:
    over = threading.Event()
    with mailbox(f"ipc://{folder}/a") as box:

        def flood() -> None:
            with stranger(box.endpoint) as push:
                push.linger, push.sndtimeo = 0, 100
                while not over.is_set():
                    with contextlib.suppress(zmq.Again):
                        push.send(b"x")

        thread = threading.Thread(target=flood)
        thread.start()
        try:
            while not box.refused:
                assert box.receive(SHORT_S) is None  # it returns, however much there is to refuse
            box.connect("embedding_worker", 0, box.endpoint)
            assert box.send("embedding_worker", 0, Kind.READY)
            assert message_from(box).kind == Kind.READY
        finally:
            over.set()
            thread.join()


@pytest.mark.parametrize("password", ["x", TOKEN.hex()[:-1], bytes(16).hex(), "x" * 255])
def test_a_stranger_stays_outside(endpoints: Iterator[str], password: str) -> None:
    with mailbox(next(endpoints)) as box:
        with stranger(box.endpoint, password) as push:
            push.linger = 0
            push.send_multipart([b"x"] * 1000)
            while not box.refused:
                assert box.receive(SHORT_S) is None
        assert set(box.refusals) == {"stranger"}
        assert_serves(box, next(endpoints))


def test_a_socket_that_knows_of_no_door_stays_outside(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints)) as box, zmq.Context() as context, context.socket(zmq.PUSH) as push, context.socket(zmq.DEALER) as dealer:
        for plain in (push, dealer):
            plain.linger = 0
            plain.connect(box.endpoint)
            plain.send_multipart(pack(Message(Kind.STOP, "coordinator", 0, 0), TOKEN))
        assert_serves(box, next(endpoints))
        assert box.receive(SHORT_S) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.just(GREETING), st.just(GREETING[:11]), st.just(b"\x01\x00\x7f"), st.binary(max_size=500)), max_size=4))
def test_bytes_that_are_no_protocol(chunks: list[bytes]) -> None:
    with contextlib.suppress(OSError), connection(SHARED.tcp) as bare:  # it may hang up at any moment
        for chunk in chunks:
            bare.sendall(chunk)
    assert_serves(SHARED.tcp, f"ipc://{SHARED.folder}/friend")


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=500))
def test_bytes_after_the_handshake(garbage: bytes) -> None:
    with contextlib.suppress(OSError), admitted(SHARED.tcp) as bare:
        bare.sendall(garbage)
    assert_serves(SHARED.tcp, f"ipc://{SHARED.folder}/friend")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=100), min_size=1, max_size=5), max_size=5))
def test_any_frames(multiparts: list[list[bytes]]) -> None:
    with stranger(SHARED.tcp.endpoint) as push:
        for frames in multiparts:
            push.send_multipart(frames)
    assert_serves(SHARED.tcp, f"ipc://{SHARED.folder}/friend")


class Shared:
    """One mailbox for all examples of the tests above, and a folder."""

    tcp: Mailbox
    folder: str


SHARED = Shared()


@pytest.fixture(scope="module", autouse=True)
def _shared() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="mail") as SHARED.folder, mailbox("tcp://127.0.0.1:0") as SHARED.tcp:
        yield


@pytest.mark.parametrize(
    "sent",
    [
        b"\x01\x05PRSA",  # more frames to come, then silence
        b"\x03" + (1 << 20).to_bytes(8, "big") + bytes(1000),  # a megabyte announced, of which a thousandth comes
        b"\x03" + (1 << 62).to_bytes(8, "big") + bytes(1000),  # more than the limit
        b"\x01\x05PRSA" * 20_000,
        b"\x04\x06\x05READYtoo much",
        b"\xff" * 1000,
    ],
    ids=["half a message", "half a frame", "a huge frame", "endless frames", "a command", "reserved bits"],
)
def test_a_peer_that_hangs_up_or_cheats_within_a_message(endpoints: Iterator[str], sent: bytes) -> None:
    with mailbox(next(endpoints)) as box:
        bare = admitted(box)
        with contextlib.suppress(OSError):
            bare.sendall(sent)
        assert_serves(box, next(endpoints))
        bare.close()
        assert_serves(box, next(endpoints))
        assert box.receive(0) is None


def test_a_message_larger_than_the_limit(endpoints: Iterator[str]) -> None:
    with mailbox(next(endpoints), limit_bytes=10_000) as box:
        with stranger(box.endpoint) as push:
            push.send(bytes(200_000))
        assert_serves(box, next(endpoints))
        box.connect("loader", 0, box.endpoint)
        with pytest.raises(ValueError, match="is the limit"):
            box.send("loader", 0, Kind.ROWS, 0, [np.zeros(10_001, np.uint8)])
        assert box.send("loader", 0, Kind.ROWS, 0, [np.zeros(10_000, np.uint8)])
        assert message_from(box).arrays[0].size == 10_000
