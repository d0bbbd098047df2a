"""A time axis without its idle stretches: where nothing happens for long, time is folded into a narrow strip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

IDLE_SHARE = 0.06  # a gap longer than this share of the whole is folded
STRIP_SHARE = 0.025  # a strip is as wide as this share of what is left


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One unfolded stretch from `start` to `end` (ms), drawn from `at`; `idle_after` is what is folded away behind it (ms)."""

    start: float
    end: float
    at: float
    idle_after: float


def busy_stretches(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the union of intervals as disjoint ones, in order."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(intervals):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def fold(intervals: Sequence[tuple[float, float]]) -> list[Stretch]:
    """Return the stretches of time that are shown, each linear and at the same scale."""
    busy = busy_stretches(intervals)
    whole = busy[-1][1] - busy[0][0]
    shown = [busy[0]]
    for start, end in busy[1:]:
        if start - shown[-1][1] > IDLE_SHARE * whole:
            shown.append((start, end))
        else:
            shown[-1] = (shown[-1][0], end)
    strip = STRIP_SHARE * sum(end - start for start, end in shown)
    found, at = [], 0.0
    for index, (start, end) in enumerate(shown):
        idle_after = shown[index + 1][0] - end if index + 1 < len(shown) else 0.0
        found.append(Stretch(start=start, end=end, at=at, idle_after=idle_after))
        at += end - start + strip
    return found


def width(stretches: Sequence[Stretch]) -> float:
    """Return the length of the folded axis."""
    last = stretches[-1]
    return last.at + last.end - last.start


def place(stretches: Sequence[Stretch], time: float) -> float:
    """Return where a time lies on the folded axis; times inside a fold lie at its left edge."""
    known = next((stretch for stretch in reversed(stretches) if stretch.start <= time), stretches[0])
    return known.at + min(time, known.end) - known.start


def ticks(stretches: Sequence[Stretch], about: int = 9) -> list[float]:
    """Return round times inside the stretches, about so many in all."""
    step = width(stretches) / about or 1.0
    power = 10.0 ** math.floor(math.log10(step))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= 0.999 * step)
    found = []
    for stretch in stretches:
        first, last = math.ceil(stretch.start / step - 1e-9), math.floor(stretch.end / step + 1e-9)
        found += [step * number for number in range(first, last + 1)]
    return found
