"""A validation for a terminal: throughput, staleness and stages of each case in both worlds, then all cases in a few lines."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from reports.terminal import render
from reports.words import half_width, mode_rank
from simulator.validation.result import ERROR_MOST_PCT, MEAN_ERROR_MOST_PCT, QUANTILES, TAU_LEAST, CaseResult, Validation

WIDTH = 100
STAGES = (
    ("nn_worker.lookup", "look up"),
    ("nn_worker.train", "train"),
    ("nn_worker.push", "push"),
    ("embedding_worker.dedup", "dedup"),
    ("embedding_worker.pool", "pool"),
    ("embedding_worker.un-pool", "un-pool"),
    ("parameter_server.lookup", "serve"),
    ("parameter_server.update", "update"),
)


def validation_tables(validation: Validation, *, width: int = WIDTH) -> str:
    """Return the three tables, the misses and the summary."""
    cases = sorted(validation.cases, key=lambda case: mode_rank(case.mode)) if validation.kind == "random" else list(validation.cases)
    parts: list[RenderableType] = [_throughput(cases), _staleness(cases), _stages(cases), Text("\n".join(summary_lines(validation)))]
    return render(Group(*parts), width=width)


def _table(title: str, columns: str, first: int) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, column in enumerate(columns.split("|")):
        table.add_column(column, justify="left" if number < first else "right", no_wrap=True)
    table.add_column("", no_wrap=True)
    return table


def _verdict(case: CaseResult, *, of: str) -> Text:
    if case.failure:
        return Text("MISS", style="bold red")
    return Text("MISS", style="bold red") if any(miss.startswith(of) for miss in case.misses) else Text("")


def _throughput(cases: list[CaseResult]) -> Table:
    """Return measured and simulated samples/s with the half-widths of their 95 % intervals, and the errors of step times."""
    table = _table(
        "Throughput, samples/s, with errors in %, those of the step time too",
        "Case|Mode|Measured|±%|Simulated|±%|Error|p50|p95|p99|In 90 %",
        2,
    )
    for case in cases:
        both = case.worlds
        if both is None or case.error_pct is None:
            table.add_row(case.name, case.mode, *[""] * 9, _verdict(case, of="throughput"))
            continue
        speeds = [text for world in both for text in (f"{world.samples_per_s.mean:,.0f}", f"{100 * half_width(world.samples_per_s):.1f}")]
        steps = [f"{case.step_time_error_pct[name]:+.0f}" for name in QUANTILES]
        mark = "noisy" if case.disturbed else ""
        verdict = _verdict(case, of="throughput")
        table.add_row(
            case.name,
            case.mode,
            *speeds,
            f"{case.error_pct:+.1f}",
            *steps,
            "yes" if case.covered else "no",
            verdict if verdict else Text(mark),
        )
    return table


def _staleness(cases: list[CaseResult]) -> Table:
    table = _table(
        "Staleness: means in versions and lookups, distances of the distributions",
        "Case|Mode|Measured|Simulated|W1|at most|KS|In flight|simulated",
        2,
    )
    for case in cases:
        both = case.worlds
        if both is None:
            table.add_row(case.name, case.mode, *[""] * 7, _verdict(case, of="staleness"))
            continue
        measured, simulated = both
        means = [f"{measured.version.mean:.2f}", f"{simulated.version.mean:.2f}"]
        distances = [f"{case.staleness_w1:.2f}", f"{case.staleness_most:.2f}", f"{case.staleness_ks:.2f}"]
        table.add_row(
            case.name,
            case.mode,
            *means,
            *distances,
            f"{measured.in_flight.mean:.2f}",
            f"{simulated.in_flight.mean:.2f}",
            _verdict(case, of="staleness"),
        )
    return table


def _stages(cases: list[CaseResult]) -> Table:
    names = "|".join(name for _, name in STAGES)
    table = _table("Stages, ms of a batch from first start to last end", f"Case|World|{names}", 2)
    for case in cases:
        for world, name in ((case.measured, "measured"), (case.simulated, "simulated")):
            if world is not None:
                times = [f"{1e3 * world.stages_s[stage]:,.2f}" if stage in world.stages_s else "-" for stage, _ in STAGES]
                table.add_row(case.name if name == "measured" or case.measured is None else "", name, *times, "")
    return table


def summary_lines(validation: Validation) -> list[str]:
    """Return all cases in a few lines, every miss among them."""
    summary = validation.summary
    lines = []
    if summary.mape_pct is not None and summary.median_error_pct is not None and summary.max_error_pct is not None:
        lines.append(
            f"Throughput error: mean {summary.mape_pct:.1f} % (at most {MEAN_ERROR_MOST_PCT:.0f} %), "
            f"median {summary.median_error_pct:.1f} %, largest {summary.max_error_pct:.1f} % (at most {ERROR_MOST_PCT:.0f} %)."
        )
        lines.append(
            f"Ranking: Kendall's tau {summary.kendall_tau:.2f} (at least {TAU_LEAST}), regret {summary.regret_pct:.1f} %; "
            f"the 90 % intervals hold {100 * (summary.coverage_90 or 0.0):.0f} % of the measured means."
        )
    lines += pace_lines(validation)
    noisy = [case.name for case in validation.cases if case.disturbed]
    if noisy:
        lines.append(f"Noisy: the machine was disturbed in every run of {', '.join(noisy)}.")
    lines += [f"MISS  {miss}" for miss in validation.misses]
    ran = sum(case.worlds is not None for case in validation.cases)
    lines.append(
        f"{'Passed' if validation.passed else 'Not passed'}: {ran} of {len(validation.cases)} cases ran; profile {validation.profile}."
    )
    return lines


def pace_lines(validation: Validation) -> list[str]:
    """Return in a sentence how fast the machine was meanwhile; nothing where that is not known."""
    paces = [case.pace for case in validation.cases if case.pace is not None]
    if not paces:
        return []
    said = f"{min(paces):.2f} to {max(paces):.2f} times as long as at the calibration"
    source = "by a probe in each run, and by points of the calibration measured again between runs"
    return [f"Pace: work took {said} ({source}); each case is simulated at its pace."]
