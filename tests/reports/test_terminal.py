"""Boxes and tables fit 80 columns and say what the page says."""

from __future__ import annotations

import io
import subprocess
import sys
from types import SimpleNamespace

import pytest

from reports.terminal import answer_box, catalog_table, excuse_panel, fit_table, published_table
from simulator.excuse import Excuse
from tests.reports.sample_results import sample_catalog, sample_memory, sample_result, sample_results, sample_scenario
from tests.support import ROOT

PUBLISHED = [
    SimpleNamespace(
        dataset="criteo-syn",
        mode="hybrid",
        accelerators=64,
        params_trillion=6.25,
        published=1.79e6,
        predicted=1.803e6,
        error_pct=0.7,
        fitted=True,
    ),
    SimpleNamespace(
        dataset="taobao-ad",
        mode="naive-hybrid",
        accelerators=8,
        params_trillion=2.9e-5,
        published=178750,
        predicted=150000,
        error_pct=-16.1,
        fitted=False,
    ),
]
MACHINE = SimpleNamespace(
    name="x4-megamem-960-metal", vcpus=960, ram_gib=16384, accelerator="a100-80gb", accelerator_count=16,
    nic_gbps=1000, nic_gbps_tier1=3600, nic_evidence="M", usd_hour=1084.2239, usd_hour_spot=None,
)  # fmt: skip
EXCUSE = Excuse(
    reason="the tables need 400 TB in fp32, the parameter servers have 372 TB",
    bottleneck="parameter_server",
    missing_gib=26_540,
    remedies=("store 2 bytes a parameter: --set model.features.0.bytes_per_parameter=2", "33 servers instead of 30"),
)


def everything() -> dict[str, str]:
    return {
        "answer": answer_box(sample_results(), sample_scenario(), catalog=sample_catalog()),
        "bare answer": answer_box(sample_result()),
        "fit": fit_table(sample_memory()),
        "published": published_table(PUBLISHED),
        "catalog": catalog_table([MACHINE]),
        "excuses": excuse_panel([EXCUSE]),
    }


@pytest.mark.parametrize("name", list(everything()))
def test_fits_80_columns_and_cuts_nothing_off(name: str) -> None:
    text = everything()[name]
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "\x1b" not in text


def test_terminal_tables_import_neither_matplotlib_nor_networkx_by_themselves() -> None:
    program = "import sys, simulator; before = set(sys.modules); import reports.terminal; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "reports.terminal" in loaded
    assert {"matplotlib", "networkx", "jinja2", "reports.figures"} & set(loaded) == set()


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[" in answer_box(sample_result())


def test_answer_box_says_the_answer() -> None:
    text = everything()["answer"]
    for words in (
        "64 A100s train 1.79 M samples/s",
        "163 updates on average (2.6 steps)",
        "279 of 372 TB (75 %)",
        "$453 per billion samples",
        "3 of 6 inputs",
    ):
        assert words in text
    assert [line.split()[1] for line in text.splitlines() if "█" in line] == ["sync", "naive-hybrid", "hybrid", "async"]


def test_bars_are_as_long_as_the_throughput() -> None:
    bars = {line.split()[1]: line.count("█") for line in everything()["answer"].splitlines() if "█" in line}
    assert bars == {"sync": 10, "naive-hybrid": 19, "hybrid": 23, "async": 24}


def test_published_errors_keep_their_sign_and_fitted_rows_their_mark() -> None:
    fitted, predicted = [line for line in everything()["published"].splitlines() if "%" in line]
    assert "+0.7 %" in fitted
    assert fitted.endswith("fitted")
    assert predicted.endswith("-16.1 %")


def test_memory_that_does_not_fit_is_marked() -> None:
    memory = sample_memory()
    entry = memory["parameter_server"]
    short = {"parameter_server": type(entry)(needed_gib=400_000, available_gib=346_009, fits=False)}
    assert "116 % !" in fit_table(short)


def test_catalog_marks_unverified_rates() -> None:
    assert "1000?" in everything()["catalog"]


def test_excuses_say_what_is_missing_and_what_helps() -> None:
    text = everything()["excuses"]
    assert "28.5 TB missing" in text
    assert all(remedy in text for remedy in EXCUSE.remedies)


def test_a_terminal_without_unicode_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    text = answer_box(sample_results(), sample_scenario(), catalog=sample_catalog())
    assert text.isascii()
    assert "64 A100s train 1.79 M samples/s" in text
    assert "?" not in text
