"""`persia calibrate`: what it refuses before it measures anything."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("zmq")

from persia.commands.exits import ExitCode
from tests.conftest import Persia


@pytest.mark.parametrize("text", ['[{"quantities": {}}]', "[1]", "no JSON"])
def test_points_of_another_version_are_refused_with_their_file_and_a_remedy(persia: Persia, tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.points.json").write_text(text, encoding="utf-8")
    done = persia("calibrate", "--add", "--out", "mine.yaml")
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "mine.points.json" in done.stderr
    assert "without --add" in done.stderr
    assert not (tmp_path / "mine.yaml").exists()


def test_batch_sizes_are_numbers(persia: Persia) -> None:
    done = persia("calibrate", "--batch-sizes", "128,many")
    assert done.returncode == ExitCode.USAGE
    assert "--batch-sizes 128,many" in done.stderr
