"""UCI Adult: small files written here, and the real ones where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from persia.data import DataError, DataSet, FeatureGroup, open_data
from persia.data.adult import ID_COLUMNS, UNSEEN_ID
from tests.support import ROOT

REAL = ROOT.parent / "shared" / "data" / "adult"
ROW = "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, United-States, <=50K"
OTHER = "50, ?, 83311, HS-grad, 9, Divorced, Sales, Husband, White, Female, 0, 1902, 13, Cuba, >50K"


def adult(path: Path, *, batch_size: int = 2, held_out_samples: int = 100, on_bad_row: str = "error") -> DataSet:
    return open_data(
        kind="adult",
        path=path,
        batch_size=batch_size,
        groups=[FeatureGroup(features=3, rows=43, ids_per_sample=1, zipf=1), FeatureGroup(features=5, rows=43, ids_per_sample=1, zipf=1)],
        dense_features=5,
        seed=1,
        held_out_samples=held_out_samples,
        on_bad_row="skip" if on_bad_row == "skip" else "error",
        distinct_batches=None,
    )


def write(folder: Path, trained: list[str], tested: list[str]) -> Path:
    (folder / "adult.data").write_text("".join(f"{line}\n" for line in trained), encoding="utf-8")
    (folder / "adult.test").write_text("".join(f"{line}\n" for line in tested), encoding="utf-8")
    return folder


def test_values_become_ids_by_first_appearance(tmp_path: Path) -> None:
    unseen = OTHER.replace("Cuba", "Peru").replace(">50K", ">50K.")
    data = adult(write(tmp_path, [ROW, OTHER, OTHER, ROW, ROW], ["|1x3 Cross validator", unseen, "", ROW + "."]))
    assert data.samples == 4
    first, second, again = (data.batch(number) for number in (0, 1, 2))
    assert first.labels.tolist() == [0, 1]
    assert second.labels.tolist() == [1, 0]
    assert again.number == 2
    assert again.labels.tolist() == [0, 1]
    # Features workclass, education, marital_status; each has its two values in the order of the file.
    assert first.groups[0].ids.tolist() == [0, 1, 0, 1, 0, 1]
    assert first.groups[0].offsets.tolist() == list(range(7))
    assert second.groups[0].ids.tolist() == [1, 0, 1, 0, 1, 0]
    # occupation, relationship, race (the same in both), gender, native_country
    assert first.groups[1].ids.tolist() == [0, 1, 0, 1, 0, 0, 0, 1, 0, 1]
    (held_out,) = data.held_out(10)
    assert held_out.labels.tolist() == [1, 0]
    assert held_out.groups[1].ids.tolist() == [1, 0, 1, 0, 0, 0, 1, 0, UNSEEN_ID, 0]
    assert data.best_auc() is None


def test_dense_features_are_standardised_by_the_training_rows(tmp_path: Path) -> None:
    data = adult(write(tmp_path, [ROW, OTHER], [ROW, OTHER, ROW]))
    np.testing.assert_allclose(data.batch(0).dense, [[-1, 1, 1, -1, 1], [1, -1, -1, 1, -1]], atol=1e-6)
    sizes = [len(batch.labels) for batch in data.held_out(2)]
    assert sizes == [2, 1]
    assert [len(batch.labels) for batch in adult(tmp_path, held_out_samples=1).held_out(2)] == [1]


def test_a_column_without_variance_is_zero(tmp_path: Path) -> None:
    assert np.abs(adult(write(tmp_path, [ROW, ROW], [ROW])).batch(0).dense).max() == 0


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("1, 2, 3", "3 fields; expected 15"),
        (ROW.replace("<=50K", "50K"), "the label is '50K'"),
        (ROW.replace("39,", "old,"), "age is 'old'; expected a whole number"),
        (ROW.replace("39,", "1e400,"), "age is '1e400'"),
        (ROW.replace("2174,", "-1,"), "capital_gain is '-1'"),
        (ROW.replace("State-gov", ""), "workclass is empty"),
        ("\udcff" + ROW, "byte 1 is no UTF-8"),
    ],
)
def test_bad_rows_are_named_or_skipped(tmp_path: Path, line: str, fragment: str) -> None:
    write(tmp_path, [ROW, OTHER], [ROW])
    (tmp_path / "adult.data").write_bytes(f"{ROW}\n{line}\n{OTHER}\n".encode(errors="surrogateescape"))
    with pytest.raises(DataError) as caught:
        adult(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'adult.data'}:2: {fragment}")
    assert "on_bad_row" in str(caught.value)
    data = adult(tmp_path, on_bad_row="skip")
    assert data.bad_rows == 1
    assert data.batch(0).labels.tolist() == [0, 1]


def test_missing_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or directory\. Point workload\.data\.path at"):
        adult(tmp_path / "nowhere")
    write(tmp_path, ["a,b", "c,d"], [ROW])
    with pytest.raises(DataError, match=r"no row of UCI Adult in 2 lines"):
        adult(tmp_path, on_bad_row="skip")
    write(tmp_path, [ROW], [ROW])
    with pytest.raises(DataError, match=r"Lower workload\.batch_size"):
        adult(tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="no folder ../shared/data/adult beside the repository with the files of UCI Adult")
def test_the_real_files() -> None:
    data = adult(REAL, batch_size=128, held_out_samples=20_000)
    assert data.samples == 254 * 128
    assert data.bad_rows == 0
    dense = np.concatenate([data.batch(number).dense for number in range(254)])
    np.testing.assert_allclose(dense.mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(dense.std(axis=0), 1, atol=0.02)
    ids = np.concatenate(
        [np.concatenate([bags.ids.reshape(-1, 128) for bags in data.batch(number).groups]) for number in range(254)], axis=1
    )
    assert dict(zip(ID_COLUMNS, (ids.max(axis=1) + 1).tolist(), strict=True)) == {
        "workclass": 9,
        "education": 16,
        "marital_status": 7,
        "occupation": 15,
        "relationship": 6,
        "race": 5,
        "gender": 2,
        "native_country": 42,
    }
    labels = np.concatenate([batch.labels for batch in data.held_out(1000)])
    assert len(labels) == 16_281
    assert labels.sum() == 3846
