"""The trace: what is written reads back, what is no trace is refused, and the viewer's format holds what it must."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persia.trace import Record, Span, StalenessRecord, TraceError, TraceWriter, read_trace, to_chrome, write_trace

COUNTS = st.integers(0, 2**40)
SECONDS = st.floats(0, 1e9, allow_nan=False)
RECORDS = st.one_of(
    st.builds(
        Span,
        tier=st.text(max_size=8),
        index=COUNTS,
        name=st.text(max_size=8),
        batch=COUNTS,
        start_s=SECONDS,
        end_s=SECONDS,
        cpu_s=st.none() | SECONDS,
    ),
    st.builds(StalenessRecord, batch=COUNTS, server=COUNTS, version=COUNTS, applied_s=SECONDS),
)


def span(name: str, batch: int, start_s: float, end_s: float, *, tier: str = "nn_worker", index: int = 0) -> Span:
    return Span(tier=tier, index=index, name=name, batch=batch, start_s=start_s, end_s=end_s)


@given(records=st.lists(RECORDS, max_size=20))
def test_what_is_written_reads_back(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    write_trace(path, records, clock="simulated", scenario="x")
    assert list(read_trace(path)) == records


def test_header_names_the_clock(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    write_trace(path, [], clock="wall", scenario="laptop")
    assert json.loads(path.read_text()) == {"kind": "trace", "schema_version": 1, "clock": "wall", "scenario": "laptop"}


def test_every_record_is_one_whole_line_at_any_moment(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with pytest.raises(KeyboardInterrupt), TraceWriter(path, clock="simulated", scenario="x") as writer:
        writer.write(span("dense", 0, 0.0, 1.0))
        raise KeyboardInterrupt
    assert [record.batch for record in read_trace(path)] == [0]


def test_an_existing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_trace(path, [], clock="simulated", scenario="x")
    assert path.read_text() == "mine"


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_trace(tmp_path / "trace.jsonl", [span("dense", 0, float("nan"), 1.0)], clock="simulated", scenario="x")


HEADER = '{"kind":"trace","schema_version":1,"clock":"wall","scenario":"x"}\n'


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("[]\n", 1),
        ('{"kind":"span"}\n', 1),
        ('{"kind":"trace","schema_version":2}\n', 1),
        (HEADER + '{"kind":"span","tier":"nn_wor', 2),
        (HEADER + '{"kind":"other"}\n', 2),
        (HEADER + '{"kind":"staleness","batch":1,"server":0,"version":3}\n', 2),
        (HEADER + "7\n", 2),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text(text)
    with pytest.raises(TraceError, match=f"trace.jsonl:{line}: "):
        list(read_trace(path))


def test_chrome_keeps_times_in_microseconds() -> None:
    events = to_chrome([span("dense", 7, 0.5, 0.75)])["traceEvents"]
    assert [(event["ts"], event["dur"], event["args"]) for event in events if event["ph"] == "X"] == [(500_000.0, 250_000.0, {"batch": 7})]


def test_chrome_tells_the_processor_time_where_it_is_known() -> None:
    known = Span(tier="t", index=0, name="a", batch=1, start_s=0.0, end_s=0.5, cpu_s=0.25)
    events = [event for event in to_chrome([known, span("b", 2, 0.0, 1.0)])["traceEvents"] if event["ph"] == "X"]
    assert {event["name"]: event.get("tdur") for event in events} == {"a 1": 250_000.0, "b 2": None}


def test_chrome_never_overlaps_two_spans_on_a_thread() -> None:
    spans = [span("lookup", batch, batch * 0.4, batch * 0.4 + 1.0) for batch in range(20)]
    events = [event for event in to_chrome(spans)["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 20
    for thread in {event["tid"] for event in events}:
        times = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event["tid"] == thread)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(times))
    assert len({event["tid"] for event in events}) == 3, "1 s of work begun every 0.4 s needs three threads"


def test_chrome_shows_a_process_a_tier_and_a_counter_a_server() -> None:
    records = [
        span("serve", 0, 0.0, 1.0, tier="parameter_server", index=3),
        span("dense", 0, 1.0, 2.0),
        StalenessRecord(batch=0, server=3, version=5, applied_s=2.0),
    ]
    events = to_chrome(records)["traceEvents"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"nn_worker", "parameter_server", "version staleness"}
    (counter,) = [event for event in events if event["ph"] == "C"]
    assert (counter["name"], counter["ts"], counter["args"]) == ("server 3", 2_000_000.0, {"updates": 5})
    assert json.dumps(events)
