"""The page: self-contained, complete, well-formed, deterministic, and quiet in a browser."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reports import write_report
from reports.page import SECTIONS
from reports.tables import HEADER
from simulator.result import Assumption
from tests.reports.sample_results import sample_catalog, sample_result, sample_results, sample_scenario

VOID = {"meta", "link", "br", "wbr", "img", "input", "hr"}
LOADING = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "background"}
BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage")  # fmt: skip


class Outline(HTMLParser):
    """Reads a page: unbalanced tags, what it would load, its ids, its text by section."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.styles: list[str] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"] or "")
            if tag in ("section", "header"):
                self._section = values["id"] or ""
        self.loads += [value or "" for name, value in attrs if name in LOADING]
        self.styles += [value or "" for name, value in attrs if name == "style"]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes {self.open[-1:]}")
        elif tag not in VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["style"]:
            self.styles.append(data)
        else:
            self.sections[self._section] = self.sections.get(self._section, "") + data.replace("\u00a0", " ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report")
    assert (
        write_report(sample_results(), sample_scenario(), path, catalog=sample_catalog(), command="persia demo --seed 1")
        == path / "report.html"
    )
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def outline(page: str) -> Outline:
    return Outline(page)


def test_well_formed(outline: Outline) -> None:
    assert outline.faults == []
    assert len(outline.ids) == len(set(outline.ids))


def test_loads_nothing(outline: Outline, page: str) -> None:
    assert [target for target in outline.loads if not target.startswith("#") and target != "data:,"] == []
    assert set(outline.loads) - {"data:,"} <= {f"#{name}" for name in outline.ids}
    assert not re.search(r"url\((?!#)|@import|@font-face", " ".join(outline.styles))
    assert "<script" not in page
    assert "default-src 'none'" in page


def test_small(page: str) -> None:
    assert len(page.encode()) < 1_000_000  # 3 MB is the bound; real runs carry more inputs than the sample


def test_all_sections_are_there_with_their_figures(outline: Outline, page: str) -> None:
    assert list(outline.sections)[1:] == ["answer", *(name for name, _ in SECTIONS)]
    for name, title in SECTIONS:
        assert title in outline.sections[name]
    drawn = re.findall(r'<svg viewBox="[^"]+" role="img" aria-labelledby="(\w+)-title">', page)
    assert drawn == ["throughput", "step", "timeline", "staleness", "utilisation", "memory", "network", "bill"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("answer", ["64 A100s train", "1.79 M samples/s", "95 % interval 1.785 to 1.797 M", "163 updates stale (2.6 steps)",
                    "279 of 372 TB (75 %)", "$2,918 an hour", "$453 per billion samples", "100 T embedding parameters",
                    "simulated, not measured"]),
        ("throughput", ["730 k", "1.445 to 1.455 M", "73.2 ms / 81.3 ms", "samples/s", "\u00b1 0.34 %", "2.5 times as fast as sync"]),
        ("step", ["57.8 ms", "exposed all-reduce", "79 %", "lookup"]),
        ("staleness", ["mean 163, p99 196, max 220", "640 batches", "91 %"]),
        ("utilisation", ["Bottleneck.", "Forward and backward take 57.8 ms", "Next.", "exposed for 5.9 ms", "88 %"]),
        ("memory", ["92.6 TB to spare", "279 TB", "optimizer state", "GiB"]),
        ("network", ["100 embedding workers", "32.0 Gbps · 61 %", "us-central1-a"]),
        ("bill", ["$2,527 an hour", "30 \u00d7 m2-ultramem-416", "list price, us-central1, 2026-07-16", "US$ a 730-hour month"]),
        ("assumptions", ["3 of 6 inputs are unverified or inferred", "unverified [M]", "inferred [I]", "fitted [F]", "<RAM & all>"]),
        ("definitions", ["64 \u00d7 2,048 = 131,072 samples", "Row staleness", "In-flight staleness", "41.2 k unique IDs"]),
        ("reproduce", ["persia demo --seed 1", "cc" * 32, "5f" * 32, "900 in all", "512,311 events", "70.3 s simulated"]),
    ],
)  # fmt: skip
def test_says_its_numbers_with_their_units(outline: Outline, section: str, said: list[str]) -> None:
    assert [words for words in said if words not in outline.sections[section]] == []


def test_doubtful_inputs_come_first(outline: Outline) -> None:
    tags = re.findall(r"(\w+) \[([SDMIF])\]", outline.sections["assumptions"])[5:]
    assert [tag for _, tag in tags] == ["M", "I", "I", "F", "D", "S"]


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    evil = Assumption(path="<b>x", value="<script>alert(1)</script>", why="&", source="\"'<img src=x>", evidence="M")
    write_report(
        [replace(sample_result(), scenario="</title><script>", assumptions=[evil])], None, tmp_path, command="persia simulate '<b>'"
    )
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text
    assert "<img" not in text
    assert Outline(text).faults == []


def test_same_results_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_report(sample_results(), sample_scenario(), tmp_path, catalog=sample_catalog(), command="persia demo --seed 1")
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == 11
    assert all((folder / file).read_bytes() == (tmp_path / file).read_bytes() for file in files)


def test_files_beside_the_page(folder: Path) -> None:
    payload = json.loads((folder / "result.json").read_text())
    assert payload["mode"] == "hybrid"
    assert sorted(payload["modes"]) == ["async", "naive-hybrid", "sync"]
    assert payload["modes"]["sync"]["throughput"] == sample_result("sync").to_json()["throughput"]
    rows = list(csv.reader(io.StringIO((folder / "result.csv").read_text())))
    assert tuple(rows[0]) == HEADER
    assert ["step_parts", "hybrid", "forward + backward", "0.0578", "s"] in rows
    assert {row[0] for row in rows[1:]} == {"step_parts", "utilisation", "latency", "memory", "links", "cost", "staleness"}
    assert {path.suffix for path in (folder / "figures").iterdir()} == {".svg"}
    assert not list(folder.rglob(".*"))


def test_one_result_alone_and_without_a_scenario(tmp_path: Path) -> None:
    heard: list[str] = []
    bare = replace(
        sample_result("sync"), links=(), assumptions=(), memory={}, step_parts=(), bottleneck=replace(sample_result().bottleneck, next=None)
    )
    text = write_report([bare], None, tmp_path / "new" / "folder", heard.append).read_text()
    assert Outline(text).faults == []
    assert "64 ranks train" in Outline(text).sections["answer"]
    assert text.count("carries nothing to draw here") == 4
    assert heard[-1] == "page"
    assert "persia simulate scenario.yaml --seed 1 --report" in text


def test_no_results_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one result"):
        write_report([], None, tmp_path)
    assert list(tmp_path.iterdir()) == []


def browse(page: Path, scratch: Path) -> tuple[str, list[str], list[str]]:
    """Open a page in a headless browser; return its DOM, its console lines and the http(s) URLs that it asked for."""
    scratch.mkdir()
    net_log = scratch / "net.json"
    flags = [*QUIET, f"--user-data-dir={scratch / 'profile'}", "--enable-logging=stderr", "--v=0", f"--log-net-log={net_log}"]
    command = [str(BROWSER), *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], requested_by_pages(net_log)


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_browser_shows_it_without_an_error_or_a_request(folder: Path, tmp_path: Path) -> None:
    dom, console, requests = browse(folder / "report.html", tmp_path / "browser")
    assert dom.count("<svg") == 8
    assert 'id="reproduce"' in dom
    assert (console, requests) == ([], [])


@pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
def test_browser_check_finds_a_page_that_does_both(tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("loud")</script>')
    _, console, requests = browse(tmp_path / "loud.html", tmp_path / "browser")
    assert len([line for line in console if "loud" in line]) > 0
    assert requests == ["http://127.0.0.1:9/x.png"]


def requested_by_pages(net_log: Path) -> list[str]:
    """The http(s) URLs that something other than the browser itself asked for."""
    text = net_log.read_text(encoding="utf-8").rstrip()
    try:
        log = json.loads(text)
    except json.JSONDecodeError:  # the browser may end before the log's last bracket
        log = json.loads(text.rstrip(",") + "]}")
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    urls = [
        (event.get("params", {}).get("url", ""), event.get("params", {}).get("initiator", ""))
        for event in log["events"]
        if event["type"] == started
    ]
    return [url for url, initiator in urls if url.startswith(("http://", "https://")) and initiator != "not an origin"]
