"""What a real run says: the keys of a simulation's JSON, measured; null where a real run cannot know."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from persia.runtime.coordinator import Outcome
from persia.runtime.records import LOGS
from persia.scenario import TIER_NAMES, Scenario
from simulator.run import measured, step_time
from simulator.statistics import staleness_from_histogram

SCHEMA_VERSION = 1
_GIB = 2.0**30
_READ_BYTES = 1 << 20


def result_json(scenario: Scenario, outcome: Outcome, *, digest: str) -> dict[str, Any]:
    """Return the object of `persia train --json`."""
    plan = outcome.plan
    step_end_s = outcome.trained_s[plan.ranks - 1 :: plan.ranks]
    used = _utilisation(outcome, step_end_s[-1] - step_end_s[0] if len(step_end_s) > 1 else 0.0)
    stats = {tier: [life for (role, _), lives in outcome.stats.items() if role == tier for life in lives] for tier in TIER_NAMES}
    quality = outcome.qualities[-1] if outcome.qualities else {"auc": None, "logloss": None, "best_auc": None, "samples": 0}
    return {
        "schema_version": SCHEMA_VERSION,
        "scenario": scenario.name,
        "digest": digest,
        "seed": scenario.simulation.seed,
        "emulated": scenario.simulation.emulated_accelerator,
        "mode": scenario.schedule.mode,
        "ranks": plan.ranks,
        "batch_size": plan.batch_size,
        "steps": plan.stop_batch // plan.ranks,
        "samples": outcome.samples,
        **_speed(step_end_s, float(plan.ranks * plan.batch_size)),
        "staleness": {
            "version": _staleness(stats["parameter_server"], "version"),
            "in_flight": _staleness(stats["nn_worker"], "in_flight"),
            "row": None,
        },
        "utilisation": used,
        "bottleneck": _bottleneck(used),
        "memory": {tier: _memory(stats[tier]) for tier in TIER_NAMES},
        "cost": {"usd_per_hour": None, "usd_per_billion_samples": None},
        "events": None,
        "wall_s": outcome.wall_s,
        "quality": {key: quality[key] for key in ("auc", "logloss", "best_auc", "samples")},
        "evaluations": outcome.qualities,
        "loss": _mean_loss(outcome.losses[-50:]),
        "stages_s": _stages(stats),
        "counts": _counts(stats),
        "attempts": outcome.attempts,
        "restarts": outcome.restarts,
        "checkpoint": str(outcome.checkpoint) if outcome.checkpoint else None,
    }


def _mean_loss(losses: Sequence[float]) -> float | None:
    """Return the mean; None without a loss, and where the dense part was emulated, which has none (NaN)."""
    known = [loss for loss in losses if not math.isnan(loss)]
    return fmean(known) if known else None


def _speed(step_end_s: list[float], samples_per_step: float) -> dict[str, Any]:
    """Return throughput and step time over the measured window; null where the run was too short to measure."""
    if len(step_end_s) < 10:
        empty = {"mean": None, "low": None, "high": None}
        return {"throughput": {"samples_per_s": empty}, "step_time_s": {"p50": None, "p95": None, "p99": None}, "warmup_steps": None}
    warmup, interval = measured(step_end_s, samples_per_step)
    return {
        "throughput": {"samples_per_s": asdict(interval)},
        "step_time_s": asdict(step_time(step_end_s[warmup - 1 :])),
        "warmup_steps": warmup,
    }


def _staleness(lives: list[Mapping[str, Any]], name: str) -> dict[str, Any] | None:
    histogram: Counter[int] = Counter()
    for life in lives:
        histogram.update({int(value): count for value, count in life[name].items()})
    return asdict(staleness_from_histogram({value: float(count) for value, count in histogram.items()})) if histogram else None


def _utilisation(outcome: Outcome, measured_s: float) -> dict[str, dict[str, float]]:
    """Return for the busiest process of each tier: processor seconds per second of the run, and the share of time at work."""
    used: dict[str, dict[str, float]] = {}
    for tier in TIER_NAMES:
        processes = [lives for (role, _), lives in outcome.stats.items() if role == tier]
        cpu_s = max((sum(life["cpu_s"] for life in lives) for lives in processes), default=0.0)
        busy_s = max((sum(_worked_s(tier, life) for life in lives) for lives in processes), default=0.0)
        used[tier] = {"cpu": cpu_s / max(outcome.wall_s, 1e-9), "busy": min(1.0, busy_s / max(measured_s, 1e-9))}
    return used


def _worked_s(tier: str, life: Mapping[str, Any]) -> float:
    """Return the seconds of a process's own work; a rank's lookups and pushes are its waits for others."""
    return float(sum(seconds for name, seconds in life["busy_s"].items() if tier != "nn_worker" or name not in ("lookup", "push")))


def _bottleneck(used: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    tier = max(used, key=lambda name: used[name]["busy"])
    share = used[tier]["busy"]
    names = {
        "loader": "data loader",
        "embedding_worker": "embedding worker",
        "parameter_server": "parameter server",
        "nn_worker": "NN worker",
    }
    return {"tier": tier, "resource": "process", "sentence": f"The busiest {names[tier]} works for {share:.0%} of the measured time."}


def _memory(lives: list[Mapping[str, Any]]) -> dict[str, Any]:
    return {"needed_gib": sum(life["resident_bytes"] for life in lives) / _GIB, "available_gib": None, "fits": True}


def _stages(stats: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return the seconds that each tier's processes spent in each piece of work."""
    return {tier: dict(sum((Counter(life["busy_s"]) for life in lives), Counter())) for tier, lives in stats.items()}


def _counts(stats: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    return {tier: dict(sum((Counter(life["counts"]) for life in lives), Counter())) for tier, lives in stats.items()}


def log_digest(attempt: Path) -> str:
    """Return the SHA-256 of an attempt's event logs, file by file in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted((attempt / LOGS).glob("*.jsonl")):
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            yield block


def summary(result: Mapping[str, Any]) -> list[str]:
    """Return the lines that a terminal shows."""
    speed = result["throughput"]["samples_per_s"]
    quality, version, step = result["quality"], result["staleness"]["version"], result["step_time_s"]
    emulated = f" · emulated {result['emulated']}" if result["emulated"] else ""
    lines = [f"{result['scenario']} · {result['mode']} · trained{emulated}", ""]
    if speed["mean"] is not None:
        lines.append(f"Speed       {speed['mean']:,.0f} samples/s, 95 % interval {speed['low']:,.0f} to {speed['high']:,.0f}")
        size = f"{result['ranks']} x {result['batch_size']:,} samples"
        lines.append(f"Step        {step['p50'] * 1e3:.1f} ms (p50), {step['p99'] * 1e3:.1f} ms (p99), {size}")
    lines.append(f"Trained     {result['samples']:,} samples in {result['steps']:,} steps, {result['wall_s']:.1f} s with start and end")
    if quality["auc"] is not None:
        best = f", best possible {quality['best_auc']:.4f}" if quality["best_auc"] is not None else ""
        lines.append(
            f"Quality     AUC {quality['auc']:.4f}{best}; log-loss {quality['logloss']:.4f} on {quality['samples']:,} held-out samples"
        )
    if version is not None:
        lines.append(f"Staleness   {version['mean']:.2f} updates on average, p99 {version['p99']:.0f}")
    lines.append(f"Bottleneck  {result['bottleneck']['sentence']}")
    if result["restarts"] or result["attempts"] > 1:
        lines.append(f"Failures    {result['restarts']} processes restarted, {result['attempts']} attempts")
    if result["checkpoint"]:
        lines.append(f"Model       {result['checkpoint']}")
    return lines
