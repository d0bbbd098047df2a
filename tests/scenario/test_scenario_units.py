"""Quantities: what is read, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persia.scenario.units import UnitError, parse_count, parse_rate_bits_per_s, parse_size_bytes, parse_time_s


@pytest.mark.parametrize(
    ("written", "count"),
    [
        (64, 64),
        (64.0, 64),
        (30e9, 30_000_000_000),
        ("30e9", 30_000_000_000),
        ("30G", 30_000_000_000),
        ("30 billion", 30_000_000_000),
        ("2_048", 2048),
        ("2.5 million", 2_500_000),
        ("12k", 12_000),
        ("+7", 7),
        (" 7 ", 7),
        ("30_048_076_923", 30_048_076_923),
        (2**63 - 1, 2**63 - 1),
        ("9007199254740993", 9007199254740993),  # 2^53 + 1: no detour through float
        ("0", 0),
    ],
)
def test_counts(written: object, count: int) -> None:
    assert parse_count(written) == count


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [("25MB", 25_000_000), ("4GiB", 4 * 2**30), ("12TB", 12 * 10**12), ("1.5 KiB", 1536), (512, 512), ("512", 512), ("0.1GiB", 107374182)],
)
def test_sizes(written: object, size_bytes: int) -> None:
    assert parse_size_bytes(written) == size_bytes


@pytest.mark.parametrize(
    ("written", "bits_per_s"),
    [("32Gbps", 32e9), ("100 Mbps", 100e6), ("4GB/s", 32e9), ("10Gbit/s", 10e9), (1e9, 1e9), ("1GiB/s", 8 * 2**30)],
)
def test_rates(written: object, bits_per_s: float) -> None:
    assert parse_rate_bits_per_s(written) == bits_per_s


@pytest.mark.parametrize(
    ("written", "time_s"),
    [
        ("80us", 80e-6),
        ("80µs", 80e-6),
        ("50ms", 0.05),
        ("1000s", 1000.0),
        ("2h", 7200.0),
        (".5s", 0.5),
        (2, 2.0),
        ("36e-6", 36e-6),
        ("-1s", -1.0),
    ],
)
def test_times(written: object, time_s: float) -> None:
    assert parse_time_s(written) == time_s


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (True, "boolean"),
        (None, "nothing"),
        ([1], "a list"),
        ({}, "a mapping"),
        ("", "not a number"),
        ("12 parsecs", "unknown unit 'parsecs'"),
        ("12:30", "not a number"),
        ("010", "leading zero"),
        ("0x10", "leading zero"),
        ("0o17", "leading zero"),
        ("1__0", "not a number"),
        ("1_", "not a number"),
        ("1e9999", "not a number"),
        ("1e30", "too large"),
        pytest.param(10**5000, "too large", id="10**5000"),
        ("9" * 5000, "not a number"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
        ("nan", "not a number"),
        ("inf", "not a number"),
        (0.5, "not a whole number"),
        ("1.5", "not a whole number"),
        ("10MB", "unknown unit 'MB'"),
        ("\uff11\uff12", "not a number"),
    ],
)
def test_refused_counts(written: object, reason: str) -> None:
    with pytest.raises(UnitError, match=reason):
        parse_count(written)


@given(st.text(max_size=80) | st.floats() | st.integers() | st.none() | st.booleans())
def test_anything_is_read_or_refused(written: object) -> None:
    for reader in (parse_count, parse_size_bytes, parse_rate_bits_per_s, parse_time_s):
        try:
            value = reader(written)
        except UnitError as error:
            assert str(error)
        else:
            assert math.isfinite(value)
            assert abs(value) <= 2**63


@given(st.integers(min_value=-(2**63) + 1, max_value=2**63 - 1))
def test_whole_numbers_are_read_exactly(number: int) -> None:
    assert parse_count(number) == parse_count(str(number)) == parse_count(f"{number:_}") == number
