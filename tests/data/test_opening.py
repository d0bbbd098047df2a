"""A data set that does not fit the model is refused, in words that name what to change."""

from __future__ import annotations

from typing import Any

import pytest

from persia.data import DataError, FeatureGroup, open_data
from persia.data.opening import FILE_SHAPES
from persia.scenario import list_scenarios, load_scenario
from persia.scenario.rules import FILE_FEATURES


def opened(**changes: Any) -> None:
    group = FeatureGroup(features=26, rows=100, ids_per_sample=1, zipf=1)
    arguments = {
        "kind": "synthetic",
        "path": None,
        "batch_size": 8,
        "groups": [group],
        "dense_features": 13,
        "seed": 1,
        "held_out_samples": 10,
        "on_bad_row": "error",
        "distinct_batches": None,
    }
    open_data(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"kind": "avazu"}, "unknown data set 'avazu'; expected synthetic, criteo-tsv or adult"),
        ({"batch_size": 0}, "a batch of 0 samples"),
        ({"kind": "criteo-tsv"}, "without a path"),
        ({"kind": "adult", "path": "x"}, "26 categorical and 13 dense features; adult has 8 and 5"),
        ({"kind": "criteo-tsv", "path": "x", "dense_features": 0}, "criteo-tsv has 26 and 13"),
        ({"distinct_batches": 0}, "0 distinct batches"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], fragment: str) -> None:
    with pytest.raises(DataError) as caught:
        opened(**changes)
    assert fragment in str(caught.value)


def test_a_scenario_is_checked_by_the_same_numbers() -> None:
    assert FILE_SHAPES == FILE_FEATURES


@pytest.mark.parametrize("name", list_scenarios())
def test_every_packaged_scenario_s_data_fits_its_model(name: str) -> None:
    scenario = load_scenario(name)
    shape = FILE_SHAPES.get(scenario.workload.data.kind)
    assert shape in (None, (scenario.model.feature_count, scenario.model.dense.dense_features))


@pytest.mark.parametrize("name", ["adult", "planted-small"])
def test_small_scenarios_train_whole_steps(name: str) -> None:
    scenario = load_scenario(name)
    assert scenario.workload.samples % (scenario.workload.batch_size * scenario.ranks) == 0
