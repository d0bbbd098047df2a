"""What tests of several folders share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def persia_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which `python -m persia` runs this checkout from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "120", **(changes or {})}
