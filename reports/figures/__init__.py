"""The page's figures, each a pure function from results to one SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from reports.facts import Facts
from reports.figures.cost import draw_cost
from reports.figures.memory import draw_memory
from reports.figures.network import draw_network
from reports.figures.staleness import draw_staleness
from reports.figures.steps import draw_steps
from reports.figures.svg import Drawing
from reports.figures.throughput import draw_throughput
from reports.figures.timeline import draw_timeline
from reports.figures.utilisation import draw_utilisation
from simulator.result import SimulationResult

__all__ = ["Drawing", "draw_all"]


def draw_all(results: Sequence[SimulationResult], facts: Facts, progress: Callable[[str], None] | None = None) -> dict[str, Drawing]:
    """Return every figure that the results can fill, by name, in the page's order; `progress` hears each name first."""
    main = results[0]
    painters: dict[str, Callable[[], Drawing | None]] = {
        "throughput": lambda: draw_throughput(results),
        "step": lambda: draw_steps(results) if main.step_parts else None,
        "timeline": lambda: draw_timeline(main),
        "staleness": lambda: draw_staleness(main),
        "utilisation": lambda: draw_utilisation(main) if main.utilisation else None,
        "memory": lambda: draw_memory(main) if main.memory else None,
        "network": lambda: draw_network(main, facts),
        "bill": lambda: draw_cost(main),
    }
    drawings = {}
    for name, paint in painters.items():
        if progress is not None:
            progress(name)
        drawing = paint()
        if drawing is not None:
            drawings[name] = drawing
    return drawings
