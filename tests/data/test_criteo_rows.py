"""Rows parsed many at a time are those parsed one by one, whatever is in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from persia.data.criteo_rows import EMPTY_ID, parse_row, parse_rows
from tests.data.criteo_files import lines

GOOD = b"1\t" + b"\t".join([b"5"] * 13) + b"\t" + b"\t".join([b"68fd1e64"] * 26)


def changed(field: int, value: bytes, row: bytes = GOOD) -> bytes:
    fields = row.split(b"\t")
    fields[field] = value
    return b"\t".join(fields)


def check(data: bytes) -> None:
    """Compare with parse_row, line by line."""
    rows = parse_rows(data)
    texts = data.split(b"\n")[:-1]
    assert len(rows.labels) == len(texts)
    for index, text in enumerate(texts):
        try:
            label, numbers, ids = parse_row(text)
        except ValueError as error:
            assert rows.bad[index] == str(error)
            label, numbers, ids = 0, [0] * 13, [0] * 26
        else:
            assert index not in rows.bad
        assert rows.labels[index] == label
        np.testing.assert_array_equal(rows.dense[index], np.log1p(np.maximum(np.array(numbers, dtype=np.float64), 0).astype(np.float32)))
        np.testing.assert_array_equal(rows.ids[:, index], ids)


NUMBERS = st.one_of(
    st.just(b""),
    st.integers(-99, 10**6).map(lambda value: str(value).encode()),
    st.integers(-(10**19), 10**19).map(lambda value: str(value).encode()),
    st.text(alphabet="0123456789-+. eE_\x00/:", max_size=12).map(str.encode),
)
CATEGORIES = st.one_of(
    st.just(b""),
    st.integers(0, (1 << 32) - 1).map(lambda value: f"{value:08x}".encode()),
    st.text(alphabet="0123456789abcdefABCDEFgG@`/:xX_ \x00\r", max_size=10).map(str.encode),
    st.binary(max_size=9).map(lambda value: value.replace(b"\n", b"").replace(b"\t", b"")),
)
LABELS = st.one_of(st.sampled_from([b"0", b"1"]), st.sampled_from([b"", b"2", b"01", b"-", b"\r", b"1 "]))


@st.composite
def rows(draw: st.DrawFn) -> bytes:
    """A row with some fields drawn, and now and then one too many or too few, or a return at its end."""
    row = changed(0, draw(LABELS))
    for field in draw(st.lists(st.integers(1, 13), max_size=3)):
        row = changed(field, draw(NUMBERS), row)
    for field in draw(st.lists(st.integers(14, 39), max_size=4)):
        row = changed(field, draw(CATEGORIES), row)
    cut = draw(st.sampled_from([b"", b"", b"", b"\t", b"\tabc", b"\r", b"\r\r"]))
    return row + cut if draw(st.booleans()) else row.rpartition(b"\t")[0] + cut


@given(st.lists(rows(), max_size=6))
@example([b"", GOOD, b"\t" * 39, b"\r"])
@example([changed(1, b"-"), changed(13, b"-0"), changed(2, b"12345678"), changed(3, b"-12345678"), changed(4, b"123456789")])
@example([changed(14, b"ABCDEF01"), changed(39, b"F"), changed(15, b"fffffffff"), changed(16, b"0000000g"), changed(17, b"`")])
def test_many_at_a_time_and_one_by_one_agree(found: list[bytes]) -> None:
    check(b"".join(row + b"\n" for row in found))


def test_every_byte_in_every_kind_of_field() -> None:
    bytes_ = [bytes([value]) for value in range(256) if value not in b"\t\n"]
    check(
        b"".join(
            changed(field, prefix + value + suffix) + b"\n" for field in (0, 1, 13, 14, 39) for value in bytes_ for prefix, suffix in EDGES
        )
    )


EDGES = ((b"", b""), (b"1", b""), (b"", b"1"), (b"123", b"4567"))


def test_lines_can_be_left_out() -> None:
    texts = [GOOD, b"no row", changed(1, b"7"), changed(1, b"99999999999"), b"neither"]
    data = b"".join(text + b"\n" for text in texts)
    found = parse_rows(data, np.array([True, False, True, True, True]))
    assert found.dense[:, 0] == pytest.approx(np.log1p([5, 7, 99999999999, 0]))
    assert list(found.bad) == [3]
    assert parse_rows(data, np.zeros(5, dtype=np.bool_)).ids.shape == (26, 0)


def test_empty_fields() -> None:
    found = parse_rows(b"0" + b"\t" * 39 + b"\n")
    assert found.bad == {}
    assert not found.dense.any()
    assert (found.ids == EMPTY_ID).all()


def test_a_whole_log() -> None:
    check("".join(f"{line}\n" for line in lines(300)).encode())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"", "1 fields; expected 40, separated by tabs"),
        (GOOD + b"\t", "41 fields; expected 40, separated by tabs"),
        (changed(0, b"2"), "the label is '2'; expected 0 or 1"),
        (changed(2, b"0.5"), "number 2 (field 3) is '0.5'; expected a whole number or nothing"),
        (changed(39, b"xyz"), "category 26 (field 40) is 'xyz'; expected at most 8 hexadecimal digits or nothing"),
        (changed(14, b"\xff\x00"), r"category 1 (field 15) is '\\xff\x00'; expected at most 8 hexadecimal digits or nothing"),
        (changed(14, b"a" * 1000), f"category 1 (field 15) is '{'a' * 40}'; expected at most 8 hexadecimal digits or nothing"),
    ],
)
def test_messages(row: bytes, message: str) -> None:
    assert parse_rows(row + b"\n").bad == {0: message}
