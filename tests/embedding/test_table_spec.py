"""Specs of tables: what they refuse, and how many rows fit."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("numba")

from persia.embedding.spec import OPTIMIZERS, TableSpec
from simulator.rows import Rows
from tests.embedding.table_checks import spec_of


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dim", 0),
        ("optimizer", "lamb"),
        ("learning_rate", float("nan")),
        ("capacity_rows", 0),
        ("capacity_rows", 2**31),
        ("seed", -1),
        ("bytes_per_parameter", 3),
        ("init_bound", -0.1),
        ("admission_probability", 1.1),
    ],
)
def test_impossible_specs_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        spec_of(**{field: value})


def test_json_round_trip() -> None:
    spec = spec_of(bytes_per_parameter=2)
    assert TableSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize("change", [{"dim": "4"}, {"dim": True}, {"name": 4}, {"more": 1}, {"dim": 0}])
def test_foreign_json_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="table"):
        TableSpec.from_json(spec_of().to_json() | change)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_simulator_counts_the_same_state(optimizer: Any) -> None:
    spec = spec_of(optimizer=optimizer, dim=24)
    assert Rows(rows=1, dim=24, bytes_per_parameter=4, optimizer=optimizer).state_bytes == 4 * spec.state_dim


def test_capacity_from_bytes() -> None:
    spec = spec_of(dim=16).with_capacity_bytes(1e6)
    assert spec.capacity_rows * spec.bytes_per_row <= 1e6 < (spec.capacity_rows + 1) * spec.bytes_per_row
    with pytest.raises(ValueError, match="capacity_rows"):
        spec.with_capacity_bytes(10)
