"""What real runs learn: `python tests/benchmarks/bench_quality.py [--adult FOLDER] [--planted] [--figure auc.svg]`.

--adult FOLDER  UCI Adult (adult.data and adult.test in FOLDER), the packaged scenario: one pass, batch 128, dim 8, Adagrad
                1e-2, SGD 0.1.  Test AUC with one rank, and with two ranks in the modes hybrid and sync, all over the same
                seeds.  Bars: the mean with one rank at least 0.8929; hybrid's mean within 0.003 of sync's.
--planted       The packaged scenario planted-small: two ranks, two servers, two workers, 400 steps, the best reachable AUC
                known.  Sync, hybrid with 1 to 64 staleness permits, async; a Markdown table and a figure of AUC against
                permits.  Bar: hybrid with the scenario's permits within 0.002 AUC of sync.

Every figure is a mean over seeds, in brackets the least and the greatest.  Exits with 1 where a bar is missed.  Nothing here is
a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from persia.scenario import load_scenario
from tests.benchmarks.real_runs import markdown, train

ADULT_LEAST_AUC = 0.8929
ADULT_MODES_APART = 0.003
PLANTED_MODES_APART = 0.002
PERMITS = (1, 2, 4, 8, 16, 32, 64)
HEADER = ["run", "AUC", "log-loss", "staleness, updates", "samples/s", "AUC less sync's"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What one run has learnt, and how fast: staleness in updates."""

    auc: float
    logloss: float
    best_auc: float | None
    staleness: float
    samples_per_s: float


@dataclass(slots=True)
class Seeds:
    """One configuration's runs, a seed each."""

    name: str
    runs: list[Quality] = field(default_factory=list)

    @property
    def auc(self) -> float:
        """Mean AUC."""
        return fmean(run.auc for run in self.runs)

    @property
    def staleness(self) -> float:
        """Mean version staleness in updates."""
        return fmean(run.staleness for run in self.runs)

    def line(self, sync: Seeds | None = None) -> list[str]:
        """Return its line of the table."""
        aucs = [run.auc for run in self.runs]
        loss, speed = fmean(run.logloss for run in self.runs), fmean(run.samples_per_s for run in self.runs)
        auc = f"{self.auc:.4f} ({min(aucs):.4f} to {max(aucs):.4f})"
        apart = "" if sync is None else f"{self.auc - sync.auc:+.4f}"
        return [self.name, auc, f"{loss:.4f}", f"{self.staleness:.1f}", f"{speed:,.0f}", apart]


class Bench:
    """Trains configurations, each with every seed; `kept` is a file of runs that need not be trained again."""

    def __init__(self, seeds: int, kept: Path | None) -> None:
        self.seeds = seeds
        self._kept = kept
        lines = kept.read_text(encoding="utf-8").splitlines() if kept is not None and kept.exists() else []
        self._known = {key: Quality(**values) for key, values in map(json.loads, lines)}

    def trained(self, name: str, scenario: str, overrides: Sequence[str]) -> Seeds:
        """Return a configuration's runs; each that is trained is told on stderr."""
        return Seeds(name, [self._run(name, scenario, [*overrides, f"simulation.seed={seed}"]) for seed in range(1, self.seeds + 1)])

    def _run(self, name: str, scenario: str, overrides: list[str]) -> Quality:
        key = " ".join([scenario, *overrides])
        if key not in self._known:
            run = train(load_scenario(scenario, overrides))
            quality = run.result["quality"]
            self._known[key] = Quality(
                auc=run.auc,
                logloss=quality["logloss"],
                best_auc=quality["best_auc"],
                staleness=run.staleness,
                samples_per_s=run.result["throughput"]["samples_per_s"]["mean"] or 0.0,
            )
            print(f"{name}, {overrides[-1]}: AUC {run.auc:.4f}, {run.outcome.wall_s:.1f} s", file=sys.stderr, flush=True)
            if self._kept is not None:
                with self._kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([key, asdict(self._known[key])]) + "\n")
        return self._known[key]


def verdict(sentence: str, value: float, bar: float, *, at_least: bool = False) -> bool:
    """Print whether a bar is met, and return it."""
    met = value >= bar if at_least else value <= bar
    print(f"* {sentence}: {value:.4f}, bar {'at least' if at_least else 'at most'} {bar}: {'met' if met else 'MISSED'}")
    return met


def adult(folder: str, bench: Bench) -> bool:
    """Train and print UCI Adult; return whether its bars are met."""
    data = f"workload.data.path={folder}"
    two = [data, "cluster.tiers.nn_worker.processes_per_machine=2"]
    one = bench.trained("1 rank, hybrid", "adult", [data])
    hybrid = bench.trained("2 ranks, hybrid", "adult", [*two, "schedule.mode=hybrid"])
    sync = bench.trained("2 ranks, sync", "adult", [*two, "schedule.mode=sync"])
    print(f"UCI Adult, one pass, {bench.seeds} seeds\n")
    print(markdown(HEADER, [one.line(), sync.line(), hybrid.line(sync)]) + "\n")
    good = verdict("test AUC with one rank, mean", one.auc, ADULT_LEAST_AUC, at_least=True)
    good &= verdict("the same, least of all seeds", min(run.auc for run in one.runs), ADULT_LEAST_AUC, at_least=True)
    return good & verdict("two ranks, distance of hybrid from sync", abs(hybrid.auc - sync.auc), ADULT_MODES_APART)


def with_permits(permits: int) -> list[str]:
    """Return the overrides by which a rank uses all its permits, where it can: every window is as wide."""
    windows = ("staleness_permits", "lookups_in_flight", "prefetch_batches", "pushes_in_flight", "input_queue_batches")
    return ["schedule.mode=hybrid", *(f"schedule.{window}={permits}" for window in windows)]


def planted(bench: Bench, figure: Path | None, permits: Sequence[int]) -> bool:
    """Train and print the planted model; return whether its bar is met."""
    usual = load_scenario("planted-small").staleness_permits
    sync = bench.trained("sync", "planted-small", ["schedule.mode=sync"])
    hybrid = {count: bench.trained(f"hybrid, {count} permits", "planted-small", with_permits(count)) for count in permits}
    apart = bench.trained(f"async, {usual} permits", "planted-small", ["schedule.mode=async"])
    best = fmean(run.best_auc or 0.0 for run in sync.runs)
    print(f"Planted model, two ranks, {bench.seeds} seeds; the best reachable AUC is {best:.4f}\n")
    lines = [sync.line(sync), *(runs.line(sync) for runs in hybrid.values()), apart.line(sync)]
    print(markdown(HEADER, lines) + "\n")
    if figure is not None:
        draw(figure, sync, hybrid, apart)
        print(f"Figure: {figure}")
    if usual not in hybrid:
        return True
    return verdict(f"distance of hybrid, {usual} permits, from sync", abs(hybrid[usual].auc - sync.auc), PLANTED_MODES_APART)


def draw(path: Path, sync: Seeds, hybrid: dict[int, Seeds], apart: Seeds) -> None:
    """Draw AUC against permits, with each seed as a point, sync and async as lines; the file's name says the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    plot, axes = pyplot.subplots(figsize=(7.0, 4.0), layout="constrained")
    permits = list(hybrid)
    axes.plot(permits, [runs.auc for runs in hybrid.values()], "o-", color="tab:blue", label="hybrid, mean over seeds")
    for count, runs in hybrid.items():
        axes.plot([count] * len(runs.runs), [run.auc for run in runs.runs], ".", color="tab:blue", alpha=0.4)
        axes.annotate(f"{runs.staleness:.0f}", (count, runs.auc), textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8)
    axes.axhline(sync.auc, color="tab:green", label="sync")
    axes.axhspan(sync.auc - PLANTED_MODES_APART, sync.auc + PLANTED_MODES_APART, color="tab:green", alpha=0.12)
    axes.axhline(apart.auc, color="tab:red", linestyle="--", label=f"{apart.name} ({apart.staleness:.0f} updates stale)")
    axes.set_xscale("log", base=2)
    axes.set_xticks(permits, [str(count) for count in permits])
    axes.set_xlabel("staleness permits of a rank (numbers at points: mean version staleness, updates)")
    axes.set_ylabel("AUC on held-out samples")
    axes.set_title("AUC of the planted model against staleness")
    axes.legend()
    plot.savefig(path, dpi=120)


def main() -> int:
    """Run what is asked for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--adult", metavar="FOLDER", help="folder with adult.data and adult.test")
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--permits", nargs="+", type=int, default=list(PERMITS))
    parser.add_argument("--figure", type=Path, help="where the planted model's figure goes: .svg or .png")
    parser.add_argument("--kept", type=Path, help="a file of finished runs: those in it are not trained again, new ones are added")
    options = parser.parse_args()
    if not (options.adult or options.planted):
        parser.error("nothing to do: give --adult FOLDER, --planted or both")
    bench = Bench(options.seeds, options.kept)
    good = adult(options.adult, bench) if options.adult else True
    if options.planted:
        good &= planted(bench, options.figure, options.permits)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
