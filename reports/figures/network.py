"""The network map: tiers as collapsed nodes around the fabric, edges as wide as their links and as warm as their load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import networkx as nx

from reports.facts import Facts, guests
from reports.figures.canvas import SMALL_PT, Sheet, card, draw, legend, rectangle
from reports.figures.svg import Drawing
from reports.figures.theme import LIGHT, load_role
from reports.words import TIER_NAMES, digits, label, percent, tier_rank
from simulator.result import LinkLoad, SimulationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NODE_IN = (2.55, 0.88)
HUB_IN = (1.75, 0.72)
ROW_IN = 1.3
EDGE_PT = (1.5, 9.0)
LEGEND = [("u1", "under 25 % busy"), ("u2", "under 50 %"), ("u3", "under 75 %"), ("u4", "under 90 %"), ("u5", "90 % and more")]
Place = tuple[float, float]


def collapse(name: str) -> str:
    """Return the tier of a machine's name: `parameter_server[3]` and `parameter_server/3` are `parameter_server`."""
    for mark in "[/#:":
        name = name.split(mark)[0]
    return name


def network_graph(links: Sequence[LinkLoad]) -> nx.Graph[str]:
    """Return the collapsed graph: of parallel links the busiest speaks; edge data `gbps`, `utilisation`, `links`."""
    graph: nx.Graph[str] = nx.Graph()
    for link in links:
        one, other = collapse(link.source), collapse(link.target)
        if one == other:
            continue
        known = graph.get_edge_data(one, other, default={"links": 0, "utilisation": -1.0, "gbps": 0.0})
        busier = link if link.utilisation > known["utilisation"] else None
        graph.add_edge(
            one,
            other,
            gbps=busier.gbps if busier else known["gbps"],
            utilisation=busier.utilisation if busier else known["utilisation"],
            links=known["links"] + 1,
        )
    return graph


def positions(graph: nx.Graph[str], *, width_in: float, height_in: float) -> dict[str, Place]:
    """Return node centres in inches: CPU tiers on the left, fabric in the middle, trainers and servers on the right."""
    for node in sorted(graph.nodes, key=tier_rank):
        graph.nodes[node]["column"] = _column(node)
    ordered: nx.Graph[str] = nx.Graph()
    ordered.add_nodes_from((node, graph.nodes[node]) for node in sorted(graph.nodes, key=tier_rank, reverse=True))
    spread = nx.multipartite_layout(ordered, subset_key="column", align="vertical")
    columns = {0: NODE_IN[0] / 2 + 0.1, 1: width_in / 2, 2: width_in - NODE_IN[0] / 2 - 0.1}
    rows = _rows(graph)
    heights = sorted({round(float(place[1]), 6) for place in spread.values()})
    scale = (heights[-1] - heights[0]) or 1.0
    reach = height_in - ROW_IN if rows > 1 else 0.0
    middle = height_in / 2
    return {node: (columns[graph.nodes[node]["column"]], middle + float(place[1]) / scale * reach) for node, place in spread.items()}


def _column(node: str) -> int:
    return 0 if node in ("loader", "embedding_worker") else 2 if node in TIER_NAMES else 1


def _rows(graph: nx.Graph[str]) -> int:
    columns = [_column(node) for node in graph.nodes]
    return max((columns.count(column) for column in range(3)), default=1)


def draw_network(result: SimulationResult, facts: Facts) -> Drawing | None:
    """Return the map; None where the result names no link."""
    graph = network_graph(result.links)
    if not graph.edges:
        return None
    body_in = ROW_IN * max(_rows(graph), 2) - 0.2
    said = "; ".join(
        f"{label(link.source)} to {label(link.target)} {digits(link.gbps)} Gbps, {percent(link.utilisation)} busy"
        for link in result.links[:12]
    )
    return draw(
        name="network",
        title=f"Network map: {said}",
        height_in=body_in + 0.4,
        paint=lambda sheet: _paint(sheet, graph, facts, body_in),
    )


def _paint(sheet: Sheet, graph: nx.Graph[str], facts: Facts, body_in: float) -> None:
    places = {node: (x, y + 0.4) for node, (x, y) in positions(graph, width_in=sheet.width_in, height_in=body_in).items()}
    board = sheet.board()
    widest = max(data["gbps"] for _, _, data in graph.edges(data=True)) or 1.0
    for one, other, data in graph.edges(data=True):
        _edge(sheet, board, places[one], places[other], data, widest, f"{label(one)} to {label(other)}")
    for node, place in places.items():
        _node(board, node, place, facts)
    legend(sheet, LEGEND, left=1.6, top=sheet.height_in - 0.26)


def _edge(sheet: Sheet, board: Axes, start: Place, end: Place, data: Mapping[str, float], widest: float, words: str) -> None:
    share = math.sqrt(data["gbps"] / widest) if data["gbps"] > 0 else 0.0
    width = EDGE_PT[0] + share * (EDGE_PT[1] - EDGE_PT[0])
    role = load_role(data["utilisation"])
    line = board.plot([start[0], end[0]], [start[1], end[1]], color=LIGHT[role], linewidth=width, solid_capstyle="round", zorder=1)[0]
    text = f"{digits(data['gbps'])} Gbps · {percent(data['utilisation'])}"
    sheet.tip(line, f"{words}: {text} busy")
    # The label sits halfway between the two boxes' edges, not their centres, so that no box hides it.
    side = 1 if end[0] > start[0] else -1
    left, right = start[0] + side * _half_width(start, end), end[0] - side * _half_width(end, start)
    across = (left + right) / 2 if end[0] != start[0] else start[0]
    along = (across - start[0]) / (end[0] - start[0]) if end[0] != start[0] else 0.5
    box = {"boxstyle": "round,pad=0.3", "facecolor": LIGHT["paper"], "edgecolor": LIGHT["rule"], "linewidth": 0.7}
    weight = "bold" if data["utilisation"] >= 0.75 else "normal"
    board.text(
        across,
        start[1] + along * (end[1] - start[1]),
        text,
        ha="center",
        va="center",
        fontsize=SMALL_PT,
        fontweight=weight,
        bbox=box,
        zorder=4,
    )


def _half_width(place: Place, other: Place) -> float:
    outer = abs(place[0] - 5.0) > abs(other[0] - 5.0)
    return (NODE_IN if outer else HUB_IN)[0] / 2


def _node(board: Axes, node: str, place: Place, facts: Facts) -> None:
    x, y = place
    tier = node in TIER_NAMES
    width, height = NODE_IN if tier else HUB_IN
    card(board, x - width / 2, y - height / 2, width, height, edge="muted" if tier else "ink", weight=1.0 if tier else 1.6)
    if not tier:
        board.text(x, y + 0.11, node.replace("_", " "), ha="center", va="center", fontweight="bold", zorder=3)
        board.text(x, y - 0.12, "fabric", ha="center", va="center", fontsize=SMALL_PT, color=LIGHT["muted"], zorder=3)
        return
    known = facts.tiers.get(node)
    top = y + height / 2
    name = label(node) if known is None else f"{known.count:,} {label(node)}"
    board.text(x - width / 2 + 0.14, top - 0.2, name, ha="left", va="center", fontweight="bold", zorder=3)
    words = "" if known is None else (known.machine_type or f"on the {label(known.hosted_on or '')}") + guests(facts, node)
    board.text(x - width / 2 + 0.14, top - 0.4, words, ha="left", va="center", fontsize=SMALL_PT, color=LIGHT["muted"], zorder=3)
    if known is not None:
        _machines(board, x - width / 2 + 0.14, top - 0.57, known.count, width - 0.28)


def _machines(board: Axes, left: float, top: float, number: int, width: float) -> None:
    """Draw one small square per machine, at most two rows of fifty."""
    pitch, side = (0.045, 0.033) if number > 44 else (0.1, 0.08)
    per_row = int(width / pitch)
    for index in range(min(number, 2 * per_row)):
        rectangle(board, left + pitch * (index % per_row), top - side - pitch * (index // per_row), side, side, "muted", zorder=3)
