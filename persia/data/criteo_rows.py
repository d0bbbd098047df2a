"""Parses rows of Criteo's log, many at a time: a label, 13 whole numbers, 26 hexadecimal categories, separated by tabs.

Rows as they should be are parsed without a loop, eight characters of a field at a time in one 64-bit word. Every
other row is parsed alone by `parse_row`, which knows all of the rules and says what is wrong.

Shapes: R rows; 13 whole numbers, 26 IDs, 40 fields in a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DENSE_FEATURES = 13
ID_FEATURES = 26
FIELDS = 1 + DENSE_FEATURES + ID_FEATURES
EMPTY_ID = 1 << 32  # no category of eight hexadecimal digits has it

Words = NDArray[np.uint64]

_WHOLE_NUMBER = re.compile(rb"-?[0-9]{1,18}")
_CATEGORY = re.compile(rb"[0-9A-Fa-f]{1,8}")
_TAB, _LINE_FEED, _RETURN, _MINUS, _ZERO, _ONE = b"\t\n\r-01"
_CHARACTERS = 8  # in a word


def _in_each_byte(value: int) -> np.uint64:
    """Return a word of eight equal bytes."""
    return np.uint64(value * 0x0101010101010101)


# By the length of a field: which bytes of the word that ends with it belong to it (the upper ones), and zeros before.
_OWN_BYTES = np.array([(1 << 64) - (1 << 8 * (_CHARACTERS - length)) for length in range(_CHARACTERS + 1)], dtype=np.uint64)
_LEADING_ZEROS = ~_OWN_BYTES & _in_each_byte(_ZERO)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Parsed rows: labels f32[R], dense f32[R, 13], ids int64[26, R]; bad rows, all zero, with what is wrong."""

    labels: NDArray[np.float32]
    dense: NDArray[np.float32]
    ids: NDArray[np.int64]
    bad: dict[int, str]


def parse_row(line: bytes) -> tuple[int, list[int], list[int]]:
    """Return label, whole numbers (0 where empty) and IDs of one row; raises ValueError with what is wrong."""
    fields = line.removesuffix(b"\r").split(b"\t")
    if len(fields) != FIELDS:
        raise ValueError(f"{len(fields)} fields; expected {FIELDS}, separated by tabs")
    if fields[0] not in (b"0", b"1"):
        raise ValueError(f"the label is {_shown(fields[0])}; expected 0 or 1")
    numbers = []
    for index, field in enumerate(fields[1 : 1 + DENSE_FEATURES], start=1):
        if field and not _WHOLE_NUMBER.fullmatch(field):
            raise ValueError(f"number {index} (field {index + 1}) is {_shown(field)}; expected a whole number or nothing")
        numbers.append(int(field or b"0"))
    ids = []
    for index, field in enumerate(fields[1 + DENSE_FEATURES :], start=1):
        if field and not _CATEGORY.fullmatch(field):
            place = f"category {index} (field {index + 1 + DENSE_FEATURES})"
            raise ValueError(f"{place} is {_shown(field)}; expected at most 8 hexadecimal digits or nothing")
        ids.append(int(field, 16) if field else EMPTY_ID)
    return int(fields[0]), numbers, ids


def parse_rows(data: bytes, wanted: NDArray[np.bool_] | None = None) -> Rows:
    """Return the rows of some lines, each ended by a line feed; `wanted` bool[lines] leaves lines out."""
    # A word is read up to its field's end, so that the first fields need something before them.
    text = np.frombuffer(bytes(_CHARACTERS) + data, dtype=np.uint8)
    (separators,) = np.nonzero((text == _TAB) | (text == _LINE_FEED))
    (last_fields,) = np.nonzero(text[separators] == _LINE_FEED)
    first_fields = np.concatenate(([0], last_fields[:-1] + 1))
    line_ends = separators[last_fields]
    line_starts = np.concatenate(([_CHARACTERS], line_ends[:-1] + 1))
    complete = last_fields - first_fields == FIELDS - 1
    if wanted is not None:
        first_fields, line_ends, line_starts, complete = (each[wanted] for each in (first_fields, line_ends, line_starts, complete))
    (whole,) = np.nonzero(complete)
    ends = separators[first_fields[whole] + np.arange(FIELDS)[:, None]]
    starts = np.empty_like(ends)
    starts[0] = line_starts[whole]
    starts[1:] = ends[:-1] + 1
    ends[-1] -= text[ends[-1] - 1] == _RETURN

    count = len(line_ends)
    labels, numbers, ids = np.zeros(count, dtype=np.float32), np.zeros((DENSE_FEATURES, count)), np.zeros((ID_FEATURES, count), np.int64)
    labels[whole] = text[starts[0]] == _ONE
    fine = (ends[0] - starts[0] == 1) & (text[starts[0]] >= _ZERO) & (text[starts[0]] <= _ONE)
    some = slice(1, 1 + DENSE_FEATURES)
    numbers[:, whole], good = _whole_numbers(text, starts[some], ends[some])
    fine &= good
    ids[:, whole], good = _categories(text, starts[1 + DENSE_FEATURES :], ends[1 + DENSE_FEATURES :])
    fine &= good

    odd = np.ones(count, dtype=np.bool_)
    odd[whole[fine]] = False
    bad = {}
    for row in np.flatnonzero(odd).tolist():
        labels[row], numbers[:, row], ids[:, row] = 0, 0, 0
        try:
            labels[row], numbers[:, row], ids[:, row] = parse_row(text[line_starts[row] : line_ends[row]].tobytes())
        except ValueError as error:
            bad[row] = str(error)
    dense = np.log1p(np.maximum(numbers, 0).T.astype(np.float32, order="C"))
    return Rows(labels=labels, dense=dense, ids=ids, bad=bad)


def _words(text: NDArray[np.uint8], ends: NDArray[np.intp], lengths: NDArray[np.intp]) -> Words:
    """Return each field as the eight characters before its end, filled with `0` in front; the first is the lowest byte."""
    every_word = np.ndarray(len(text) - _CHARACTERS + 1, dtype="<u8", buffer=text, strides=(1,))
    words: Words = every_word[ends - _CHARACTERS]
    words &= _OWN_BYTES[lengths]
    words |= _LEADING_ZEROS[lengths]
    return words


def _whole_numbers(
    text: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the numbers int64[13, R], 0 for negative or empty ones, and which rows have nothing else; bool[R]."""
    negative = text[starts] == _MINUS
    lengths = ends - starts - negative
    good = (lengths <= _CHARACTERS) & (lengths >= negative)
    words = _words(text, ends, np.clip(lengths, 0, _CHARACTERS))
    high = _in_each_byte(0xF0)
    good &= ((words & high) | (((words + _in_each_byte(6)) & high) >> np.uint64(4))) == _in_each_byte(0x33)
    words &= _in_each_byte(0x0F)
    for radix, width, lanes in ((10, 8, 0x00FF00FF00FF00FF), (100, 16, 0x0000FFFF0000FFFF), (10_000, 32, 0xFFFFFFFF)):
        words = (words * np.uint64(radix) + (words >> np.uint64(width))) & np.uint64(lanes)
    numbers = words.view(np.int64)
    numbers[negative] = 0
    return numbers, good.all(axis=0)


def _categories(text: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the IDs int64[26, R], and which rows have only hexadecimal digits; bool[R]."""
    lengths = ends - starts
    good = lengths <= _CHARACTERS
    words = _words(text, ends, np.clip(lengths, 0, _CHARACTERS))
    # In ASCII `0` is 0x30, `A` is 0x41 and `a` is 0x61: bit 6 tells letters from digits, the lower half is the value or value - 9.
    letters = (words >> np.uint64(6)) & _in_each_byte(1)
    low = words & _in_each_byte(0x0F)
    upper = (words | (letters << np.uint64(5))) & _in_each_byte(0xF0)
    good &= upper == _in_each_byte(0x30) + letters * np.uint64(0x30)
    # A digit is at most 9 and a letter's lower half 1 to 6; where not, a sum reaches (or does not reach) 16.
    too_high = (low + _in_each_byte(6) + letters * np.uint64(3)) & _in_each_byte(0x10)
    too_low = (letters << np.uint64(4)) & ~(low + _in_each_byte(0x0F))
    fine: NDArray[np.bool_] = good & ((too_high | too_low) == 0)
    words = low + letters * np.uint64(9)
    for shift, width, lanes in ((4, 8, 0x00FF00FF00FF00FF), (8, 16, 0x0000FFFF0000FFFF), (16, 32, 0xFFFFFFFF)):
        words = ((words << np.uint64(shift)) | (words >> np.uint64(width))) & np.uint64(lanes)
    ids = words.view(np.int64)
    ids[lengths == 0] = EMPTY_ID
    return ids, np.all(fine, axis=0)


def _shown(field: bytes) -> str:
    """Return the beginning of a field for a message, whatever its bytes are."""
    return repr(field[:40].decode("utf-8", errors="backslashreplace"))
