"""Wire precision against numpy's own float16, and what the scale per block promises."""

from __future__ import annotations

import pytest

pytest.importorskip("numba")

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from persia.embedding.precision import (
    BLOCK_VALUES,
    KAPPA,
    WIRES,
    decode,
    encode,
    half_by_arithmetic,
    value_by_arithmetic,
    warm_up,
    wire_bytes,
)

HALF_MAX = 65504.0
SHAPES = hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=20)
FLOATS = hnp.arrays(np.float32, SHAPES, elements=st.floats(width=32))


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    warm_up()  # outside the time that hypothesis allows an example


def there_and_back(values: npt.NDArray[np.float32], wire: str) -> npt.NDArray[np.float32]:
    return decode(encode(values, wire), wire)


def saturated(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    clipped = np.where(np.isfinite(values), np.clip(values, -HALF_MAX, HALF_MAX), values)
    return clipped.astype(np.float16)


def half_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The bits of numpy's conversion."""
    with np.errstate(all="ignore"):
        return values.astype(np.float16).view(np.uint16)


@given(FLOATS)
def test_half_rounds_as_numpy_does_and_saturates(values: npt.NDArray[np.float32]) -> None:
    (halves,) = encode(values, "fp16")
    assert halves.dtype == np.float16
    np.testing.assert_array_equal(halves, saturated(values))
    np.testing.assert_array_equal(decode((halves,), "fp16"), halves.astype(np.float32))


@given(FLOATS)
def test_scaled_values_come_back_within_half_of_the_last_bit(values: npt.NDArray[np.float32]) -> None:
    halves, scales = encode(values, "fp16-scaled")
    assert (halves.dtype, scales.dtype) == (np.float16, np.float32)
    assert np.isfinite(scales).all()
    back, flat = decode((halves, scales), "fp16-scaled").reshape(-1), values.reshape(-1)
    for start in range(0, flat.size, BLOCK_VALUES):
        ours, theirs = back[start : start + BLOCK_VALUES], flat[start : start + BLOCK_VALUES]
        finite = np.isfinite(theirs)
        np.testing.assert_array_equal(ours[~finite], theirs[~finite])
        exact = theirs[finite].astype(np.float64)
        largest = max(float(abs(exact).max(initial=0.0)), 2.0**-100)
        # Eleven bits, until the scaled value is subnormal in float16, with 2**-25 as half of its last bit.
        error = np.maximum(2.0**-10.99 * abs(exact), 1.01 * 2.0**-25 * largest / KAPPA)
        assert (abs(ours[finite] - exact) <= error).all()


def test_tiny_gradients_survive_scaled_but_not_bare() -> None:
    values = np.array([3e-9, -1e-10, 2e-12], np.float32)
    assert not there_and_back(values, "fp16").any()
    np.testing.assert_allclose(there_and_back(values, "fp16-scaled"), values, rtol=1e-3)


def test_values_that_are_not_finite_harm_no_neighbour() -> None:
    values = np.array([np.inf, 1.0, np.nan, -np.inf, 2.0], np.float32)
    for wire in WIRES:
        np.testing.assert_array_equal(there_and_back(values, wire), values)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000])
def test_each_block_has_its_own_scale(size: int) -> None:
    values = np.random.default_rng(size).standard_normal(size, np.float32)
    values *= np.float32(10.0) ** (np.arange(size) // BLOCK_VALUES * 10).astype(np.float32)
    halves, scales = encode(values, "fp16-scaled")
    assert scales.size == -(-size // BLOCK_VALUES)
    for index, scale in enumerate(scales):
        assert scale == abs(values[index * BLOCK_VALUES : (index + 1) * BLOCK_VALUES]).max()
    np.testing.assert_allclose(decode((halves, scales), "fp16-scaled"), values, rtol=2**-10.9)


@pytest.mark.parametrize("scale", [0.0, 1e-45, 1e-38, 3.4e38])
def test_extreme_blocks(scale: float) -> None:
    values = np.array([1.0, -0.5, 0.25], np.float32) * np.float32(scale)
    back = there_and_back(values, "fp16-scaled")
    np.testing.assert_allclose(back, values, rtol=1e-3, atol=1e-38)


def test_large_values_saturate_and_infinite_ones_stay() -> None:
    values = np.array([65519.0, 65520.0, -1e30, np.inf, -np.inf], np.float32)
    assert there_and_back(values, "fp16").tolist() == [HALF_MAX, HALF_MAX, -HALF_MAX, np.inf, -np.inf]


def test_plain_floats_travel_as_they_are() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    (sent,) = encode(values, "fp32")
    assert sent is values
    assert decode((sent,), "fp32") is values
    np.testing.assert_array_equal(decode((values.T,), "fp32"), values.T)
    out = np.empty_like(values)
    assert decode((sent,), "fp32", out) is out
    np.testing.assert_array_equal(out, values)


@pytest.mark.parametrize("wire", WIRES)
def test_decoding_into_an_array_and_from_a_frame(wire: str) -> None:
    values = np.random.default_rng(0).standard_normal((7, 50), np.float32)
    arrived = tuple(np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) for array in encode(values, wire))
    out = np.empty_like(values)
    assert decode(arrived, wire, out) is out
    np.testing.assert_array_equal(out, there_and_back(values, wire))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("count", [0, 1, 256, 257, 5000])
def test_bytes_are_counted_right(wire: str, count: int) -> None:
    arrays = encode(np.ones(count, np.float32), wire)
    assert sum(array.nbytes for array in arrays) == wire_bytes(count, wire)


def test_every_half_by_arithmetic_equals_numpy_s() -> None:
    bits = np.arange(2**16, dtype=np.uint16)
    values = np.array([value_by_arithmetic(half) for half in bits[::7]], np.float32)
    np.testing.assert_array_equal(values, bits[::7].view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.signbit(values), bits[::7] >= 2**15)


@settings(deadline=None)  # the first call compiles
@given(st.floats(width=32))
def test_rounding_by_arithmetic_equals_numpy_s(value: float) -> None:
    single = np.array([value], np.float32)
    half = np.array([half_by_arithmetic(single[0])], np.uint16)
    np.testing.assert_array_equal(half.view(np.float16), half_bits(single).view(np.float16))


def test_rounding_by_arithmetic_around_every_step() -> None:
    halves = np.arange(0, 2**15 - 2**10, 61, dtype=np.uint16).view(np.float16).astype(np.float32)
    after = np.arange(1, 2**15 - 2**10 + 1, 61, dtype=np.uint16)[: halves.size].view(np.float16).astype(np.float32)
    middles = (halves + after) / 2
    for values in (halves, middles, np.nextafter(middles, np.float32(0)), np.nextafter(middles, after)):
        ours = np.array([half_by_arithmetic(value) for value in values], np.uint16)
        np.testing.assert_array_equal(ours, half_bits(values))


def test_what_encode_would_not_send_is_refused() -> None:
    halves, scales = encode(np.ones((3, 100), np.float32), "fp16-scaled")
    refused: list[tuple[tuple[npt.NDArray[np.generic], ...], str]] = [
        ((halves,), "fp16-scaled"),
        ((halves, scales), "fp16"),
        ((halves, scales[:1]), "fp16-scaled"),
        ((halves, scales.astype(np.float64)), "fp16-scaled"),
        ((halves.astype(np.float32),), "fp16"),
        ((halves,), "fp32"),
    ]
    for arrays, wire in refused:
        with pytest.raises(ValueError, match=r"scales|values|arrays"):
            decode(arrays, wire)
    with pytest.raises(ValueError, match="out must have the shape"):
        decode((halves,), "fp16", np.empty((100, 3), np.float32))
    for call in (lambda: encode(scales, "fp8"), lambda: decode((scales,), "fp8"), lambda: wire_bytes(1, "fp8")):
        with pytest.raises(ValueError, match="none of fp32, fp16, fp16-scaled"):
            call()
    with pytest.raises(ValueError, match="must be float32"):
        encode(np.ones(3), "fp16")
