"""Data on stdout, one object for `--json`; progress on stderr, and only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any


def print_json(payload: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    sys.stdout.write(json.dumps(payload, indent=2, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print text on stdout, with one newline at its end."""
    sys.stdout.write(text.rstrip("\n") + "\n")
