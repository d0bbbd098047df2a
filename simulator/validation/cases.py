"""The cases of a validation: the committed grid, and draws of new ones from the same space.

The space is `scenarios/validation/space.csv`: for each path of a scenario the values it may take.  A case is the base
scenario, `base.yaml` beside it, with one value for every path; `grid.csv` holds 24 of them, drawn once, before any was run.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from persia.scenario import Scenario, load_scenario

_FOLDER = files("scenarios") / "validation"
_IDS = ("workload.batch_size", "model.features[0].count", "model.features[0].ids_per_sample")
IDS_PER_BATCH_MAX = 700_000  # beyond, one batch takes seconds on a small machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case: its name, what it sets, and in which scenario."""

    name: str
    settings: Mapping[str, str]
    base: str = str(_FOLDER / "base.yaml")

    def overrides(self) -> list[str]:
        """Return the settings as `path=value`."""
        return [f"{path}={value}" for path, value in self.settings.items()]

    def scenario(self, overrides: Sequence[str] = ()) -> Scenario:
        """Return the case's scenario; `overrides` come last."""
        return load_scenario(self.base, [*self.overrides(), f"name={self.name}", *overrides])


def grid() -> list[Case]:
    """Return the committed grid."""
    return [Case(name=row.pop("name"), settings=row) for row in _rows("grid.csv")]


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((_FOLDER / name).read_text(encoding="utf-8").splitlines()))


def draw(count: int, seed: int) -> list[Case]:
    """Return `count` cases drawn from the space; those whose batches hold too many IDs are drawn again.

    Modes are dealt out in turn, so that a small draw has all of them; everything else is drawn independently.
    """
    space = {row["path"]: row["values"].split() for row in _rows("space.csv")}
    generator = np.random.default_rng(np.random.SeedSequence([seed, 0x7065727369]))
    modes = space.pop("schedule.mode")
    start = int(generator.integers(len(modes)))
    cases = []
    for number in range(count):
        settings = {"schedule.mode": modes[(start + number) % len(modes)]}
        settings |= _drawn(space, generator)
        cases.append(Case(name=f"random-{seed}-{number + 1}", settings=settings))
    return cases


def _drawn(space: Mapping[str, Sequence[str]], generator: np.random.Generator) -> dict[str, str]:
    while True:
        settings = {path: values[int(generator.integers(len(values)))] for path, values in space.items()}
        if math.prod(int(settings[path]) for path in _IDS) <= IDS_PER_BATCH_MAX:
            return settings
