"""A message as frames: a fixed header with a description of every array, then each array's bytes as they lie in memory.

    frame 0   magic, protocol version, kind, role and index of the sender, the run's token, number, extra;
              per array: dtype, dimensions, shape, size when compressed
    frame i   array i - 1, raw and little-endian, or one lz4 block

Nothing that is read decides more than which of these arrays there are: no code, no names, no memory beyond the limit.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import lz4.block
import numpy as np

Array = np.ndarray[Any, Any]
Buffer = Any  # what has the buffer protocol: bytes, a frame of zmq, a contiguous array

VERSION = 1
TOKEN_BYTES = 16
ARRAYS_MAX = 64
DIMENSIONS_MAX = 3
PAYLOAD_BYTES_MAX = 4 << 20

# A block shrinks to no less than a 255th; whoever claims more wants memory to be reserved for nothing.
_LZ4_RATIO_MAX = 255
_LZ4_BLOCK_BYTES_MAX = 0x7E000000
_COMPRESS_FROM_BYTES = 4096  # below, a system call costs more than the bytes saved

_MAGIC = b"PRSA"
_HEADER = struct.Struct("<4sBBBBiI16sqq")  # magic, version, flags (0), kind, role, index, arrays, token, number, extra
_SHAPE = struct.Struct("<BB6xQQQQ")  # dtype, dimensions, shape, bytes when compressed (0: it is not)
HEADER_BYTES_MAX = _HEADER.size + ARRAYS_MAX * _SHAPE.size

ROLES = ("loader", "embedding_worker", "parameter_server", "nn_worker", "coordinator")
_DTYPES = tuple(np.dtype(f"<{name}") for name in ("u1", "i4", "i8", "u8", "f2", "f4", "f8"))
_ROLE_CODES = {role: code for code, role in enumerate(ROLES, start=1)}
_DTYPE_CODES = {dtype: code for code, dtype in enumerate(_DTYPES, start=1)}


class Kind(IntEnum):
    """What a message says; its number is part of the protocol, so new ones go to the end."""

    FEATURES = 1
    SAMPLES = 2
    LOOKUP = 3
    POOLED = 4
    GRADIENTS = 5
    PUSHED = 6
    CREDIT = 7
    COMMITTED = 8
    EXPIRED = 9
    LOST = 10
    ASK_ROWS = 11
    ROWS = 12
    UPDATE = 13
    UPDATED = 14
    ASK_SNAPSHOT = 15
    SNAPSHOT_CUT = 16
    SNAPSHOT_WRITTEN = 17
    DENSE_INIT = 18
    DENSE_GRADIENT = 19
    DENSE_PARAMETERS = 20
    BARRIER_ENTERED = 21
    BARRIER_PASSED = 22
    HELLO = 23
    READY = 24
    START = 25
    STOP = 26
    PROGRESS = 27
    STATS = 28
    FINISHED = 29
    EVALUATE = 30
    EVALUATED = 31
    PEEK_POOLED = 32
    POOLED_PEEK = 33
    PEEK_ROWS = 34
    ROWS_PEEK = 35
    FAILED = 36
    ENDED = 37
    DENSE_JOINED = 38
    DENSE_BEGAN = 39


_KINDS = {int(kind): kind for kind in Kind}


class FrameError(ValueError):
    """Frames that are no message of this run; `fault` is one word for the kind of fault."""

    def __init__(self, fault: str, sentence: str) -> None:
        super().__init__(sentence)
        self.fault = fault


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """One message: what it says, who sent it, the batch, step or request it is about, and its arrays.

    Attributes:
        kind: what it says.
        role: the sender's role, one of ROLES.
        index: the sender's index among its role.
        number: batch, step or request, a signed 64-bit integer.
        extra: a second such integer.
        arrays: at most 64, of at most three dimensions; read-only and without copies where they were received.
    """

    kind: Kind
    role: str
    index: int
    number: int
    extra: int = 0
    arrays: tuple[Array, ...] = ()

    @staticmethod
    def json(payload: dict[str, Any]) -> Array:
        """Return a dictionary as an array of bytes, which goes last among a message's arrays.

        Raises:
            TypeError: a value is nothing that JSON knows.
            ValueError: it is larger than 4 MiB.
        """
        text = json.dumps(payload, separators=(",", ":")).encode()
        if len(text) > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {len(text):,} bytes; {PAYLOAD_BYTES_MAX:,} is the limit")
        return np.frombuffer(text, np.uint8)

    def payload(self) -> dict[str, Any]:
        """Return the dictionary that the last array holds.

        Raises:
            ValueError: there is no such array, it is too large, or it does not hold a JSON object.
        """
        if not self.arrays or self.arrays[-1].dtype != np.uint8 or self.arrays[-1].ndim != 1:
            raise ValueError(f"{self.kind.name} carries no payload")
        text = self.arrays[-1]
        if text.nbytes > PAYLOAD_BYTES_MAX:
            raise ValueError(f"a payload of {text.nbytes:,} bytes; {PAYLOAD_BYTES_MAX:,} is the limit")
        try:
            payload = json.loads(text.tobytes())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the payload of {self.kind.name} is not JSON: {error}") from None
        if not isinstance(payload, dict):
            raise ValueError(f"the payload of {self.kind.name} is not an object")
        return payload


def pack(message: Message, token: bytes, compress: bool = False) -> list[Buffer]:
    """Return a message's frames; those of contiguous arrays are the arrays themselves, not copies.

    Args:
        message: what to send.
        token: the run's 16 bytes, without which no receiver listens.
        compress: compress arrays of 4 KiB and more by lz4, where that makes them smaller.

    Raises:
        ValueError: a role, dtype, number of dimensions or integer that the protocol does not have.
    """
    arrays = message.arrays
    if len(arrays) > ARRAYS_MAX:
        raise ValueError(f"{len(arrays)} arrays in one message; {ARRAYS_MAX} is the limit")
    if message.role not in _ROLE_CODES:
        raise ValueError(f"unknown role {message.role!r}")
    role = _ROLE_CODES[message.role]
    try:
        head = [_HEADER.pack(_MAGIC, VERSION, 0, message.kind, role, message.index, len(arrays), token, message.number, message.extra)]
    except struct.error as error:
        raise ValueError(f"{message.kind.name}: index, number or extra is no integer of the protocol: {error}") from None
    frames: list[Buffer] = [b""]
    for array in arrays:
        description, body = _pack_array(array, compress)
        head.append(description)
        frames.append(body)
    frames[0] = b"".join(head)
    return frames


def _pack_array(array: Array, compress: bool) -> tuple[bytes, Buffer]:
    """Return one array's description and its frame."""
    code, dimensions = _DTYPE_CODES.get(array.dtype), array.ndim
    if code is None:
        raise ValueError(f"arrays of dtype {array.dtype} cannot be sent")
    if dimensions > DIMENSIONS_MAX:
        raise ValueError(f"an array of {dimensions} dimensions cannot be sent; {DIMENSIONS_MAX} is the limit")
    body = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    shape = (*array.shape, 0, 0, 0)
    if compress and _COMPRESS_FROM_BYTES <= body.nbytes <= _LZ4_BLOCK_BYTES_MAX:
        block = lz4.block.compress(body, store_size=False)
        if len(block) < body.nbytes:
            return _SHAPE.pack(code, dimensions, shape[0], shape[1], shape[2], len(block)), block
    return _SHAPE.pack(code, dimensions, shape[0], shape[1], shape[2], 0), body


def unpack(frames: Sequence[Buffer], token: bytes, limit_bytes: int) -> Message:
    """Return the message that frames hold; its arrays are read-only views on the frames.

    An array is copied only where it was compressed or does not lie aligned in its frame.

    Args:
        frames: what arrived, each of a length in bytes.
        token: the run's 16 bytes.
        limit_bytes: the most bytes that all arrays together may have, uncompressed.

    Raises:
        FrameError: anything is not as `pack` makes it.
    """
    if not frames:
        raise FrameError("length", "no frame")
    head = frames[0]
    if not _HEADER.size <= len(head) <= HEADER_BYTES_MAX:
        raise FrameError("length", f"a header of {len(head):,} bytes")
    magic, version, flags, kind, role, index, count, sent_token, number, extra = _HEADER.unpack_from(head)
    if magic != _MAGIC:
        raise FrameError("magic", "not a message of this program")
    if version != VERSION:
        raise FrameError("version", f"protocol version {version}; this program speaks {VERSION}")
    if sent_token != token:
        raise FrameError("token", "a message of another run")
    if flags or kind not in _KINDS or not 1 <= role <= len(ROLES) or index < 0:
        raise FrameError("header", f"unknown flags {flags}, kind {kind}, role {role} or index {index}")
    if count > ARRAYS_MAX or len(head) != _HEADER.size + count * _SHAPE.size or len(frames) != count + 1:
        raise FrameError("count", f"{count} arrays announced in {len(head)} bytes, {len(frames) - 1} frames came")
    arrays, room_bytes = [], limit_bytes
    for place in range(count):
        array = _unpack_array(head, _HEADER.size + place * _SHAPE.size, frames[place + 1], room_bytes)
        room_bytes -= array.nbytes
        arrays.append(array)
    return Message(_KINDS[kind], ROLES[role - 1], index, number, extra, tuple(arrays))


def _unpack_array(head: Buffer, offset: int, body: Buffer, room_bytes: int) -> Array:
    """Return the array that the description at `offset` and its frame hold, at most `room_bytes` large."""
    code, dimensions, first, second, third, block_bytes = _SHAPE.unpack_from(head, offset)
    if not 1 <= code <= len(_DTYPES) or dimensions > DIMENSIONS_MAX:
        raise FrameError("dtype", f"unknown dtype {code}, or {dimensions} dimensions")
    dtype = _DTYPES[code - 1]
    shape = (first, second, third)[:dimensions]
    # An empty array's other dimensions must stay within bounds too: numpy multiplies them.
    if dtype.itemsize * math.prod([max(1, length) for length in shape]) > room_bytes:
        raise FrameError("limit", f"an array of shape {shape} and dtype {dtype}: more than the limit leaves")
    size_bytes = dtype.itemsize * math.prod(shape)
    if block_bytes:
        body = _decompress(body, block_bytes, size_bytes)
    elif len(body) != size_bytes:
        raise FrameError("size", f"{len(body):,} bytes for an array of {size_bytes:,}")
    array: Array = np.ndarray(shape, dtype, body)
    if not array.flags.aligned:
        array = array.copy()  # compiled kernels expect aligned arrays
    if array.flags.writeable:
        array.flags.writeable = False
    return array


def _decompress(block: Buffer, block_bytes: int, size_bytes: int) -> bytes:
    if len(block) != block_bytes:
        raise FrameError("size", f"{len(block):,} bytes for a block of {block_bytes:,}")
    if size_bytes > min(_LZ4_BLOCK_BYTES_MAX, _LZ4_RATIO_MAX * block_bytes):
        raise FrameError("lz4", f"a block of {block_bytes:,} bytes cannot hold {size_bytes:,}")
    try:
        body: bytes = lz4.block.decompress(block, uncompressed_size=size_bytes)
    except (lz4.block.LZ4BlockError, ValueError, OverflowError, MemoryError) as error:
        raise FrameError("lz4", f"a block of {block_bytes:,} bytes is damaged: {error}") from None
    if len(body) != size_bytes:
        raise FrameError("lz4", f"a block holds {len(body):,} bytes instead of {size_bytes:,}")
    return body


if sys.byteorder != "little":
    raise ImportError("the wire's arrays are little-endian, as is every machine that this runs on")
