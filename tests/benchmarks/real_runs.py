"""What the benchmarks of whole runs share: a scenario trained for real, as `persia train` does it, and its result."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.commands.training import log_digest, result_json  # noqa: E402 (the checkout need not be installed)
from persia.runtime import coordinator  # noqa: E402
from persia.runtime.coordinator import Options, Outcome  # noqa: E402
from persia.scenario import Scenario  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run that has ended well: its outcome, and what `persia train --json` prints of it."""

    outcome: Outcome
    result: dict[str, Any]

    @property
    def auc(self) -> float:
        """AUC on the held-out samples after the last step."""
        return float(self.result["quality"]["auc"])

    @property
    def staleness(self) -> float:
        """Mean version staleness, in updates."""
        version = self.result["staleness"]["version"]
        return 0.0 if version is None else float(version["mean"])

    def samples_per_s(self, skipped_steps: int) -> float:
        """Return samples/s from the end of step `skipped_steps` to the last step's end."""
        plan = self.outcome.plan
        end_s = self.outcome.trained_s[plan.ranks - 1 :: plan.ranks][skipped_steps - 1 :]
        return plan.ranks * plan.batch_size * (len(end_s) - 1) / (end_s[-1] - end_s[0])


def train(scenario: Scenario) -> Trained:
    """Train a scenario with processes of its own for every role, into a folder that is removed; no model is saved.

    Raises:
        RunFailed: the run cannot go on.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        text = yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False)
        (folder / "scenario.yaml").write_text(text, encoding="utf-8")
        outcome = coordinator.run(scenario, folder, options=Options(save=False))
        attempt = sorted((folder / "attempts").iterdir())[-1]
        return Trained(outcome=outcome, result=result_json(scenario, outcome, digest=log_digest(attempt)))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left, all others to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
