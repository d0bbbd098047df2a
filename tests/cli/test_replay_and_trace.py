"""`persia replay` and `persia trace`: the logs and the timeline of a run that is over, whole or killed, simulated or real."""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persia.commands import replay, trace
from persia.commands.exits import ExitCode, Failure
from persia.replaying import HALF_LINE, LogError, Replayed, replay_log
from persia.trace import Span, StalenessRecord, TraceWriter, write_trace
from simulator.run import simulate
from tests.conftest import Persia
from tests.simulator.small_clusters import SMALL

ROLES = ("loader", "embedding_worker", "parameter_server", "nn_worker")


@cache
def simulated_log() -> tuple[str, ...]:
    """The lines of a run in which every role decides something, a checkpoint included."""
    log = io.StringIO()
    simulate(SMALL, overrides=("simulation.fidelity=message", "schedule.checkpoint_every_steps=6"), steps=12, log=log)
    return tuple(log.getvalue().splitlines(keepends=True))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def simulated(tmp_path: Path) -> Path:
    """A run directory as `persia simulate` leaves it."""
    write(tmp_path / "run" / "events.jsonl", "".join(simulated_log()))
    write_trace(tmp_path / "run" / "trace.jsonl", records_of("nn_worker", 0), clock="simulated", scenario="small")
    return tmp_path / "run"


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run directory as `persia train` leaves it, of two attempts: a log a process, a trace a life of a process."""
    header, *entries = simulated_log()
    for attempt in ("001", "002"):
        folder = tmp_path / "run" / "attempts" / attempt
        for entry in entries:
            _, role, index, *_ = json.loads(entry)
            path = folder / "logs" / f"{role}-{index}.jsonl"
            if not path.exists():
                write(path, header)
            with path.open("a", encoding="utf-8") as file:
                file.write(entry)
        for role in ROLES:
            life = folder / "traces" / f"{role}-0-0.jsonl"
            life.parent.mkdir(exist_ok=True)
            write_trace(life, records_of(role, int(attempt)), clock="wall", scenario="small")
    return tmp_path / "run"


def records_of(tier: str, first_batch: int) -> list[Span | StalenessRecord]:
    spans: list[Span | StalenessRecord] = [
        Span(tier=tier, index=0, name="work", batch=first_batch + n, start_s=n * 1.0, end_s=n + 1.5) for n in range(3)
    ]
    return [*spans, StalenessRecord(batch=first_batch, server=0, version=4, applied_s=2.0)]


def replayed(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[ExitCode, dict[str, Any]]:
    code = replay.run(place=place, as_json=True)
    return code, json.loads(capsys.readouterr().out)


def refused(action: Any, **arguments: Any) -> str:
    with pytest.raises(Failure) as caught:
        action(**arguments)
    assert caught.value.code is ExitCode.USAGE
    return str(caught.value)


# --- replay -------------------------------------------------------------------------------------------------------


def test_a_simulated_and_a_trained_run_are_identical(persia: Persia, simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = persia("replay", simulated)
    entries = len(simulated_log()) - 1
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    assert done.stdout.splitlines()[-1] == f"{entries:,} entries in 1 log: identical."
    code, payload = replayed(simulated / "events.jsonl", capsys)
    assert (code, payload["schema_version"], payload["identical"], payload["entries"]) == (ExitCode.OK, 1, True, entries)


def test_every_process_of_every_attempt_is_replayed(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, payload = replayed(trained, capsys)
    assert (code, payload["identical"], payload["entries"]) == (ExitCode.OK, True, 2 * (len(simulated_log()) - 1))
    files = [Path(log["file"]).relative_to(trained).as_posix() for log in payload["logs"]]
    assert files[0] == "attempts/001/logs/embedding_worker-0.jsonl"
    assert len(files) == len(set(files)) == 2 * len(list(trained.glob("attempts/001/logs/*")))
    for folder in (trained / "attempts" / "002", trained / "attempts" / "002" / "logs"):
        assert 2 * replayed(folder, capsys)[1]["entries"] == payload["entries"]


def test_logs_are_in_the_order_of_their_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in (10, 9, 1):
        write(tmp_path / f"nn_worker-{index}.jsonl", simulated_log()[0])
    files = [Path(log["file"]).name for log in replayed(tmp_path, capsys)[1]["logs"]]
    assert files == ["nn_worker-1.jsonl", "nn_worker-9.jsonl", "nn_worker-10.jsonl"]


def test_the_first_difference_is_named(persia: Persia, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "attempts" / "002" / "logs" / "nn_worker-1.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    place = next(number for number, line in enumerate(lines) if number > 30 and len(json.loads(line)) == 5)
    time_s, role, index, event, command = json.loads(lines[place])
    lines[place] = json.dumps([time_s, role, index, event]) + "\n"
    path.write_text("".join(lines))
    code, payload = replayed(trained, capsys)
    assert (code, payload["identical"]) == (ExitCode.GATE_FAILED, False)
    (found,) = [log for log in payload["logs"] if log["difference"] is not None]
    assert found["file"] == str(path)
    assert found["entries"] == place
    assert found["difference"] == {
        "entry": place - 1, "line": place + 1, "time_s": time_s, "role": role, "index": index, "event": event,
        "logged": [], "replayed": [command],
    }  # fmt: skip
    done = persia("replay", trained)
    assert done.returncode == ExitCode.GATE_FAILED
    assert f"(line {place + 1:,})" in done.stdout
    assert f"replayed  {command}" in done.stdout
    assert "logged    no command" in done.stdout
    assert "1 different" in done.stdout


def test_half_a_last_line_is_left_out_and_said(simulated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = simulated / "events.jsonl"
    log.write_text(log.read_text()[:-20])
    code, payload = replayed(simulated, capsys)
    assert (code, payload["entries"]) == (ExitCode.OK, len(simulated_log()) - 2)
    assert payload["logs"][0]["remark"] == HALF_LINE
    assert replay.run(place=simulated, as_json=False) is ExitCode.OK
    assert HALF_LINE in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", '{"log_versi'])
def test_a_process_that_wrote_nothing_is_no_difference(trained: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    (trained / "attempts" / "002" / "logs" / "loader-0.jsonl").write_text(text)
    code, payload = replayed(trained, capsys)
    assert code is ExitCode.OK
    (empty,) = [log for log in payload["logs"] if log["remark"]]
    assert (empty["entries"], empty["difference"]) == (0, None)


DAMAGES = {
    "no JSON": "rubbish\n",
    "no list": "7\n",
    "an object": '{"a": 1, "b": 2, "c": 3, "d": 4}\n',
    "too few": "[0.5, 0]\n",
    "no word": '[0.5, "loader", 0, "Exploded 3"]\n',
    "a command for an event": '[0.5, "loader", 0, "Push 3"]\n',
    "no integers": '[0.5, "loader", 0, "BatchRead three"]\n',
    "no role": '[0.5, "cleaner", 0, "BatchRead 3"]\n',
    "role of another kind": '[0.5, ["loader"], 0, "BatchRead 3"]\n',
    "no index": '[0.5, "loader", "0", "BatchRead 3"]\n',
    "negative index": '[0.5, "loader", -1, "BatchRead 3"]\n',
    "no time": '["noon", "loader", 0, "BatchRead 3"]\n',
    "never": '[NaN, "loader", 0, "BatchRead 3"]\n',
    "not its ear": '[0.5, "loader", 0, "Pushed 3"]\n',
    "deep": "[" * 100_000 + "\n",
    "long": "[" + " " * (1 << 20) + "]\n",
    "empty": "\n",
}


@pytest.mark.parametrize("line", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    log = write(tmp_path / "events.jsonl", "".join([*simulated_log()[:5], line, *simulated_log()[5:]]))
    assert f"{log}:6: " in refused(replay.run, place=tmp_path, as_json=True)


@pytest.mark.parametrize(
    "first", ["{}\n", "[]\n", "rubbish\n", '{"log_version": 99}\n', '{"log_version": 1, "rank": 5}\n', '{"kind": "trace"}\n']
)
def test_what_is_no_event_log_is_named(tmp_path: Path, first: str) -> None:
    log = write(tmp_path / "events.jsonl", "".join([first, *simulated_log()[1:5]]))
    assert f"{log}:1: not the first line of an event log" in refused(replay.run, place=tmp_path, as_json=True)


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    log.write_bytes("".join(simulated_log()[:4]).encode() + b"\xff\xfe\n")
    assert f"{log}:5: not text" in refused(replay.run, place=tmp_path, as_json=True)


def test_a_folder_without_logs_says_what_is_looked_for(persia: Persia, tmp_path: Path) -> None:
    assert "no such file or folder" in refused(replay.run, place=tmp_path / "nowhere", as_json=True)
    (tmp_path / "foreign").mkdir()
    done = persia("replay", "foreign", "--json")
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert "foreign holds no event log" in done.stderr
    assert "Traceback" not in done.stderr


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_breaks_a_replay(data: st.DataObject) -> None:
    """Whatever is changed in a log, it is replayed, found different, or refused in words."""
    text = bytearray("".join(simulated_log()[:120]).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        length = data.draw(st.integers(0, 8))
        text[place : place + length] = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"[", b"]", b",", b"\n", b"0", b"-", b" "]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "events.jsonl")
        path.write_bytes(text)
        try:
            assert isinstance(replay_log(path), Replayed)
        except LogError as error:
            assert str(error).startswith(f"{path}:")


# --- trace --------------------------------------------------------------------------------------------------------


def lanes(path: Path) -> set[str]:
    events = json.loads(path.read_text())["traceEvents"]
    return {event["args"]["name"] for event in events if event["ph"] == "M" and event["name"] == "process_name"}


def batches(path: Path) -> set[int]:
    return {event["args"]["batch"] for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"}


def test_a_simulated_run_is_exported(persia: Persia, simulated: Path) -> None:
    done = persia("trace", simulated)
    written = simulated.parent / "trace.json"
    assert done.returncode == ExitCode.OK, done.stderr
    assert "3 spans of nn_worker, 1 staleness records" in done.stdout
    assert lanes(written) == {"nn_worker", "version staleness"}
    before = written.read_bytes()
    again = persia("trace", simulated)
    assert (again.returncode, again.stdout) == (ExitCode.USAGE, "")
    assert "exists already" in again.stderr
    assert written.read_bytes() == before


def test_all_processes_of_the_last_attempt_are_exported(trained: Path, tmp_path: Path) -> None:
    assert trace.run(place=trained, out=tmp_path / "last.json", attempt=None) is ExitCode.OK
    assert lanes(tmp_path / "last.json") == {*ROLES, "version staleness"}
    assert batches(tmp_path / "last.json") == {2, 3, 4}
    assert trace.run(place=trained, out=tmp_path / "first.json", attempt=1) is ExitCode.OK
    assert trace.run(place=trained / "attempts" / "001", out=tmp_path / "folder.json", attempt=None) is ExitCode.OK
    assert batches(tmp_path / "first.json") == batches(tmp_path / "folder.json") == {1, 2, 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "folder.json", "last.json", "run"]


def test_attempts_count_beyond_nine(trained: Path, tmp_path: Path) -> None:
    (trained / "attempts" / "002").rename(trained / "attempts" / "1000")
    trace.run(place=trained, out=tmp_path / "last.json", attempt=None)
    assert batches(tmp_path / "last.json") == {2, 3, 4}
    assert "has no attempt 2. It has 1, 1000." in refused(trace.run, place=trained, out=tmp_path / "x.json", attempt=2)


def test_half_a_last_line_is_left_out_of_the_timeline(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = trained / "attempts" / "002" / "traces" / "nn_worker-0-1.jsonl"
    write_trace(killed, records_of("nn_worker", 90), clock="wall", scenario="small")
    killed.write_text(killed.read_text()[:-30])
    (trained / "attempts" / "002" / "traces" / "nn_worker-0-2.jsonl").touch()  # killed before its first line
    assert trace.run(place=trained, out=tmp_path / "t.json", attempt=None) is ExitCode.OK
    said = capsys.readouterr().err
    assert f"{killed}:5: half a line" in said
    assert "nn_worker-0-2.jsonl:1: half a line" in said
    assert {90, 91, 92} <= batches(tmp_path / "t.json")


SPAN = '"kind":"span","tier":"nn_worker","index":0,"name":"x","batch":1,"start_s":0.5'


@pytest.mark.parametrize(
    "line",
    [
        "rubbish\n",
        "\n",
        "[1, 2]\n",
        "{" + SPAN + "}\n",
        "{" + SPAN + ',"end_s":NaN}\n',
        "{" + SPAN + ',"end_s":"noon"}\n',
        "{" + SPAN.replace('"nn_worker"', "[]") + ',"end_s":1.0}\n',
        "{" + SPAN.replace('"batch":1', '"batch":true') + ',"end_s":1.0}\n',
        "[" * 100_000 + "\n",
        "\udcff\n",
    ],
)
def test_a_damaged_line_of_a_trace_is_named(simulated: Path, tmp_path: Path, line: str) -> None:
    path = simulated / "trace.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line.encode(errors="surrogateescape"), *lines[3:]]))
    assert f"{path}:4: " in refused(trace.run, place=simulated, out=tmp_path / "t.json", attempt=None)
    assert not (tmp_path / "t.json").exists()


def test_what_is_no_trace_is_named(trained: Path, simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    assert "events.jsonl:1: not a trace" in refused(trace.run, place=simulated / "events.jsonl", out=out, attempt=None)
    assert "no such run" in refused(trace.run, place=tmp_path / "nowhere", out=out, attempt=None)
    (tmp_path / "foreign").mkdir()
    assert "holds no trace" in refused(trace.run, place=tmp_path / "foreign", out=out, attempt=None)
    assert "holds no attempts" in refused(trace.run, place=tmp_path / "foreign", out=out, attempt=1)
    (trained / "attempts" / "003").mkdir()
    assert "try another --attempt" in refused(trace.run, place=trained, out=out, attempt=None)
    (trained / "attempts" / "003" / "traces").mkdir()
    TraceWriter(trained / "attempts" / "003" / "traces" / "loader-0-0.jsonl", clock="wall", scenario="x").close()
    assert "nothing has been traced" in refused(trace.run, place=trained, out=out, attempt=None)
    assert not out.exists()


def test_an_output_folder_that_is_missing_is_said(persia: Persia, simulated: Path) -> None:
    done = persia("trace", simulated, "-o", "no/such/folder/t.json")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "No such file or directory" in done.stderr
    assert "Traceback" not in done.stderr
