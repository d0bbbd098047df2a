"""The same answers for a terminal of 80 columns: boxes and tables as text, coloured only where stdout is a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from reports.answer import answer, in_steps
from reports.facts import CatalogLike, Facts, ScenarioLike, read_facts
from reports.published import PublishedRow
from reports.words import (
    DOUBTFUL_EVIDENCE,
    digits,
    glued,
    interval,
    label,
    mode_rank,
    percent,
    plural,
    rate,
    seconds,
    sentence,
    size,
    tier_rank,
    updates,
)
from simulator.excuse import Excuse
from simulator.result import SimulationResult, TierMemory

WIDTH = 80
BAR_WIDTH = 24
GLUE = "\ue000"  # stands for a space at which rich, which breaks lines at every kind of space, must not break one
PLAIN_MARKS = {ord("·"): "-", ord("\u00d7"): "x", ord("µ"): "u", ord("±"): "+-", ord("█"): "#", ord("░"): "."}


def answer_box(
    results: SimulationResult | Sequence[SimulationResult],
    scenario: ScenarioLike | None = None,
    *,
    catalog: CatalogLike | None = None,
    width: int = WIDTH,
) -> str:
    """Return a box with the page's answer; further results (the same scenario in other modes) are compared by bars.

    The catalogue, where given, lets the box name the accelerators.
    """
    every = [results] if isinstance(results, SimulationResult) else list(results)
    main, facts = every[0], read_facts(scenario, catalog)
    parts: list[RenderableType] = [_headline(main, facts), "", _lines(main, facts)]
    if len(every) > 1:
        parts += ["", _modes(every)]
    emulated = f" · emulated {main.emulated}" if main.emulated else ""
    title = f"[bold]{main.scenario}[/] · {main.mode} · simulated{emulated}"
    return render(Panel(Group(*parts), title=title, title_align="left", box=box.ROUNDED, padding=(0, 1), width=width), width=width)


def _headline(main: SimulationResult, facts: Facts) -> Text:
    speed = main.throughput.samples_per_s
    verb = "trains" if main.ranks == 1 else "train"
    return Text.assemble(f"{facts.hardware(main.ranks)} {verb} ", (rate(speed.mean), "bold green"), f", 95 % interval {interval(speed)}")


def _lines(main: SimulationResult, facts: Facts) -> Table:
    said, version, step = answer(main, facts), main.staleness.version, main.step_time_s
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    table.add_row("Step", f"{seconds(step.p50)} (p50), {seconds(step.p99)} (p99), {main.ranks:,} \u00d7 {main.batch_size:,} samples")
    table.add_row("Staleness", f"{plural(version.mean, 'update')} on average{in_steps(version, main.ranks)}, p99 {updates(version.p99)}")
    table.add_row("Bottleneck", Text(_glued(sentence(said.bottleneck))))
    if said.behind:
        table.add_row("Next", Text(_glued(said.behind)))
    if said.memory:
        table.add_row("Memory", _glued(sentence(said.memory)))
    table.add_row("Bill", _glued(sentence(said.bill)))
    doubtful = sum(assumption.evidence in DOUBTFUL_EVIDENCE for assumption in main.assumptions)
    if doubtful:
        table.add_row("Doubt", f"{doubtful} of {len(main.assumptions)} inputs are unverified or inferred; the report lists them.")
    return table


def _glued(text: str) -> str:
    return glued(text, GLUE)


def _modes(results: Sequence[SimulationResult]) -> Table:
    fastest = max(result.throughput.samples_per_s.mean for result in results) or 1.0
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("mode", no_wrap=True)
    table.add_column("samples/s", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("updates stale", justify="right", no_wrap=True)
    for result in sorted(results, key=lambda result: mode_rank(result.mode)):
        mean = result.throughput.samples_per_s.mean
        length = max(1, round(BAR_WIDTH * mean / fastest))
        bar = Text.assemble(("█" * length, "green" if result is results[0] else "blue"), ("░" * (BAR_WIDTH - length), "dim"))
        row = (result.mode, rate(mean).removesuffix(" samples/s"), bar, updates(result.staleness.version.mean))
        table.add_row(*row, style="bold" if result is results[0] else "")
    return table


def fit_table(memory: Mapping[str, TierMemory], *, width: int = WIDTH) -> str:
    """Return memory needed and available by tier, with the largest parts, as a table."""
    table = _table("Tier", (">", "Needed"), (">", "Available"), (">", "Used"), "Largest parts")
    for tier in sorted(memory, key=tier_rank):
        entry = memory[tier]
        parts = sorted(entry.parts_gib.items(), key=lambda item: -item[1])[:2]
        share = percent(entry.needed_gib / entry.available_gib) if entry.available_gib else "-"
        used = Text(share if entry.fits else f"{share} !", style="" if entry.fits else "bold red")
        named = ", ".join(f"{label(part)} {size(gib)}" for part, gib in parts if gib > 0)
        table.add_row(label(tier), size(entry.needed_gib), size(entry.available_gib), used, named)
    return render(table, width=width)


def published_table(rows: Sequence[PublishedRow], *, width: int = WIDTH) -> str:
    """Return published beside predicted throughputs with the signed error; fitted rows are marked."""
    table = _table("Data set", "Mode", (">", "Accel."), (">", "Params"), (">", "Published"), (">", "Predicted"), (">", "Error"), "")
    for row in rows:
        style = "dim" if row.fitted else "bold red" if abs(row.error_pct) > 15 else ""
        error = Text(f"{row.error_pct:+.1f} %", style=style)
        parameters = _parameters(row.params_trillion)
        table.add_row(
            row.dataset,
            row.mode,
            f"{row.accelerators}",
            parameters,
            _k(row.published),
            _k(row.predicted),
            error,
            "fitted" if row.fitted else "",
        )
    return render(
        Group(table, Text("Throughputs in thousand samples/s. Rows not marked fitted are predictions.", style="dim")), width=width
    )


def _k(samples_per_s: float) -> str:
    return f"{samples_per_s / 1e3:,.1f}"


def _parameters(trillion: float) -> str:
    return f"{trillion:g} T" if trillion >= 0.1 else f"{digits(1e6 * trillion)} M"


def catalog_table(machines: Iterable[Any], *, width: int = WIDTH) -> str:
    """Return the machine types with what they hold and cost; `?` marks a rate from memory, not verified.

    Each machine has the catalogue's fields: name, vcpus, ram_gib, accelerator, accelerator_count, nic_gbps, nic_evidence, usd_hour.
    """
    table = _table(
        "Machine", (">", "vCPU"), (">", "RAM GiB"), "Accelerators", (">", "Gbps"), (">", "Tier_1"), (">", "$/hour"), (">", "Spot")
    )
    for machine in machines:
        accelerators = f"{machine.accelerator_count} \u00d7 {machine.accelerator.upper()}" if machine.accelerator else ""
        rates = (_amount(machine.nic_gbps), _amount(machine.nic_gbps_tier1))
        mark = "?" if machine.nic_evidence in DOUBTFUL_EVIDENCE else ""
        prices = (_price(machine.usd_hour), _price(machine.usd_hour_spot))
        table.add_row(
            machine.name,
            f"{machine.vcpus:g}",
            f"{machine.ram_gib:,g}",
            accelerators,
            *(f"{rate}{mark}" if rate else "" for rate in rates),
            *prices,
        )
    return render(
        Group(
            table, Text("Gbps: network card, by default and with Tier_1; ? from memory, unverified. List prices, US dollars.", style="dim")
        ),
        width=width,
    )


def _amount(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _price(value: float | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def excuse_panel(excuses: Sequence[Excuse], *, width: int = WIDTH) -> str:
    """Return why a scenario cannot run, what is missing, and what would make it run."""
    lines: list[RenderableType] = []
    for excuse in excuses:
        missing = f" ({size(excuse.missing_gib)} missing)" if excuse.missing_gib else ""
        lines.append(Text(sentence(excuse.reason), style="bold"))
        lines.append(Text(f"  {label(excuse.bottleneck)}{missing}"))
        lines += [Text(f"  · {remedy}") for remedy in excuse.remedies]
    panel = Panel(Group(*lines), title="does not fit", title_align="left", border_style="red", padding=(0, 1), width=width)
    return render(panel, width=width)


def _table(*columns: str | tuple[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, header_style="bold")
    for column in columns:
        if isinstance(column, tuple):
            table.add_column(column[1], justify="right", no_wrap=True)
        else:
            table.add_column(column, no_wrap=column != "Largest parts")
    return table


def render(what: RenderableType, *, width: int = WIDTH) -> str:
    """Return what rich would print, without trailing spaces; colours only where stdout is a terminal, ASCII where it knows no more."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, force_terminal=sys.stdout.isatty(), highlight=False, legacy_windows=False).print(what)
    text = "\n".join(line.rstrip() for line in buffer.getvalue().replace(GLUE, " ").splitlines())
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return _plain(text)
    return text


def _plain(text: str) -> str:
    corners = str.maketrans("╭╮╰╯─│━", "++++-|-")
    return text.translate(corners).translate(PLAIN_MARKS).encode("ascii", "replace").decode("ascii")
