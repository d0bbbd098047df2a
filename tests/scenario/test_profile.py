"""Profiles in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from persia.scenario import ScenarioError, load_profile

_TEXT = "name: mine\nconstants:\n  host.cores: {{value: {cores}, unit: cores, evidence: S, source: counted}}\n"


def test_a_file_that_was_written_anew_is_read_anew_and_one_that_is_gone_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for cores in (2, 4):
        partial = tmp_path / "partial"
        partial.write_text(_TEXT.format(cores=cores), encoding="utf-8")
        partial.replace(path)
        assert load_profile(str(path))["host.cores"] == cores
        assert load_profile(str(path)) is load_profile(str(path))
    path.unlink()
    with pytest.raises(ScenarioError, match=r"mine\.yaml"):
        load_profile(str(path))
