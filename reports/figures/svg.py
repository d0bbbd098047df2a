"""From matplotlib's SVG to ours: unique ids, an accessible name, tooltips, no dates, and colours a page can theme."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import escape

from reports.figures.theme import PALETTE

_HEAD = re.compile(r"\A.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_STYLE = re.compile(r"\s*<style\b.*?</style>", re.DOTALL)
_OPENING = re.compile(r"<svg\b[^>]*>")
_VIEW_BOX = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"')
_ID = re.compile(r' id="([^"]*)"')
_REFERENCE = re.compile(r'(?:xlink:href="#|url\(#)([^")]+)')
_FONT = re.compile(r"font-family: [^;\"]*'[^;\"]*")
_PLAIN_TURN = re.compile(r' transform="rotate\(-0 [^"]*\)"')
_BREAKS = re.compile(r"\s*\n\s*")
_FAMILY = "font-family: system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure: `file_text` stands alone, `inline_text` goes into a page that defines the palette's CSS variables."""

    name: str
    title: str
    file_text: str
    inline_text: str


def finish(raw: str, *, name: str, title: str, tips: Mapping[str, str]) -> Drawing:
    """Return the drawing of one matplotlib SVG.

    `tips` maps a gid to its tooltip. Ids that nothing refers to are dropped and the others prefixed with `name`, because a page
    holds many figures and matplotlib numbers each of them alike.
    """
    text = _STYLE.sub("", _METADATA.sub("", _HEAD.sub("", raw)))
    for gid, tip in tips.items():
        text = text.replace(f'<g id="{gid}">', f"<g><title>{escape(tip)}</title>", 1)
    referenced = set(_REFERENCE.findall(text))
    text = _ID.sub(lambda found: f' id="{name}-{found[1]}"' if found[1] in referenced else "", text)
    text = text.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    text = _BREAKS.sub(" ", _PLAIN_TURN.sub("", _FONT.sub(_FAMILY, text))).replace("> <", ">\n<").strip()
    width, height = _size(text)
    open_tag = (
        f'viewBox="0 0 {width} {height}" role="img" aria-labelledby="{name}-title">\n<title id="{name}-title">{escape(title)}</title>'
    )
    file_text = _OPENING.sub(
        lambda _: f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {open_tag}', text, count=1
    )
    inline_text = _OPENING.sub(lambda _: f"<svg {open_tag}", text, count=1)
    return Drawing(name=name, title=title, file_text=file_text + "\n", inline_text=_themed(inline_text.replace(_FAMILY + "; ", "")))


def _size(text: str) -> tuple[str, str]:
    found = _VIEW_BOX.search(text)
    if found is None:
        raise ValueError("the SVG has no viewBox")
    return found[1], found[2]


def _themed(text: str) -> str:
    for role, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{role})")
    return text
