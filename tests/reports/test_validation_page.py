"""The page of a validation: complete, self-contained, both themes, misses said as misses; its CSV, Markdown and tables."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from reports.figures.theme import PALETTE
from reports.validation_page import SECTIONS, write_validation
from reports.validation_terminal import validation_tables
from simulator.validation.result import Validation
from simulator.validation.serial import from_json
from tests.reports.sample_validation import sample_validation
from tests.reports.test_page import Outline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("validation")
    assert write_validation(sample_validation(), path) == path / "report.html"
    return path


def text_of(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_page_is_well_formed_and_complete(folder: Path) -> None:
    outline = Outline(text_of(folder))
    assert outline.faults == []
    assert len(outline.ids) == len(set(outline.ids))
    assert {key for key, _ in SECTIONS} <= set(outline.ids)
    assert len(text_of(folder).encode()) < 1_000_000


def test_page_loads_nothing(folder: Path) -> None:
    outline = Outline(text_of(folder))
    assert [load for load in outline.loads if not load.startswith(("#", "data:"))] == []
    assert not re.search(r"url\((?!#)|@import|<script", text_of(folder))


def test_page_has_both_themes(folder: Path) -> None:
    page = text_of(folder)
    assert "prefers-color-scheme: dark" in page
    inline = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert not [role for role, (light, _) in PALETTE.items() if light in inline]


def test_the_verdict_comes_first_and_misses_are_misses(folder: Path) -> None:
    sections = Outline(text_of(folder)).sections
    assert "not within the bounds" in sections["answer"]
    assert "grid-09: throughput +30.0 %" in sections["misses"]
    assert "<nobody> & nothing" in sections["cases"]
    assert "without host overhead" in sections["ablation"]


def test_figures_are_svg(folder: Path) -> None:
    names = {path.stem for path in (folder / "figures").iterdir()}
    assert names == {"accuracy", "errors", "staleness-shapes", "timeline-1", "timeline-2"}
    for path in (folder / "figures").iterdir():
        ElementTree.parse(path)


def test_files_beside_the_page_hold_the_same(folder: Path) -> None:
    again = from_json(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    assert again.misses == sample_validation().misses
    rows = list(csv.DictReader(io.StringIO((folder / "cases.csv").read_text(encoding="utf-8"))))
    assert [row["case"] for row in rows] == [case.name for case in sample_validation().cases]
    assert float(rows[0]["error_pct"]) == pytest.approx(3.0)
    assert None not in rows[-1].values()
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    assert "MISS: throughput +30.0 %" in markdown
    assert "without host overhead" in markdown


def test_same_input_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_validation(from_json(json.loads((folder / "result.json").read_text(encoding="utf-8"))), tmp_path)
    assert text_of(tmp_path) == text_of(folder)


def test_a_good_validation_says_so(tmp_path: Path) -> None:
    page = write_validation(sample_validation(good=True), tmp_path).read_text(encoding="utf-8")
    assert "within the bounds</em>" in page
    assert 'id="misses"' not in page


def test_nothing_to_draw_is_a_page_too(tmp_path: Path) -> None:
    failed = replace(sample_validation(), cases=sample_validation().cases[-1:], ablation=())
    page = write_validation(failed, tmp_path).read_text(encoding="utf-8")
    assert "nothing is validated" in page
    empty: Validation = replace(failed, cases=())
    assert write_validation(empty, tmp_path / "empty").is_file()


def test_tables_name_every_case_and_miss() -> None:
    text = validation_tables(sample_validation())
    assert max(map(len, text.splitlines())) <= 100
    for case in sample_validation().cases:
        assert case.name in text
    assert text.count("MISS") >= 6
    assert "Not passed: 10 of 11 cases ran" in text
    assert "Noisy" in text
    assert "Passed: 8 of 8" in validation_tables(sample_validation(good=True))
