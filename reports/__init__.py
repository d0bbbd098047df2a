"""Results made readable: one self-contained page, its figures as SVG, terminal boxes, CSV.

Importing this package stays cheap: jinja2 and networkx load with the first page, matplotlib with the first figure.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.write import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """Load `write_report` when it is first asked for."""
    if name in __all__:
        return getattr(import_module("reports.write"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
