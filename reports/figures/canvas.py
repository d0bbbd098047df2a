"""The drawing board: sizes in inches, one type scale, matplotlib's object interface and no global state left behind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reports.figures.svg import Drawing, finish
from reports.figures.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_IN = 10.0
TEXT_PT = 9.5
SMALL_PT = 8.5
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "persia",
    "font.family": ["DejaVu Sans"],
    "font.size": TEXT_PT,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["rule"],
    "axes.facecolor": "none",
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": SMALL_PT,
    "xtick.color": LIGHT["rule"],
    "ytick.color": LIGHT["rule"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "path.simplify": True,
}


@dataclass(frozen=True, slots=True)
class Sheet:
    """One figure being drawn: `figure` holds the axes, `tips` the tooltips by gid."""

    figure: Figure
    width_in: float
    height_in: float
    tips: dict[str, str] = field(default_factory=dict)

    def axes(self, *, left: float, bottom: float, right: float, top: float) -> Axes:
        """Return axes whose edges lie so many inches inside the sheet's, without a box."""
        box = (
            left / self.width_in,
            bottom / self.height_in,
            (self.width_in - left - right) / self.width_in,
            (self.height_in - bottom - top) / self.height_in,
        )
        axes = self.figure.add_axes(box)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        axes.tick_params(length=0, pad=5)
        axes.set_axisbelow(True)
        return axes

    def board(self) -> Axes:
        """Return axes over the whole sheet whose unit is the inch, origin at the lower left, for diagrams."""
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, self.width_in)
        axes.set_ylim(0, self.height_in)
        axes.axis("off")
        return axes

    def tip(self, artist: Artist, text: str) -> None:
        """Show `text` when the pointer rests on the artist."""
        gid = f"tip{len(self.tips)}"
        artist.set_gid(gid)
        self.tips[gid] = text


@contextmanager
def _style() -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(STYLE):
        yield


def draw(*, name: str, title: str, height_in: float, paint: Callable[[Sheet], None], width_in: float = WIDTH_IN) -> Drawing:
    """Return the drawing that `paint` makes on a fresh sheet; same input, same bytes.

    `name` becomes the file's name and the prefix of its ids; `title` is what a screen reader says.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style():
        sheet = Sheet(Figure(figsize=(width_in, height_in), facecolor=LIGHT["paper"]), width_in, height_in)
        FigureCanvasSVG(sheet.figure)
        paint(sheet)
        buffer = io.StringIO()
        sheet.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return finish(buffer.getvalue(), name=name, title=title, tips=sheet.tips)


def value_axis(axes: Axes, label: str) -> None:
    """Give horizontal bars a light vertical grid and name the value and its unit below."""
    axes.grid(axis="x", color=LIGHT["rule"], linewidth=0.7)
    axes.spines["bottom"].set_visible(False)
    axes.set_xlabel(label, labelpad=6)


def legend(sheet: Sheet, items: Sequence[tuple[str, str]], *, left: float, top: float) -> float:
    """Lay out (colour role, words) as squares with words, wrapped; return the height used in inches.

    `top` is the distance of the first line from the sheet's upper edge.
    """
    board = sheet.board()
    x, y = left, sheet.height_in - top - 0.1
    for role, words in items:
        width = _item_in(words)
        if x > left and x + width > sheet.width_in - 0.1:
            x, y = left, y - 0.24
        rectangle(board, x, y - 0.06, 0.12, 0.12, role)
        board.text(x + 0.19, y, words, va="center", ha="left", fontsize=SMALL_PT, color=LIGHT["muted"])
        x += width
    return sheet.height_in - top - y + 0.14


def legend_height_in(items: Sequence[tuple[str, str]], *, left: float, width_in: float = WIDTH_IN) -> float:
    """Return the height that `legend` will use, so that a sheet can be sized before it is drawn."""
    lines, x = 1, left
    for _, words in items:
        width = _item_in(words)
        if x > left and x + width > width_in - 0.1:
            lines, x = lines + 1, left
        x += width
    return 0.24 * lines


def _item_in(words: str) -> float:
    return 0.19 + text_width_in(words, SMALL_PT) + 0.26


def text_width_in(words: str, size_pt: float) -> float:
    """Return the width of one line of text in inches, in a wide common font: readers' own fonts are hardly wider."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    properties = FontProperties(family="DejaVu Sans", size=size_pt)
    width_pt, _, _ = text_to_path.get_text_width_height_descent(words, properties, ismath=False)
    return float(width_pt) / 72


def rectangle(axes: Axes, x: float, y: float, width: float, height: float, role: str, **more: Any) -> Artist:
    """Add a filled rectangle of a palette role; return it."""
    from matplotlib.patches import Rectangle

    return axes.add_patch(Rectangle((x, y), width, height, facecolor=LIGHT[role], edgecolor="none", **more))


def card(axes: Axes, x: float, y: float, width: float, height: float, *, edge: str, weight: float = 1.0) -> Artist:
    """Add a rounded box with a coloured edge around (x, y, width, height) in inches; return it."""
    from matplotlib.patches import FancyBboxPatch

    style = "round,pad=0,rounding_size=0.08"
    return axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=LIGHT["paper"], edgecolor=LIGHT[edge], linewidth=weight)
    )
