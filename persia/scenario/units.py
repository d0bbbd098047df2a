"""Quantities as people write them: `12TB`, `32Gbps`, `80us`, `30 billion`; standard library only.

Every reader takes a number in the base unit or a string, and returns the base unit: counts and bytes as int, bits per
second, seconds and plain numbers as float.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from persia.scenario.errors import did_you_mean, shown

LARGEST = 2**63 - 1
_LONGEST = 64
_NUMBER = r"[+-]?(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
_QUANTITY = re.compile(rf"\s*(?P<number>{_NUMBER})\s*(?P<unit>[A-Za-zµμ/]*)\s*")
_LEADING_ZERO = re.compile(r"\s*[+-]?0[0-9_oOxXbB]")

_DECIMAL = {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50}

COUNT_UNITS = {
    "": Decimal(1),
    **{prefix: Decimal(10) ** power for prefix, power in {"K": 3, **_DECIMAL}.items()},
    "thousand": Decimal(10) ** 3,
    "million": Decimal(10) ** 6,
    "billion": Decimal(10) ** 9,
    "trillion": Decimal(10) ** 12,
}
SIZE_UNITS = {
    "": Decimal(1),
    "B": Decimal(1),
    **{f"{prefix}B": Decimal(10) ** power for prefix, power in {"K": 3, **_DECIMAL}.items()},
    **{f"{prefix}B": Decimal(2) ** power for prefix, power in _BINARY.items()},
}
RATE_UNITS = {
    "": Decimal(1),
    "bps": Decimal(1),
    **{f"{prefix}bps": Decimal(10) ** power for prefix, power in {"K": 3, **_DECIMAL}.items()},
    **{f"{prefix}bit/s": Decimal(10) ** power for prefix, power in _DECIMAL.items()},
    **{f"{prefix}B/s": 8 * Decimal(10) ** power for prefix, power in _DECIMAL.items()},
    **{f"{prefix}B/s": 8 * Decimal(2) ** power for prefix, power in _BINARY.items()},
}
TIME_UNITS = {
    "": Decimal(1),
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "min": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
NO_UNITS = {"": Decimal(1)}


class UnitError(ValueError):
    """A quantity cannot be read; the message says what is wrong with it, `remedy` what to write."""

    def __init__(self, message: str, remedy: str = "") -> None:
        """Keep both texts."""
        super().__init__(message)
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """A kind of quantity: its units, whether its values are whole, and the words that describe it."""

    expected: str
    units: Mapping[str, Decimal] = field(hash=False)
    whole: bool = False
    rounded: bool = False

    def read(self, value: object) -> int | float:
        """Return the value in the base unit.

        Raises:
            UnitError: not a number or a quantity, an unknown unit, not finite, not whole, or beyond 2^63 - 1.
        """
        exact = _from_text(value, self.units) if isinstance(value, str) else _from_number(value)
        if abs(exact) > LARGEST:
            raise UnitError(f"{shown(value)} is too large (the limit is 2^63 - 1)")
        if not self.whole:
            return float(exact)
        if not self.rounded and exact != exact.to_integral_value():
            raise UnitError(f"{shown(value)} is not a whole number")
        return int(exact.to_integral_value())

    @property
    def pattern(self) -> str:
        """The regular expression (ECMA dialect) of the strings that `read` takes, for the JSON Schema."""
        units = "|".join(re.escape(unit).replace("/", "\\/") for unit in self.units if unit)
        return rf"^\s*{_NUMBER}\s*" + (rf"({units})?\s*$" if units else "$")


COUNT = Dimension(expected='a whole number, such as 64, 30e9, "30G" or "30 billion"', units=COUNT_UNITS, whole=True)
SIZE = Dimension(expected='a size, such as "25MB", "4GiB" or a number of bytes', units=SIZE_UNITS, whole=True, rounded=True)
RATE = Dimension(expected='a rate, such as "32Gbps", "4GB/s" or a number of bits per second', units=RATE_UNITS)
TIME = Dimension(expected='a time, such as "80us", "2s" or a number of seconds', units=TIME_UNITS)
REAL = Dimension(expected="a number, such as 1.05", units=NO_UNITS)


def _from_number(value: object) -> Decimal:
    """Return a Python number exactly; bool is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnitError(f"{described(value)} is not a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnitError(f"{value} is not finite")
    # repr gives the shortest decimal that is this float, which is what the user wrote.
    return Decimal(value) if isinstance(value, int) else Decimal(repr(value))


def _from_text(text: str, units: Mapping[str, Decimal]) -> Decimal:
    """Return a quantity with its unit, in the base unit."""
    if _LEADING_ZERO.match(text):
        raise UnitError(
            f"{shown(text)} has a leading zero, which some YAML readers take for octal", "Write it in decimal, without the zero."
        )
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        remedy = "A colon makes base-60 numbers in some YAML readers; write a number with one unit." if ":" in text else ""
        raise UnitError(f"{shown(text)} is not a number" + (" with a unit" if len(units) > 1 else ""), remedy)
    if match["unit"] not in units:
        known = [unit for unit in units if unit]
        reason = f"unknown unit {match['unit']!r} in {shown(text)}"
        raise UnitError(reason, did_you_mean(match["unit"], known) if known else "Write the number without a unit.")
    return Decimal(match["number"].replace("_", "")) * units[match["unit"]]


def described(value: object) -> str:
    """Return the value with its kind, in YAML's words: `nothing (null)`, `true (a boolean)`, `a list`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case int() | float():
            return f"{shown(value)} (a number)"
        case str():
            return f"{shown(value)} (a string)"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return type(value).__name__


def parse_count(value: object) -> int:
    """Return a whole number; raises UnitError."""
    return int(COUNT.read(value))


def parse_size_bytes(value: object) -> int:
    """Return a size in bytes, rounded to a whole byte; raises UnitError."""
    return int(SIZE.read(value))


def parse_rate_bits_per_s(value: object) -> float:
    """Return a rate in bits per second; raises UnitError."""
    return float(RATE.read(value))


def parse_time_s(value: object) -> float:
    """Return a time in seconds; raises UnitError."""
    return float(TIME.read(value))
