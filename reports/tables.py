"""Results as tables: lists of rows for the page, CSV text for a spreadsheet."""

from __future__ import annotations

import csv
import io

from simulator.result import SimulationResult

HEADER = ("table", "group", "name", "value", "unit")


def rows(result: SimulationResult) -> list[tuple[str, str, str, float, str]]:
    """Return (table, group, name, value, unit) for step parts, utilisation, latencies, memory, links, cost and histograms."""
    found: list[tuple[str, str, str, float, str]] = []
    found += [("step_parts", result.mode, part.part, part.seconds, "s") for part in result.step_parts]
    found += [("utilisation", tier, name, share, "1") for tier, shares in result.utilisation.items() for name, share in shares.items()]
    found += [("latency", "", name, value, "s") for name, value in result.latency_s.items()]
    for tier, memory in result.memory.items():
        found += [("memory", tier, "needed", memory.needed_gib, "GiB"), ("memory", tier, "available", memory.available_gib, "GiB")]
        found += [("memory", tier, part, gib, "GiB") for part, gib in memory.parts_gib.items()]
    found += [("links", link.source, link.target, link.utilisation, "1") for link in result.links]
    found += [("cost", tier, bill.machine_type, bill.usd_per_hour, "USD/h") for tier, bill in result.cost.tiers.items()]
    report = result.staleness
    for name, measure in (("version", report.version), ("in_flight", report.in_flight), ("row", report.row)):
        found += [("staleness", name, str(value), weight, "records") for value, weight in sorted(measure.histogram.items())]
    return found


def to_csv(result: SimulationResult) -> str:
    """Return those rows as CSV with a header line; numbers keep all their digits."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(rows(result))
    return buffer.getvalue()
