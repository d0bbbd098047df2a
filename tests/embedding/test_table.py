"""One table: what its methods promise, one by one."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from persia.embedding.hashing import GOLDEN, initial_rows
from persia.embedding.layout import JOURNAL_ENTRIES
from persia.embedding.table import EmbeddingTable
from tests.embedding.table_checks import check, looked_up, ones, peeked, spec_of, u64

MASK = 2**64 - 1


def mix(bits: int) -> int:
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & MASK
    return bits ^ bits >> 31


def test_initial_rows_are_a_published_function_of_seed_and_key() -> None:
    spec = spec_of(dim=5, seed=9, init_bound=0.5)
    for key in (0, 1, 3 << 48 | 77, 2**63 + 5):
        origin = mix(mix(9 + int(GOLDEN) & MASK) ^ key)
        bits = [mix(origin + column * int(GOLDEN) & MASK) >> 40 for column in range(5)]
        expected = [np.float32((value * 2.0**-23 - 1.0) * 0.5) for value in bits]
        assert initial_rows(u64(key), spec)[0].tolist() == expected


def test_initial_rows_are_uniform() -> None:
    rows = initial_rows(np.arange(2000, dtype=np.uint64), spec_of(dim=8, init_bound=0.01))
    assert np.abs(rows).max() <= 0.01
    assert abs(rows.mean()) < 2e-4
    assert rows.std() == pytest.approx(0.01 / np.sqrt(3), rel=0.02)
    assert len(np.unique(rows)) > 15900


def test_lookup_inserts_and_returns_initial_rows() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        assert (looked_up(table, 3, 5, 3) == initial_rows(u64(3, 5, 3), table.spec)).all()
        assert table.rows == 2
        assert table.counters["misses"] == 2
        assert table.counters["hits"] == 1


def test_peek_changes_nothing() -> None:
    with EmbeddingTable.create(spec_of(capacity_rows=2), None) as table:
        looked_up(table, 1, 2)
        assert (peeked(table, 1, 9) == np.concatenate([initial_rows(u64(1), table.spec), np.zeros((1, 4), np.float32)])).all()
        looked_up(table, 3)
        assert table.export().keys.tolist() == [2, 3]


def test_update_does_not_refresh() -> None:
    with EmbeddingTable.create(spec_of(capacity_rows=2), None) as table:
        looked_up(table, 1, 2)
        table.update(u64(1), ones(table, 1), number=0)
        looked_up(table, 3)
        assert table.export().keys.tolist() == [2, 3]


def test_evicted_row_starts_anew_with_fresh_state() -> None:
    with EmbeddingTable.create(spec_of(capacity_rows=1), None) as table:
        looked_up(table, 1)
        table.update(u64(1), ones(table, 1), number=0)
        looked_up(table, 2)
        assert (looked_up(table, 1) == initial_rows(u64(1), table.spec)).all()
        assert (table.export().state == 0).all()
        assert table.counters["evictions"] == 2
        check(table)


def test_update_of_unknown_keys_is_counted_and_touches_no_other_row() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        looked_up(table, 1, 2)
        gradients = np.stack([np.full(4, value, np.float32) for value in (9.0, 1.0, 9.0, 2.0)])
        table.update(u64(7, 1, 8, 2), gradients, number=0)
        expected = initial_rows(u64(1, 2), table.spec) - np.float32(0.1)  # Adagrad's first step has the rate's length
        assert peeked(table, 1, 2) == pytest.approx(expected, abs=1e-6)
        assert table.rows == 2
        assert table.counters["gradient_id_misses"] == 2


def test_an_update_is_applied_once_until_forgotten() -> None:
    with EmbeddingTable.create(spec_of(optimizer="sgd", learning_rate=1.0), None) as table:
        before = looked_up(table, 1)
        for _ in range(3):
            table.update(u64(1), ones(table, 1), number=5)
        assert peeked(table, 1) == pytest.approx(before - 1)
        assert table.pending() == [5]
        table.forget(5)
        table.forget(5)
        table.update(u64(1), ones(table, 1), number=5)
        assert peeked(table, 1) == pytest.approx(before - 2)


def test_pending_update_with_other_keys_is_refused() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        looked_up(table, 1, 2)
        table.update(u64(1, 2), ones(table, 2), number=5)
        for keys in (u64(2, 1), u64(1)):
            with pytest.raises(ValueError, match="update 5 is pending with other keys"):
                table.update(keys, ones(table, len(keys)), number=5)


def test_many_updates_can_be_pending_but_not_any_number() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        for number in range(JOURNAL_ENTRIES):
            table.update(u64(), ones(table, 0), number=-number)
        with pytest.raises(RuntimeError, match="forget"):
            table.update(u64(), ones(table, 0), number=1)
        assert table.pending() == [-number for number in range(JOURNAL_ENTRIES)]
        assert table.step == JOURNAL_ENTRIES


def test_admission_is_deterministic_and_near_its_probability() -> None:
    def admitted() -> list[int]:
        with EmbeddingTable.create(spec_of(capacity_rows=4000, admission_probability=0.25), None) as table:
            rows = looked_up(table, *range(4000))
            assert (rows == initial_rows(np.arange(4000, dtype=np.uint64), table.spec)).all()
            assert table.counters["not_admitted"] + table.rows == table.counters["misses"] == 4000
            return table.export().keys.tolist()

    first = admitted()
    assert first == admitted()
    assert 900 < len(first) < 1100


def test_a_refused_key_may_come_in_later() -> None:
    with EmbeddingTable.create(spec_of(admission_probability=0.5), None) as table:
        for _ in range(60):
            looked_up(table, 1)
        assert table.rows == 1
        assert table.counters["hits"] > 0


def test_admission_of_nothing() -> None:
    with EmbeddingTable.create(spec_of(admission_probability=0.0), None) as table:
        looked_up(table, *range(100))
        assert table.rows == 0


@pytest.mark.parametrize("bytes_per_parameter", [2, 4])
def test_rows_travel_to_a_table_of_another_capacity(bytes_per_parameter: int) -> None:
    spec = spec_of(bytes_per_parameter=bytes_per_parameter, dim=3, optimizer="adam")
    with EmbeddingTable.create(spec, None) as table:
        looked_up(table, *range(8))
        table.update(np.arange(8, dtype=np.uint64), ones(table, 8), number=0)
        looked_up(table, 2)
        rows = table.export()
    assert rows.keys.tolist() == [0, 1, 3, 4, 5, 6, 7, 2]
    with EmbeddingTable.create(spec_of(bytes_per_parameter=bytes_per_parameter, dim=3, optimizer="adam", capacity_rows=3), None) as small:
        small.load(rows)
        assert small.export().keys.tolist() == [6, 7, 2]
        assert (small.export().values == rows.values[-3:]).all()
        assert (small.export().state == rows.state[-3:]).all()
        assert small.step == 1
        check(small)


def test_rows_of_the_other_precision_are_converted() -> None:
    with EmbeddingTable.create(spec_of(), None) as table, EmbeddingTable.create(spec_of(bytes_per_parameter=2), None) as half:
        values = looked_up(table, 1, 2)
        half.load(table.export())
        assert half.export().values.dtype == np.float16
        assert (peeked(half, 1, 2) == values.astype(np.float16)).all()
        table.load(half.export())
        assert (peeked(table, 1, 2) == values.astype(np.float16)).all()


def test_fp16_rows_saturate_and_show_divergence() -> None:
    with EmbeddingTable.create(spec_of(bytes_per_parameter=2, optimizer="sgd", learning_rate=1.0), None) as table:
        looked_up(table, 1, 2)
        table.update(u64(1, 2), np.array([[-1e9, 1e9, 0, 1], [np.nan, np.inf, 0, 1]], np.float32), number=0)
        rows = peeked(table, 1, 2)
        assert rows[0, :2].tolist() == [65504.0, -65504.0]
        assert np.isnan(rows[1, 0])
        assert rows[1, 1] == -65504.0


def test_key_of_an_empty_slot_is_never_stored() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        looked_up(table, 2**64 - 1)
        table.update(u64(2**64 - 1), ones(table, 1), number=0)
        assert table.rows == 0
        check(table)


def test_read_only_and_unaligned_operands_are_taken() -> None:
    raw = np.frombuffer(b"\0" + u64(4, 5).tobytes(), np.uint8)[1:].view(np.uint64)
    with EmbeddingTable.create(spec_of(), None) as table:
        out = np.empty((2, 4), np.float32)
        table.lookup(raw, out)
        assert (out == initial_rows(u64(4, 5), table.spec)).all()


def test_wrong_operands_are_refused() -> None:
    with EmbeddingTable.create(spec_of(), None) as table:
        out = np.empty((2, 4), np.float32)
        with pytest.raises(ValueError, match="keys must be uint64"):
            table.lookup(np.array([1, 2]), out)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="shape"):
            table.lookup(u64(1), out)
        with pytest.raises(ValueError, match="writable"):
            table.peek(u64(1, 2), out.T.copy().T)
        with pytest.raises(ValueError, match="gradients must be float32"):
            table.update(u64(1, 2), out.astype(np.float64), number=0)  # type: ignore[arg-type]
        assert table.pending() == []


def test_resident_bytes_of_a_full_table() -> None:
    spec = spec_of(dim=16, capacity_rows=50_000)
    with EmbeddingTable.create(spec, None) as table:
        looked_up(table, *range(50_000))
        # The journal and the room for undoing do not grow with the rows.
        assert spec.bytes_per_row < table.resident_bytes_per_row < spec.bytes_per_row + 10
        assert spec.bytes_per_row == 128 + 16 + 12
