"""Criteo's log as a stream: passes, going back, several loaders, compressed files, held-out and bad rows."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

import persia.data.criteo
import persia.data.lines
from persia.data import DataError
from tests.data.criteo_files import assert_holds, criteo, expected, lines, write

ROWS = lines(257)
BAD = {
    "fields": ("1\t2", "2 fields"),
    "label": (ROWS[0].replace(ROWS[0][0], "7", 1), "the label is '7'"),
    "number": ("1\tmany" + "\t" * 38, "number 1 (field 2) is 'many'"),
    "category": ("1" + "\t" * 38 + "\tquux", "category 26 (field 40) is 'quux'"),
    "bytes": ("1" + "\t" * 38 + "\t\udcff\udcfe", "category 26 (field 40) is '\\\\xff"),
    "empty": ("", "1 fields"),
}


@pytest.fixture(autouse=True, params=[1 << 18, 700], ids=["large pieces", "small pieces"])
def piece_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Read whole files in one piece, or two or three lines in each."""
    size: int = request.param
    monkeypatch.setattr(persia.data.lines, "PIECE_BYTES", size)
    monkeypatch.setattr(persia.data.criteo, "_REMEMBER_EVERY_ROWS", size >> 5)
    return size


@pytest.fixture(params=["log.tsv", "log.gz"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / request.param, ROWS)


def test_passes_follow_one_another_without_their_tails(log: Path) -> None:
    data, rows = criteo(log), expected(ROWS)
    assert len(rows.trained) == 245
    for number in range(60):
        batch = data.batch(number)
        assert batch.number == number
        first = number % 24 * 10
        assert_holds(batch, rows.trained[first : first + 10])
    assert data.samples == 240
    assert data.bad_rows == 0
    assert data.best_auc() is None


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_any_order_gives_the_same_batches(log: Path, on_bad_row: str) -> None:
    data, rows = criteo(log, on_bad_row="skip" if on_bad_row == "skip" else "error"), expected(ROWS)
    # Starting in a later pass; back, forth, twice the same; over the end of a pass.
    for number in (100, 3, 4, 4, 20, 19, 0, 23, 24, 47, 1, 10_000_000):
        first = number % 24 * 10
        assert_holds(data.batch(number), rows.trained[first : first + 10])


def test_loaders_share_the_batches(log: Path) -> None:
    rows = expected(ROWS)
    loaders = [criteo(log, batch_size=16) for _ in range(3)]
    for number in range(40):
        first = number % 15 * 16
        assert_holds(loaders[number % 3].batch(number), rows.trained[first : first + 16])


def test_samples_can_be_asked_for_first(log: Path) -> None:
    data = criteo(log, batch_size=245)
    assert data.samples == 245
    assert_holds(data.batch(7), expected(ROWS).trained)


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_every_twentieth_line_is_held_out(log: Path, batch_size: int) -> None:
    data, rows = criteo(log), expected(ROWS)
    assert len(rows.held_out) == 12
    for _ in range(2):
        batches = list(data.held_out(batch_size))
        assert [batch.number for batch in batches] == list(range(len(batches)))
        for number, batch in enumerate(batches):
            assert_holds(batch, rows.held_out[number * batch_size : (number + 1) * batch_size])
        assert sum(len(batch.labels) for batch in batches) == 12
    few = list(criteo(log, held_out_samples=7).held_out(5))
    assert [len(batch.labels) for batch in few] == [5, 2]


def test_more_held_out_samples_than_are_kept(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persia.data.criteo, "MOST_KEPT_SAMPLES", 5)
    data = criteo(log)
    for _ in range(2):
        (batch,) = data.held_out(100)
        assert_holds(batch, expected(ROWS).held_out)


def test_nothing_held_out_trains_every_line(log: Path) -> None:
    data = criteo(log, held_out_samples=0, batch_size=257)
    assert_holds(data.batch(0), [expected([row]).trained[0] for row in ROWS])
    assert list(data.held_out(10)) == []


def test_a_folder_is_read_by_name_and_number(tmp_path: Path) -> None:
    parts = {"day_10.gz": ROWS[170:], "day_2": ROWS[90:170], "day_1": ROWS[:90]}
    for name, part in parts.items():
        write(tmp_path / name, part)
    (tmp_path / ".hidden").write_text("no row")
    (tmp_path / "folder").mkdir()
    data, rows = criteo(tmp_path, batch_size=16), expected(ROWS[:90], ROWS[90:170], ROWS[170:])
    for number in (0, 1, 12, 3, 14, 5, 6, 15, 31, 8):
        first = number % 15 * 16
        assert_holds(data.batch(number), rows.trained[first : first + 16])
    (held_out,) = data.held_out(100)
    assert_holds(held_out, rows.held_out)


def test_line_ends(tmp_path: Path) -> None:
    for name, text in {"crlf": "\r\n".join([*ROWS, ""]), "no-feed-at-end": "\n".join(ROWS)}.items():
        (tmp_path / name).write_bytes(text.encode())
        assert_holds(criteo(tmp_path / name, batch_size=245).batch(0), expected(ROWS).trained)


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["bad.tsv", "bad.gz"])
def test_a_bad_row_stops_the_batch_that_holds_it(tmp_path: Path, kind: str, name: str) -> None:
    line, fragment = BAD[kind]
    write(tmp_path / name, [])
    text = "".join(f"{row}\n" for row in [*ROWS[:30], line, *ROWS[30:]]).encode(errors="surrogateescape")
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    data, rows = criteo(tmp_path / name), expected([*ROWS[:30], ROWS[30], *ROWS[30:]])
    # Line 31 is the training split's row 29; those before and after can be read.
    assert_holds(data.batch(1), rows.trained[10:20])
    assert_holds(data.batch(3), rows.trained[30:40])
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            data.batch(2)
        assert str(caught.value).startswith(f"{tmp_path / name}:31: {fragment}")
        assert "on_bad_row" in str(caught.value)


def test_bad_rows_are_skipped_and_counted_once(tmp_path: Path) -> None:
    texts = list(ROWS)
    for index, kind in ((4, "fields"), (5, "label"), (39, "number"), (50, "category"), (256, "bytes")):
        texts[index] = BAD[kind][0]
    path = tmp_path / "log.tsv"
    path.write_bytes("".join(f"{text}\n" for text in texts).encode(errors="surrogateescape"))
    data, rows = criteo(path, on_bad_row="skip"), expected(texts)
    assert len(rows.trained) == 241
    for number in (0, 5, 1, 30, 23, 24, 0):
        first = number % 24 * 10
        assert_holds(data.batch(number), rows.trained[first : first + 10])
    assert data.bad_rows == 4
    for _ in range(2):
        (held_out,) = data.held_out(100)
        assert_holds(held_out, rows.held_out)
        assert data.bad_rows == 5


def test_a_bad_held_out_row_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.tsv", [*ROWS[:59], "bad", *ROWS[60:]])
    data = criteo(path)
    data.batch(5)
    with pytest.raises(DataError, match=r"log\.tsv:60: 1 fields"):
        list(data.held_out(10))


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory\. Point workload\.data\.path at"):
        criteo(tmp_path / "nowhere")
    with pytest.raises(DataError, match="a folder without files"):
        criteo(tmp_path)
    with pytest.raises(DataError, match="null"):
        criteo(Path("a\0b"))


def test_too_few_samples_for_a_batch(log: Path) -> None:
    data = criteo(log, batch_size=246)
    for _ in range(2):
        with pytest.raises(DataError, match=r"Lower workload\.batch_size"):
            data.batch(0)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "log.gz", ROWS).read_bytes()
    for data in (whole[: len(whole) // 2], whole[:2000] + bytes(64) + whole[2064:]):
        (tmp_path / "damaged.gz").write_bytes(data)
        opened = criteo(tmp_path / "damaged.gz")
        for _ in range(2):
            with pytest.raises(DataError, match=r"damaged\.gz: .*Fetch it again"):
                opened.batch(20)


def test_a_file_without_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "zeros.gz").write_bytes(gzip.compress(bytes(1 << 22)))
    with pytest.raises(DataError, match=r"zeros\.gz:1: a line of more than 1,048,576 bytes"):
        criteo(tmp_path / "zeros.gz", on_bad_row="skip").batch(0)


def test_a_log_is_never_in_memory_as_a_whole(tmp_path: Path, piece_bytes: int) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(
        gzip.compress("".join(f"{row}\n" for row in ROWS[:40]).encode() * (2500 if piece_bytes > 1000 else 10), compresslevel=1)
    )
    data = criteo(path, batch_size=38)
    tracemalloc.start()
    try:
        data.batch(2400 if piece_bytes > 1000 else 5)
        assert data.samples == (95_000 if piece_bytes > 1000 else 380)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000  # of 23 MB of text
    finally:
        tracemalloc.stop()
