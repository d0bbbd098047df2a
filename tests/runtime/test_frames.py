from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

np = pytest.importorskip("numpy")
lz4_block = pytest.importorskip("lz4.block")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

from persia.runtime.transport.frames import ARRAYS_MAX, PAYLOAD_BYTES_MAX, ROLES, FrameError, Kind, Message, pack, unpack  # noqa: E402

TOKEN = bytes(range(16))
LIMIT_BYTES = 1 << 20
DTYPES = ("u1", "i4", "i8", "u8", "f2", "f4", "f8")
# Offsets in the header and in a description, spelled out: a protocol must not move by accident.
VERSION_AT, FLAGS_AT, KIND_AT, ROLE_AT, INDEX_AT, COUNT_AT, TOKEN_AT = 4, 5, 6, 7, 8, 12, 16
HEADER_BYTES, SHAPE_BYTES = 48, 40
DTYPE_AT, NDIM_AT, FIRST_AT, BLOCK_AT = HEADER_BYTES, HEADER_BYTES + 1, HEADER_BYTES + 8, HEADER_BYTES + 32

integers64 = st.integers(-(2**63), 2**63 - 1)
arrays_sent = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
)
messages = st.builds(
    Message,
    st.sampled_from(Kind),
    st.sampled_from(ROLES),
    st.integers(0, 2**31 - 1),
    integers64,
    integers64,
    st.lists(arrays_sent, max_size=4).map(tuple),
)


def received(message: Message, compress: bool = False, limit_bytes: int = LIMIT_BYTES) -> Message:
    return unpack([memoryview(frame).tobytes() for frame in pack(message, TOKEN, compress)], TOKEN, limit_bytes)


def sample(*arrays: Any) -> Message:
    return Message(Kind.ROWS, "parameter_server", 3, 17, -1, arrays)


@given(messages, st.booleans())
def test_a_message_arrives_as_it_was_sent(message: Message, compress: bool) -> None:
    other = received(message, compress)
    assert (other.kind, other.role, other.index, other.number, other.extra) == (
        message.kind,
        message.role,
        message.index,
        message.number,
        message.extra,
    )
    assert len(other.arrays) == len(message.arrays)
    for array, sent in zip(other.arrays, message.arrays, strict=True):
        assert array.dtype == sent.dtype
        assert array.shape == sent.shape
        assert array.tobytes() == sent.tobytes()
        assert array.flags.aligned
        assert not array.flags.writeable


def test_kinds_and_header_have_the_numbers_of_the_protocol() -> None:
    assert [int(kind) for kind in Kind] == list(range(1, len(Kind) + 1))
    assert (Kind.FEATURES, Kind.ASK_ROWS, Kind.HELLO, Kind.ENDED) == (1, 11, 23, 37)
    head = bytes(pack(sample(np.zeros((2, 3), np.float32)), TOKEN)[0])
    assert len(head) == HEADER_BYTES + SHAPE_BYTES
    assert head[TOKEN_AT : TOKEN_AT + 16] == TOKEN
    assert head[DTYPE_AT] == 1 + DTYPES.index("f4")
    assert struct.unpack_from("<QQ", head, FIRST_AT) == (2, 3)


def test_nothing_is_copied_on_either_side() -> None:
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    frames = pack(sample(array), TOKEN)
    assert np.shares_memory(frames[1], array)
    body = frames[1].tobytes()
    assert np.shares_memory(unpack([frames[0], body], TOKEN, LIMIT_BYTES).arrays[0], np.frombuffer(body, np.float32))


def test_an_array_that_lies_askew_in_its_frame_is_copied() -> None:
    array = np.arange(8.0)
    head, body = pack(sample(array), TOKEN)
    askew = np.zeros(65, np.uint8)[1:]
    askew[:] = np.frombuffer(body, np.uint8)
    other = unpack([head, askew.data], TOKEN, LIMIT_BYTES).arrays[0]
    assert other.flags.aligned
    assert other.tolist() == array.tolist()


def test_a_view_of_every_second_row_is_sent_as_what_it_shows() -> None:
    array = np.arange(24, dtype=np.int32).reshape(6, 4)
    assert received(sample(array[::2], array.T)).arrays[1].tolist() == array.T.tolist()
    assert received(sample(array[::2])).arrays[0].tolist() == array[::2].tolist()


def test_compression_makes_smaller_what_it_can() -> None:
    zeros, noise = np.zeros(100_000, np.float32), np.random.default_rng(0).integers(0, 2**63, 10_000, np.uint64)
    frames = pack(sample(zeros, noise, np.arange(3)), TOKEN, compress=True)
    assert len(frames[1]) < zeros.nbytes / 100
    assert frames[2] is noise
    other = received(sample(zeros, noise, np.arange(3)), compress=True).arrays
    assert other[0].tobytes() == zeros.tobytes()
    assert other[1].tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    "message",
    [
        sample(np.zeros(2, np.bool_)),
        sample(np.zeros(2, np.int16)),
        sample(np.zeros(2, ">f4")),
        sample(np.zeros(2, np.complex64)),
        sample(np.zeros(2, object)),
        sample(np.zeros((1, 1, 1, 1))),
        sample(*[np.zeros(1)] * (ARRAYS_MAX + 1)),
        Message(Kind.ROWS, "nobody", 0, 0),
        Message(Kind.ROWS, "loader", 2**31, 0),
        Message(Kind.ROWS, "loader", 0, 2**63),
        Message(Kind.ROWS, "loader", 0, 0, -(2**63) - 1),
    ],
)
def test_what_the_protocol_does_not_have_is_not_sent(message: Message) -> None:
    with pytest.raises(ValueError, match=r"."):
        pack(message, TOKEN)


def changed(at: int, layout: str, *values: int | bytes) -> Callable[[list[bytes]], list[bytes]]:
    def change(frames: list[bytes]) -> list[bytes]:
        head = bytearray(frames[0])
        struct.pack_into(f"<{layout}", head, at, *values)
        return [bytes(head), *frames[1:]]

    return change


FAULTS: dict[str, tuple[str, Callable[[list[bytes]], list[bytes]]]] = {
    "nothing": ("length", lambda _: []),
    "empty header": ("length", lambda frames: [b"", *frames[1:]]),
    "cut header": ("length", lambda frames: [frames[0][: HEADER_BYTES - 1], *frames[1:]]),
    "header far too long": ("length", lambda frames: [frames[0] * 100, *frames[1:]]),
    "magic": ("magic", changed(0, "4s", b"HTTP")),
    "version": ("version", changed(VERSION_AT, "B", 2)),
    "token": ("token", changed(TOKEN_AT, "16s", bytes(16))),
    "flags": ("header", changed(FLAGS_AT, "B", 1)),
    "kind 0": ("header", changed(KIND_AT, "B", 0)),
    "kind beyond the last": ("header", changed(KIND_AT, "B", len(Kind) + 1)),
    "role 0": ("header", changed(ROLE_AT, "B", 0)),
    "role beyond the last": ("header", changed(ROLE_AT, "B", len(ROLES) + 1)),
    "negative index": ("header", changed(INDEX_AT, "i", -1)),
    "too many arrays": ("count", changed(COUNT_AT, "I", ARRAYS_MAX + 1)),
    "billions of arrays": ("count", changed(COUNT_AT, "I", 2**32 - 1)),
    "fewer arrays announced": ("count", changed(COUNT_AT, "I", 1)),
    "frame missing": ("count", lambda frames: frames[:-1]),
    "frame too many": ("count", lambda frames: [*frames, b""]),
    "thousands of frames": ("count", lambda frames: [*frames, *[b"x"] * 5000]),
    "half a description": ("count", lambda frames: [frames[0][:-1], *frames[1:]]),
    "dtype 0": ("dtype", changed(DTYPE_AT, "B", 0)),
    "dtype beyond the last": ("dtype", changed(DTYPE_AT, "B", len(DTYPES) + 1)),
    "four dimensions": ("dtype", changed(NDIM_AT, "B", 4)),
    "longer shape": ("size", changed(FIRST_AT, "Q", 3)),
    "negative shape": ("limit", changed(FIRST_AT, "q", -1)),
    "huge shape": ("limit", changed(FIRST_AT, "Q", 2**62)),
    "shape whose size overflows to what came": ("limit", changed(FIRST_AT, "QQ", 2**62 + 2, 4)),
    "empty and huge": ("limit", changed(FIRST_AT, "QQ", 0, 2**63)),
    "over the limit": ("limit", changed(FIRST_AT, "QQ", LIMIT_BYTES // 16 + 1, 4)),
    "shorter body": ("size", lambda frames: [frames[0], frames[1][:-1], frames[2]]),
    "longer body": ("size", lambda frames: [frames[0], frames[1] + b"x", frames[2]]),
    "block that is none": ("lz4", changed(BLOCK_AT, "Q", 32)),
    "block of another size": ("size", changed(BLOCK_AT, "Q", 31)),
    "block of endless size": ("size", changed(BLOCK_AT, "Q", 2**64 - 1)),
    "block that claims too much": ("lz4", lambda frames: changed(FIRST_AT, "Q", 10_000)(changed(BLOCK_AT, "Q", 32)(frames))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_refused_by_name(name: str) -> None:
    fault, change = FAULTS[name]
    frames = [memoryview(frame).tobytes() for frame in pack(sample(np.zeros((2, 4), np.float32), np.arange(3)), TOKEN)]
    unpack(frames, TOKEN, LIMIT_BYTES)
    with pytest.raises(FrameError) as refusal:
        unpack(change(frames), TOKEN, LIMIT_BYTES)
    assert refusal.value.fault == fault


def test_the_limit_holds_for_all_arrays_together() -> None:
    arrays = [np.zeros(100, np.uint8)] * 3
    assert len(received(sample(*arrays), limit_bytes=300).arrays) == 3
    with pytest.raises(FrameError, match="more than the limit leaves"):
        received(sample(*arrays), limit_bytes=299)


def test_a_small_block_that_unfolds_to_much_is_bounded_by_the_limit() -> None:
    zeros = np.zeros(LIMIT_BYTES + 1, np.uint8)
    with pytest.raises(FrameError, match="more than the limit leaves"):
        received(sample(zeros), compress=True)


@pytest.mark.parametrize("length", [4999, 5001])
def test_a_block_that_holds_another_size_than_its_shape(length: int) -> None:
    block = lz4_block.compress(bytes(length), store_size=False)
    head = changed(BLOCK_AT, "Q", len(block))([bytes(pack(sample(np.zeros(5000, np.uint8)), TOKEN)[0])])[0]
    with pytest.raises(FrameError) as refusal:
        unpack([head, block], TOKEN, LIMIT_BYTES)
    assert refusal.value.fault == "lz4"


def unpack_or_refuse(frames: list[bytes]) -> None:
    try:
        message = unpack(frames, TOKEN, LIMIT_BYTES)
    except FrameError as error:
        assert error.fault  # any other exception fails the test
    else:
        assert sum(array.nbytes for array in message.arrays) <= LIMIT_BYTES


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_are_a_message_or_refused(frames: list[bytes]) -> None:
    unpack_or_refuse(frames)


HEADS = st.builds(
    lambda fixed, kind, role, index, numbers, shapes: (
        struct.pack("<4sBBBBiI16s", b"PRSA", 1, 0, kind, role, index, len(shapes), TOKEN)
        + numbers
        + b"".join(struct.pack("<BB6xQQQQ", *shape) for shape in shapes)
        + fixed
    ),
    st.sampled_from([b"", b"", b"", b"x"]),
    st.integers(0, 40),
    st.integers(0, 6),
    st.integers(-1, 3),
    st.binary(min_size=16, max_size=16),
    st.lists(
        st.tuples(
            st.integers(0, 8),
            st.integers(0, 4),
            *[st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1))] * 3,
            st.one_of(st.just(0), st.integers(0, 200)),
        ),
        max_size=3,
    ),
)


@settings(max_examples=300)
@given(HEADS, st.lists(st.binary(max_size=200), max_size=3))
def test_a_credible_header_with_any_numbers_is_a_message_or_refused(head: bytes, bodies: list[bytes]) -> None:
    unpack_or_refuse([head, *bodies])


@settings(max_examples=300)
@given(messages, st.booleans(), st.data())
def test_a_damaged_message_is_a_message_or_refused(message: Message, compress: bool, data: st.DataObject) -> None:
    frames = [bytearray(memoryview(frame).tobytes()) for frame in pack(message, TOKEN, compress)]
    for _ in range(data.draw(st.integers(1, 3))):
        frame = data.draw(st.sampled_from(frames))
        if frame:
            frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    unpack_or_refuse([bytes(frame) for frame in frames])


def test_payload_returns() -> None:
    payload = {"loss": 0.25, "name": "é", "histogram": [1, 2, 3], "none": None}
    assert received(sample(np.arange(3), Message.json(payload))).payload() == payload


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[1]",
        b"1",
        b'{"a": \xff}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 10_000,
        b'{"a": 1} x',
        b" " * (PAYLOAD_BYTES_MAX + 1),
    ],
    ids=["empty", "cut", "list", "number", "not text", "deep list", "deep object", "many digits", "more", "large"],
)
def test_a_malformed_payload_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="payload"):
        sample(np.frombuffer(text, np.uint8)).payload()


@pytest.mark.parametrize("arrays", [(), (np.zeros(2),), (np.zeros((1, 2), np.uint8),)])
def test_no_payload_is_a_value_error(arrays: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="carries no payload"):
        sample(*arrays).payload()


def test_a_payload_too_large_is_not_packed() -> None:
    with pytest.raises(ValueError, match="is the limit"):
        Message.json({"text": "x" * PAYLOAD_BYTES_MAX})
