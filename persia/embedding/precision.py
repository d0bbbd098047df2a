"""How float32 values travel: as they are, as float16, or as float16 with a scale per block.

    wire          arrays                                        bytes for n values
    fp32          float32, the values themselves                4 n
    fp16          float16                                       2 n
    fp16-scaled   float16, float32[blocks] largest magnitudes   2 n + 4 ceil(n / 256)

A block is 256 consecutive values in memory order, whatever the shape; the last may be shorter.  Block v travels as
KAPPA / max|v| * v in float16 beside max|v|: a gradient too small for float16 keeps its 11 bits as long as it is not 2**29
times smaller than the largest of its block.

Rounding is to nearest, ties to even.  A finite value too large for float16 becomes the largest float16, 65504.  What is not
finite stays so, that the receiver may see it, and harms no other value of its block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from persia.embedding.operands import Array, readable, writable

WIRES = ("fp32", "fp16", "fp16-scaled")

BLOCK_VALUES = 256
"""Values that share a scale: 1.6 % more bytes than bare float16."""

KAPPA = 2.0**15
"""The largest magnitude of a block as it travels: the largest power of two that float16 holds."""

# KAPPA over anything smaller would overflow float32; blocks of smaller values, and of zeros, take this scale.
_SCALE_MIN = np.float32(2.0**-100)
_KAPPA = np.float32(KAPPA)
_HALF_MAX = np.float32(65504.0)

_untyped: Any = cgutils  # numba's types do not cover what builds instructions
_ir = _untyped.ir

_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all bits of a float32 but its sign
_INFINITY = np.uint32(0x7F800000)


def encode(values: Array, wire: str) -> tuple[Array, ...]:
    """Return the arrays that travel for some values.

    Args:
        values: float32 of any shape.
        wire: "fp32", "fp16" or "fp16-scaled".

    Returns:
        fp32: (values,), not a copy. The others are in C order. fp16: (float16 of the same shape,). fp16-scaled: that and float32[blocks].

    Raises:
        ValueError: Unknown wire format, or values that are not float32.
    """
    _check(wire)
    source = readable("values", values, (np.float32,), (None,) * np.ndim(values))
    if wire == "fp32":
        return (values,)
    halves = np.empty(source.shape, np.float16)
    bits = halves.reshape(-1).view(np.uint16)
    if wire == "fp16":
        _encode(source.reshape(-1), bits)
        return (halves,)
    scales = np.empty(blocks(source.size), np.float32)
    _encode_scaled(source.reshape(-1), bits, scales)
    return halves, scales


def decode(arrays: tuple[Array, ...], wire: str, out: Array | None = None) -> npt.NDArray[np.float32]:
    """Return the values that some arrays stand for.

    Args:
        arrays: What `encode` returned, as it arrived.
        wire: "fp32", "fp16" or "fp16-scaled".
        out: float32 to write to, as long as the values; by default a new array (for fp32, the arrived one).

    Returns:
        float32 of the first array's shape.

    Raises:
        ValueError: Unknown wire format, or arrays that `encode` would not return.
    """
    _check(wire)
    if len(arrays) != (2 if wire == "fp16-scaled" else 1):
        raise ValueError(f"{len(arrays)} arrays are not what {wire} sends")
    first = readable("values", arrays[0], (np.float32 if wire == "fp32" else np.float16,), (None,) * np.ndim(arrays[0]))
    if wire == "fp32":
        if out is None:
            return np.require(arrays[0], requirements=("C", "A"))
        np.copyto(writable("out", out, np.float32, first.shape), first)
        return out
    values = writable("out", out, np.float32, first.shape)
    bits = first.reshape(-1).view(np.uint16)
    if wire == "fp16":
        _decode(bits, values.reshape(-1))
        return values
    scales = readable("scales", arrays[1], (np.float32,), (blocks(first.size),))
    _decode_scaled(bits, scales, values.reshape(-1))
    return values


def is_encoded(arrays: tuple[Array, ...], wire: str, shape: tuple[int, ...]) -> bool:
    """Return whether `encode` could have made these arrays of float32 values of a shape.

    Raises:
        ValueError: Unknown wire format.
    """
    _check(wire)
    if len(arrays) != (2 if wire == "fp16-scaled" else 1):
        return False
    if arrays[0].dtype != (np.float32 if wire == "fp32" else np.float16) or arrays[0].shape != shape:
        return False
    return wire != "fp16-scaled" or (arrays[1].dtype == np.float32 and arrays[1].shape == (blocks(arrays[0].size),))


def blocks(count_values: int) -> int:
    """Return how many blocks that many values make."""
    return -(-count_values // BLOCK_VALUES)


def wire_bytes(count_values: int, wire: str) -> int:
    """Return the bytes that travel for that many values, headers not counted.

    Raises:
        ValueError: Unknown wire format.
    """
    _check(wire)
    if wire == "fp32":
        return 4 * count_values
    return 2 * count_values + (4 * blocks(count_values) if wire == "fp16-scaled" else 0)


def warm_up() -> None:
    """Compile the kernels, or load them from numba's cache."""
    values = np.zeros(1, np.float32)
    for wire in WIRES:
        decode(encode(values, wire), wire)


def _check(wire: str) -> None:
    if wire not in WIRES:
        raise ValueError(f"wire format {wire!r} is none of {', '.join(WIRES)}")


def _converts_halves() -> bool:
    """Return whether the processor that kernels are compiled for converts float16; elsewhere LLVM would call a missing library."""
    target, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+f16c" in features.split(",") or target.startswith(("aarch64", "arm64"))


def _cast(to: Any, of: Any, build: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return an intrinsic of one argument."""

    @intrinsic
    def cast(_: Any, value: Any) -> Any:
        return to(of), lambda context, builder, signature, arguments: build(builder, arguments[0])

    return cast


_bits_of = _cast(types.uint32, types.float32, lambda builder, value: builder.bitcast(value, _ir.IntType(32)))
_float_of = _cast(types.float32, types.uint32, lambda builder, bits: builder.bitcast(bits, _ir.FloatType()))
_half_by_instruction = _cast(
    types.uint16, types.float32, lambda builder, value: builder.bitcast(builder.fptrunc(value, _ir.HalfType()), _ir.IntType(16))
)
_value_by_instruction = _cast(
    types.float32, types.uint16, lambda builder, half: builder.fpext(builder.bitcast(half, _ir.HalfType()), _ir.FloatType())
)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def half_by_arithmetic(value: np.float32) -> np.uint16:
    """Return the bits of the float16 nearest to a float32 on a processor without an instruction for it."""
    bits = _bits_of(value)
    magnitude = bits & _MAGNITUDE
    last = (magnitude >> np.uint32(13)) & np.uint32(1)
    # Exponents are biased by 15 instead of 127; just less than half of the last place, plus the last bit, rounds to even.
    normal = (magnitude + np.uint32(0xC8000FFF) + last) >> np.uint32(13)
    # The last bit of a number between 0.5 and 1 is worth 2**-24, as that of a subnormal float16 is: the addition rounds.
    subnormal = _bits_of(_float_of(magnitude) + np.float32(0.5)) - np.uint32(126 << 23)
    half = subnormal if magnitude < np.uint32(113 << 23) else normal
    half = np.uint32(0x7C00) if magnitude >= np.uint32(0x477FF000) else half
    half = np.uint32(0x7E00) if magnitude > _INFINITY else half
    return np.uint16(half | ((bits ^ magnitude) >> np.uint32(16)))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def value_by_arithmetic(half: np.uint16) -> np.float32:
    """Return the float32 that equals a float16 given by its bits, on a processor without an instruction for it."""
    bits = np.uint32(half)
    # Read as a float32 the exponent is 112 too small, for subnormal numbers too.
    magnitude = _bits_of(_float_of((bits & np.uint32(0x7FFF)) << np.uint32(13)) * np.float32(2.0**112))
    magnitude |= _INFINITY if magnitude >= np.uint32(143 << 23) else np.uint32(0)
    return np.float32(_float_of(magnitude | ((bits & np.uint32(0x8000)) << np.uint32(16))))


_half_of = _half_by_instruction if _converts_halves() else half_by_arithmetic
_value_of = _value_by_instruction if _converts_halves() else value_by_arithmetic


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _encode(values: Array, halves: Array) -> None:
    for index in range(values.size):
        value = values[index]
        value = _HALF_MAX if (value > _HALF_MAX) & (value != np.inf) else value
        value = -_HALF_MAX if (value < -_HALF_MAX) & (value != -np.inf) else value
        halves[index] = _half_of(value)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _decode(halves: Array, values: Array) -> None:
    for index in range(halves.size):
        values[index] = _value_of(halves[index])


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _largest(values: Array) -> np.float32:
    """Return the largest finite magnitude; bits of magnitudes are in the order of the magnitudes."""
    largest = np.uint32(0)
    for index in range(values.size):
        magnitude = np.uint32(_bits_of(values[index]) & _MAGNITUDE)
        magnitude = np.uint32(magnitude if magnitude < _INFINITY else 0)
        largest = magnitude if magnitude > largest else largest
    return np.float32(_float_of(largest))


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _encode_block(values: Array, factor: np.float32, halves: Array) -> None:
    for index in range(values.size):
        halves[index] = _half_of(values[index] * factor)


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _decode_block(halves: Array, factor: np.float32, values: Array) -> None:
    for index in range(halves.size):
        values[index] = _value_of(halves[index]) * factor


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _encode_scaled(values: Array, halves: Array, scales: Array) -> None:
    for block in range(scales.size):
        start, stop = block * BLOCK_VALUES, min((block + 1) * BLOCK_VALUES, values.size)
        scale = max(_largest(values[start:stop]), _SCALE_MIN)
        scales[block] = scale
        _encode_block(values[start:stop], _KAPPA / scale, halves[start:stop])


@njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)
def _decode_scaled(halves: Array, scales: Array, values: Array) -> None:
    for block in range(scales.size):
        start, stop = block * BLOCK_VALUES, min((block + 1) * BLOCK_VALUES, values.size)
        _decode_block(halves[start:stop], scales[block] / _KAPPA, values[start:stop])
