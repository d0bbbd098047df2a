"""Folders and endpoints for sockets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: sockets allow 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="mail") as path:
        yield Path(path)


@pytest.fixture(params=["ipc", "tcp"])
def endpoints(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """Endpoints to bind, the same scheme for all."""
    return iter([f"ipc://{folder}/{number}" if request.param == "ipc" else "tcp://127.0.0.1:0" for number in range(10)])
