"""A number that outlives its process: a loader's committed offset, the step of a server's last snapshot."""

from __future__ import annotations

from pathlib import Path


def keep_number(path: Path, number: int) -> None:
    """Keep a number in a file that holds a whole one at any moment."""
    partial = path.with_suffix(".partial")
    partial.write_text(f"{number}\n", encoding="ascii")
    partial.replace(path)


def kept_number(path: Path, default: int) -> int:
    """Return the number that was kept last."""
    return int(path.read_text(encoding="ascii")) if path.exists() else default
