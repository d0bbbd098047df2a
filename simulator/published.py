"""The published throughputs, predicted: which rows were fitted, which are predictions, and how far off each is."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

from persia.scenario import load_profile
from simulator.run import simulate

FITTED_TOLERANCE_PCT = 3.0
PREDICTED_TOLERANCE_PCT = 15.0
_PROFILE = "persia-original"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRow:
    """One published throughput (samples a second) beside the simulator's; `error_pct` is signed, predicted over published."""

    experiment: str
    dataset: str
    mode: str
    accelerators: int
    params_trillion: float
    published: float
    plus_minus: float
    predicted: float
    error_pct: float
    fitted: bool
    scenario: str

    @property
    def within_tolerance(self) -> bool:
        """Return whether the row is as close as its kind must be."""
        return abs(self.error_pct) <= (FITTED_TOLERANCE_PCT if self.fitted else PREDICTED_TOLERANCE_PCT)


def validate_published(progress: Callable[[float], None] | None = None) -> list[PublishedRow]:
    """Simulate the scenario of every published row, in the table's order; `progress` hears the fraction done."""
    text = (files("scenarios") / "published.csv").read_text(encoding="utf-8")
    published = list(csv.DictReader(text.splitlines()))
    fitted = {row for constant in load_profile(_PROFILE).constants.values() for row in constant.fitted_to}
    rows = []
    for number, row in enumerate(published):
        rows.append(_predict(row, fitted))
        if progress is not None:
            progress((number + 1) / len(published))
    return rows


def _predict(row: dict[str, str], fitted: set[str]) -> PublishedRow:
    overrides = [f"schedule.mode={row['mode']}"]
    if row["set"]:
        overrides += row["set"].split(";")
    predicted = simulate(row["scenario"], overrides=overrides).throughput.samples_per_s.mean
    published = float(row["samples_per_s"])
    return PublishedRow(
        experiment=row["experiment"],
        dataset=row["dataset"],
        mode=row["mode"],
        accelerators=int(row["accelerators"]),
        params_trillion=float(row["params_trillion"]),
        published=published,
        plus_minus=float(row["plus_minus"]),
        predicted=predicted,
        error_pct=100.0 * (predicted / published - 1.0),
        fitted=row["row"] in fitted,
        scenario=row["scenario"],
    )
