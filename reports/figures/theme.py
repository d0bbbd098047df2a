"""The palette: every colour by role, in its light and dark form, each light value unique so that a page can swap it.

Hues follow Okabe and Ito (2008), which people with the common colour-blindnesses tell apart; lightness differs too, for print.
"""

from __future__ import annotations

PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#15181c"),
    "ink": ("#1a1d21", "#e9ebee"),
    "muted": ("#5c6570", "#a6aeb8"),
    "rule": ("#dfe3e8", "#363c44"),
    "soft": ("#eef1f4", "#23282e"),
    "onfill": ("#fefefe", "#0e1114"),
    "onlight": ("#15191e", "#0e1115"),
    "accent": ("#0b66b0", "#58aeee"),
    "pale": ("#a9c9e4", "#2b5678"),
    "warn": ("#bf4d00", "#f48d4d"),
    "c2": ("#e29a1c", "#edb04a"),
    "c3": ("#00856c", "#35b89b"),
    "c4": ("#a2528c", "#d58bc0"),
    "c5": ("#4aa5d8", "#86c8ee"),
    "c6": ("#7c8590", "#8d96a1"),
    "c7": ("#b5a642", "#cfc36b"),
    "u1": ("#c6d4df", "#3b4754"),
    "u2": ("#93bddd", "#3f6f96"),
    "u3": ("#3f8cc8", "#4c9fdf"),
    "u4": ("#dd8a12", "#e9a63c"),
    "u5": ("#c04e02", "#f58e4f"),
}
LIGHT = {role: pair[0] for role, pair in PALETTE.items()}
CATEGORIES = ("accent", "c2", "c3", "c4", "c5", "warn", "c6", "c7")
LOADS = ((0.25, "u1"), (0.50, "u2"), (0.75, "u3"), (0.90, "u4"), (float("inf"), "u5"))


def text_role(fill: str) -> str:
    """Return the role of text upon a fill: dark on the lighter fills, so that contrast stays above 4.5 to 1."""
    return "onlight" if fill in ("c2", "c5", "c7", "pale") else "onfill"


def load_role(utilisation: float) -> str:
    """Return the role of a utilisation's colour: five steps, the last two warm."""
    return next(role for below, role in LOADS if utilisation < below)


def css_variables() -> tuple[str, str]:
    """Return the light and the dark palette as CSS custom properties."""
    light, dark = ("; ".join(f"--{role}: {pair[side]}" for role, pair in PALETTE.items()) for side in (0, 1))
    return light, dark
