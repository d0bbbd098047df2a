"""The report as one HTML file: styles and figures inside it, no script, nothing fetched from anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reports import words
from reports.answer import answer, decisive_memory, in_steps
from reports.facts import Facts
from reports.figures.svg import Drawing
from reports.figures.theme import css_variables
from reports.findings import findings, staleness_note
from simulator.result import Assumption, SimulationResult

NO_BREAK_SPACE = "\u00a0"
EVIDENCE_ORDER = "MIFDS"
SECTIONS = (
    ("throughput", "Throughput by mode"),
    ("step", "Where a step's time goes"),
    ("timeline", "A few batches on their way"),
    ("staleness", "Staleness"),
    ("utilisation", "Utilisation and bottleneck"),
    ("memory", "Memory"),
    ("network", "Network"),
    ("bill", "The bill"),
    ("assumptions", "Inputs and their evidence"),
    ("definitions", "How to read this"),
    ("reproduce", "Reproduce it"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One headline number: what it is, the number, its unit and one line of context."""

    name: str
    value: str
    unit: str
    context: str


def page(results: Sequence[SimulationResult], facts: Facts, drawings: Mapping[str, Drawing], *, command: str | None = None) -> str:
    """Return the page for the results, the first of which is the answer; the same input gives the same bytes."""
    main = results[0]
    light, dark = css_variables()
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            main=main,
            results=sorted(results, key=lambda result: words.mode_rank(result.mode)),
            facts=facts,
            answer=answer(main, facts),
            tiles=tiles(main),
            findings=findings(results),
            figures={name: Markup(drawing.inline_text) for name, drawing in drawings.items()},
            staleness_note=staleness_note(main, facts),
            sections=SECTIONS,
            assumptions=sorted(main.assumptions, key=_doubt),
            palette_light=Markup(light),
            palette_dark=Markup(dark),
            command=escape(command or f"persia simulate scenario.yaml --seed {main.seed} --report"),
            w=words,
        )
    )


def tiles(main: SimulationResult) -> list[Tile]:
    """Return the five headline numbers."""
    speed = main.throughput.samples_per_s
    value, _, unit = words.rate(speed.mean).rpartition(" ")
    version = main.staleness.version
    held, decisive, cost = main.bottleneck, decisive_memory(main), main.cost
    found = [
        Tile(name="Throughput", value=value, unit=unit, context=f"95 % interval {words.interval(speed)}"),
        Tile(
            name="Version staleness",
            value=words.updates(version.mean),
            unit="updates, mean",
            context=f"{in_steps(version, main.ranks).strip(' ()') or 'counted per batch and server'}; p99 {words.updates(version.p99)}",
        ),
        Tile(
            name="Held back by",
            value=words.percent(held.share),
            unit="of a step",
            context=f"{words.label(held.tier)}, {words.label(held.resource)}",
        ),
    ]
    if decisive is not None:
        tier, memory = decisive
        share = memory.needed_gib / memory.available_gib if memory.available_gib else 0.0
        verdict = f"{'fits' if memory.fits else 'does not fit'}: {words.percent(share)} of the {words.label(tier)}"
        found.append(
            Tile(name="Memory", value=words.size(memory.needed_gib), unit=f"of {words.size(memory.available_gib)}", context=verdict)
        )
    billion = (
        f"{words.dollars(cost.usd_per_billion_samples)} per billion samples"
        if cost.usd_per_billion_samples is not None
        else "no price per sample"
    )
    found.append(
        Tile(name="Bill", value=words.dollars(cost.usd_per_hour), unit="an hour" if cost.usd_per_hour is not None else "", context=billion)
    )
    return found


def _doubt(assumption: Assumption) -> int:
    return EVIDENCE_ORDER.find(assumption.evidence) % (len(EVIDENCE_ORDER) + 1)


def keep_units(value: object) -> object:
    """Return text whose numbers do not part from their units at a line's end; other values as they are."""
    return words.glued(value, NO_BREAK_SPACE) if type(value) is str else value


def breakable(name: str) -> Markup:
    """Return a dotted name that may break after its dots and underscores."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(name))))


def environment() -> Environment:
    """Return what renders this package's templates: escaped, strict, numbers glued to their units."""
    environment = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=keep_units,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["breakable"] = breakable
    return environment
