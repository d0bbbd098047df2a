"""Figures: bins that lose nothing, lanes without overlap, unique ids, the same bytes twice."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.facts import Facts, read_facts
from reports.figures import draw_all, folds
from reports.figures.memory import parts_of
from reports.figures.network import network_graph, positions
from reports.figures.published import draw_published
from reports.figures.staleness import BARS, even_bins, quadrupling_bins
from reports.figures.steps import part_roles
from reports.figures.svg import finish
from reports.figures.theme import PALETTE
from reports.figures.timeline import chosen_batches, draw_timeline, lanes
from simulator.result import LinkLoad
from tests.reports.sample_results import sample_catalog, sample_memory, sample_result, sample_results, sample_scenario

NAMES = ["throughput", "step", "timeline", "staleness", "utilisation", "memory", "network", "bill"]
HISTOGRAMS = st.dictionaries(st.integers(0, 100_000), st.floats(0.5, 1e6), min_size=1, max_size=50)


@pytest.fixture(scope="module")
def facts() -> Facts:
    return read_facts(sample_scenario(), sample_catalog())


@given(HISTOGRAMS)
def test_even_bins_hold_every_record_once(histogram: dict[int, float]) -> None:
    bins = even_bins(histogram)
    assert len(bins.shares) <= BARS + 1
    assert sum(bins.shares) == pytest.approx(1)
    total = sum(histogram.values())
    for low, high, share in zip(bins.edges, bins.edges[1:], bins.shares, strict=False):
        assert share == pytest.approx(sum(weight for value, weight in histogram.items() if low <= value < high) / total, abs=1e-9)


@given(HISTOGRAMS)
def test_quadrupling_bins_hold_every_record_once(histogram: dict[int, float]) -> None:
    bins = quadrupling_bins(histogram)
    assert sum(bins.shares) == pytest.approx(1)
    assert bins.shares[0] == pytest.approx(histogram.get(0, 0.0) / sum(histogram.values()))


def test_quadrupling_bins_are_named_by_their_values() -> None:
    assert quadrupling_bins({0: 1.0, 20: 1.0}).names == ("0", "1\u20133", "4\u201315", "16\u201363")
    assert quadrupling_bins({3: 1.0, 4: 2.0, 15: 1.0, 16: 4.0}).shares == (0.0, 0.125, 0.375, 0.5)


def test_timeline_follows_one_rank_and_packs_without_overlap() -> None:
    result = sample_result()
    batches = chosen_batches(result)
    assert batches == [step * result.ranks for step in range(40, 45)]
    drawn = lanes(result, batches)
    assert next(lane.tier for lane in drawn) == "loader"
    assert sum(len(row) for lane in drawn for row in lane.rows) == sum(span.batch in batches for span in result.spans)
    for lane in drawn:
        for row in lane.rows:
            assert all(one.end_s <= other.start_s for one, other in itertools.pairwise(row))


INTERVALS = st.lists(
    st.tuples(st.floats(0, 1e3), st.floats(1e-3, 50)).map(lambda pair: (pair[0], pair[0] + pair[1])), min_size=1, max_size=20
)


@given(INTERVALS)
def test_folding_keeps_every_interval_whole_and_in_order(intervals: list[tuple[float, float]]) -> None:
    stretches = folds.fold(intervals)
    for start, end in intervals:
        assert folds.place(stretches, end) - folds.place(stretches, start) == pytest.approx(end - start, abs=1e-6)
    times = sorted(time for interval in intervals for time in interval)
    places = [folds.place(stretches, time) for time in times]
    assert places == sorted(places)
    hidden = sum(stretch.idle_after for stretch in stretches)
    shown = sum(stretch.end - stretch.start for stretch in stretches)
    assert shown + hidden == pytest.approx(max(times) - min(times), abs=1e-6)
    assert folds.width(stretches) <= shown * (1 + folds.STRIP_SHARE * len(stretches)) + 1e-9


def test_folding_hides_only_long_idle_gaps() -> None:
    stretches = folds.fold([(0, 10), (12, 20), (80, 100)])
    assert [(stretch.start, stretch.end, stretch.idle_after) for stretch in stretches] == [(0, 20, 60), (80, 100, 0.0)]
    assert [time for time in folds.ticks(stretches) if 20 < time < 80] == []
    assert len(folds.ticks(stretches)) >= 5


def test_a_folded_timeline_says_how_much_it_hides() -> None:
    result = sample_result()
    late = [replace(span, start_s=span.start_s + 1, end_s=span.end_s + 1) if span.tier != "loader" else span for span in result.spans]
    drawing = draw_timeline(replace(result, spans=late))
    assert drawing is not None
    assert "later</text>" in drawing.file_text
    plain = draw_timeline(result)
    assert plain is not None
    assert "later</text>" not in plain.file_text


def test_every_figure_is_drawn_and_is_xml_with_a_name(facts: Facts) -> None:
    drawings = draw_all(sample_results(), facts)
    assert list(drawings) == NAMES
    for drawing in drawings.values():
        root = ElementTree.fromstring(drawing.file_text)
        assert root.attrib["role"] == "img"
        assert root[0].tag.endswith("title")
        assert root[0].text == drawing.title
        assert len(drawing.title) > 20


def test_ids_are_unique_over_the_page_and_every_reference_resolves(facts: Facts) -> None:
    text = "".join(drawing.inline_text for drawing in draw_all(sample_results(), facts).values())
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)


def test_inline_colours_are_all_themed(facts: Facts) -> None:
    for drawing in draw_all(sample_results(), facts).values():
        assert set(re.findall(r"#[0-9a-f]{6}\b", drawing.inline_text)) == set(), drawing.name
        assert set(re.findall(r"var\(--(\w+)\)", drawing.inline_text)) <= set(PALETTE)


def test_palette_colours_are_unique_so_that_a_page_can_swap_them() -> None:
    light = [pair[0] for pair in PALETTE.values()]
    assert len(light) == len(set(light))


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two colours."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("ink", "paper"), ("muted", "paper"), ("accent", "paper"), ("warn", "paper"), ("muted", "soft"), ("onfill", "accent"),
     ("onfill", "warn"), ("onfill", "c4"), ("onfill", "c3"), ("onlight", "c2"), ("onlight", "c5"), ("onlight", "c7")],
)  # fmt: skip
def test_text_is_legible(text: str, ground: str, scheme: int) -> None:
    assert contrast(PALETTE[text][scheme], PALETTE[ground][scheme]) >= 4.3


def test_figures_are_deterministic(facts: Facts) -> None:
    first, second = (draw_all(sample_results(), facts) for _ in range(2))
    assert {name: drawing.file_text for name, drawing in first.items()} == {name: drawing.file_text for name, drawing in second.items()}
    assert not re.search(r"\d{4}-\d{2}-\d{2}T", "".join(drawing.file_text for drawing in first.values()))


def test_figures_that_have_nothing_to_show_are_left_out(facts: Facts) -> None:
    bare = replace(sample_result(), spans=(), links=(), cost=replace(sample_result().cost, tiers={}))
    assert list(draw_all([bare], facts)) == [name for name in NAMES if name not in ("timeline", "network", "bill")]


def test_step_parts_keep_their_colour_and_none_shares_one() -> None:
    roles = part_roles(sample_results())
    assert roles["forward + backward"] == "accent"
    assert roles["waiting for the slowest rank"] == "warn"
    assert len(set(roles.values())) == len(roles)


def test_memory_parts_come_largest_first() -> None:
    parts = parts_of(sample_memory()["parameter_server"])
    assert [name for name, _, _ in parts] == ["rows", "optimizer_state", "row_index", "process_overhead"]
    assert len({role for _, role, _ in parts}) == len(parts)


def test_network_collapses_machines_and_keeps_the_busiest() -> None:
    links = [
        LinkLoad(source=f"parameter_server[{at}]", target="zone", gbps=32, utilisation=share) for at, share in enumerate((0.2, 0.9, 0.4))
    ]
    graph = network_graph(links)
    assert sorted(graph.nodes) == ["parameter_server", "zone"]
    assert graph.edges["parameter_server", "zone"] == {"gbps": 32, "utilisation": 0.9, "links": 3}


def test_network_nodes_do_not_touch() -> None:
    tiers = ("loader", "embedding_worker", "parameter_server", "nn_worker")
    graph = network_graph([LinkLoad(source=tier, target=zone, gbps=32, utilisation=0.1) for tier in tiers for zone in ("zone-a", "zone-b")])
    places = list(positions(graph, width_in=10, height_in=2.4).values())
    assert len(places) == 6
    for index, (x, y) in enumerate(places):
        assert all(abs(x - other_x) > 2 or abs(y - other_y) > 0.9 for other_x, other_y in places[index + 1 :])


def test_published_rows_are_drawn_with_their_signed_error() -> None:
    row = {"dataset": "avazu-ad", "mode": "hybrid", "accelerators": 8, "params_trillion": 0.000134, "fitted": False}
    drawing = draw_published([SimpleNamespace(**row, published=180_000.0, predicted=171_000.0, error_pct=-5.0)])
    assert "-5.0 %" in drawing.file_text
    assert "5.0 %" in drawing.title


def test_tooltips_escape_what_they_say() -> None:
    raw = '<?xml version="1.0"?><svg width="1pt" viewBox="0 0 1 1"><g id="tip0"><path d="M 0 0"/></g></svg>'
    drawing = finish(raw, name="x", title="a < b", tips={"tip0": "c & d"})
    assert "<title>c &amp; d</title>" in drawing.inline_text
    assert "a &lt; b" in drawing.file_text
