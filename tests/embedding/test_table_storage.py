"""Tables in folders: left and found again, in use, foreign, damaged."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding.layout import sections
from persia.embedding.storage import DATA_NAME, MANIFEST_NAME, Storage, StorageError
from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import check, looked_up, ones, peeked, spec_of, u64


def test_a_table_is_found_again_as_it_was_left(tmp_path: Path) -> None:
    table = EmbeddingTable.create(spec_of(optimizer="adam"), tmp_path)
    looked_up(table, 1, 2, 3)
    table.update(u64(1, 3), ones(table, 2), number=7)
    rows, left = table.export(), peeked(table, 1, 2, 3)
    table.close()
    with EmbeddingTable.attach(tmp_path) as again:
        assert again.spec == spec_of(optimizer="adam")
        assert (peeked(again, 1, 2, 3) == left).all()
        assert (again.export().state == rows.state).all()
        assert again.pending() == [7]
        assert again.step == 1
        again.update(u64(1, 3), ones(again, 2), number=7)
        assert (peeked(again, 1, 2, 3) == left).all()
        check(again)


def test_a_folder_holds_one_table(tmp_path: Path) -> None:
    EmbeddingTable.create(spec_of(), tmp_path).close()
    with pytest.raises(StorageError, match="already holds a table"):
        EmbeddingTable.create(spec_of(), tmp_path)


def test_a_table_has_one_user(tmp_path: Path) -> None:
    with EmbeddingTable.create(spec_of(), tmp_path), pytest.raises(StorageError, match="in use"):
        EmbeddingTable.attach(tmp_path)
    EmbeddingTable.attach(tmp_path).close()


def test_half_made_table_is_none_and_can_be_made_again(tmp_path: Path) -> None:
    Storage.create(spec_of(capacity_rows=100), tmp_path).close()
    with pytest.raises(StorageError, match="no table"):
        EmbeddingTable.attach(tmp_path)
    with EmbeddingTable.create(spec_of(), tmp_path) as table:
        looked_up(table, 1)
        check(table)


def test_folder_without_a_table(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no table"):
        EmbeddingTable.attach(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "spec": {}}', '{"format": 1, "spec": {"dim": 3}}', '{"format": 1}'])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    EmbeddingTable.create(spec_of(), tmp_path).close()
    (tmp_path / MANIFEST_NAME).write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=MANIFEST_NAME):
        EmbeddingTable.attach(tmp_path)


def test_file_of_another_size(tmp_path: Path) -> None:
    EmbeddingTable.create(spec_of(), tmp_path).close()
    manifest = json.loads((tmp_path / MANIFEST_NAME).read_text(encoding="utf-8"))
    manifest["spec"]["capacity_rows"] = 5000
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(StorageError, match="bytes"):
        EmbeddingTable.attach(tmp_path)


def test_full_file_system_is_an_error_and_not_a_dead_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking space is what fails, before a kernel writes; the real call cannot be made to fail without a file system of one's own."""
    table = EmbeddingTable.create(spec_of(), tmp_path)

    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        looked_up(table, 1)
    monkeypatch.undo()
    looked_up(table, 1)
    assert table.rows == 1
    table.close()


def test_file_grows_with_the_rows(tmp_path: Path) -> None:
    spec = spec_of(dim=16, capacity_rows=400_000)
    with EmbeddingTable.create(spec, tmp_path) as table:
        looked_up(table, 1)
        few = table.resident_bytes
        assert few < 0.6 * spec.bytes_per_row * spec.capacity_rows
        table.lookup(np.arange(400_000, dtype=np.uint64), np.empty((400_000, 16), np.float32))
        assert table.resident_bytes > few
        assert table.resident_bytes_per_row < spec.bytes_per_row + 2


def test_sections_do_not_overlap() -> None:
    placed = sections(spec_of(dim=33, capacity_rows=100_001, bytes_per_parameter=2))
    for section, following in pairwise(placed):
        assert section.start % 4096 == 0
        assert section.start + section.size_bytes <= following.start


def test_data_lies_in_one_file(tmp_path: Path) -> None:
    EmbeddingTable.create(spec_of(), tmp_path).close()
    assert {path.name for path in tmp_path.iterdir()} == {DATA_NAME, MANIFEST_NAME}
