"""What the benchmarks of whole runs share: a scenario trained for real, as `persia train` does it, and its result."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from persia.commands.training import log_digest, result_json  # noqa: E402 (the checkout need not be installed)
from persia.runtime import coordinator  # noqa: E402
from persia.runtime.coordinator import Attempt, Options, Outcome, Progress  # noqa: E402
from persia.scenario import Scenario  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run that has ended well: its outcome, and what `persia train --json` prints of it."""

    outcome: Outcome
    result: dict[str, Any]
    spent: list[tuple[int, Counter[str]]]  # now and then: samples trained so far, CPU seconds of each role's processes so far

    @property
    def auc(self) -> float:
        """AUC on the held-out samples after the last step."""
        return float(self.result["quality"]["auc"])

    @property
    def loss(self) -> float:
        """Mean loss of the last 50 batches."""
        return float(self.result["loss"])

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

    def cpu_s_per_sample(self, skipped_steps: int) -> dict[str, float]:
        """Return each role's CPU seconds for a sample, all its processes together, starts and first steps left out."""
        skipped = skipped_steps * self.outcome.plan.ranks * self.outcome.plan.batch_size
        points = [point for point in self.spent if point[0] >= skipped]
        (first, before), (last, after) = points[0], points[-1]
        return {role: (after[role] - before[role]) / max(1, last - first) for role in after}


class _Meter:
    """Reads the CPU seconds of a run's processes, this one included, whenever training has got on."""

    def __init__(self) -> None:
        self.points: list[tuple[int, Counter[str]]] = []
        self._attempt: Attempt | None = None

    def started(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def progressed(self, progress: Progress) -> None:
        if self._attempt is None or progress.phase != "training" or (self.points and self.points[-1][0] == progress.samples):
            return
        cpu_s = Counter({"coordinator": _cpu_s(os.getpid())})
        for (role, _), pid in self._attempt.processes.pids().items():
            cpu_s[role] += _cpu_s(pid)
        self.points.append((progress.samples, cpu_s))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def train(scenario: Scenario) -> Trained:
    """Train a scenario with processes of its own for every role, into a folder that is removed; no model is saved.

    Raises:
        RunFailed: the run cannot go on.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        text = yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False)
        (folder / "scenario.yaml").write_text(text, encoding="utf-8")
        meter = _Meter()
        outcome = coordinator.run(scenario, folder, options=Options(save=False), progress=meter.progressed, started=meter.started)
        attempt = sorted((folder / "attempts").iterdir())[-1]
        return Trained(outcome=outcome, result=result_json(scenario, outcome, digest=log_digest(attempt)), spent=meter.points)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left, all others to the right."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
