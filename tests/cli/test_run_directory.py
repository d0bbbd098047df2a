"""A run directory is new, never overwritten, and holds no half-written file however the run ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from persia.commands.exits import ExitCode, Failure
from persia.commands.run_directory import RunDirectory


def state_of(path: Path) -> str:
    return str(json.loads((path / "run.json").read_text())["state"])


def test_names_count_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = []
    for _ in range(3):
        with RunDirectory.create(None, name="demo", command="demo") as run:
            paths.append(str(run.path))
    assert paths == ["runs/demo-001", "runs/demo-002", "runs/demo-003"]


def test_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "result.json").write_text("precious")
    with pytest.raises(Failure, match="never overwritten") as caught:
        RunDirectory.create(tmp_path / "mine", name="x", command="simulate")
    assert caught.value.code is ExitCode.USAGE
    assert (tmp_path / "mine" / "result.json").read_text() == "precious"


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "interrupted"), (ValueError(), "failed"), (None, "complete")])
def test_state_says_how_the_run_ended(tmp_path: Path, error: BaseException | None, state: str) -> None:
    path = tmp_path / "run"
    try:
        with RunDirectory.create(path, name="x", command="simulate"):
            assert state_of(path) == "running"
            if error is not None:
                raise error
    except BaseException as caught:
        assert caught is error
    assert state_of(path) == state


def test_interrupted_lines_end_at_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), RunDirectory.create(path, name="x", command="simulate") as run:
        lines = run.open_lines("events.jsonl")
        lines.write("first\nsecond\n" + "x" * 200_000)
        raise KeyboardInterrupt
    assert (path / "events.jsonl").read_text() == "first\nsecond\n"


def test_staged_files_appear_all_or_none(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt), RunDirectory.create(path, name="x", command="simulate") as run:
        with run.staged() as stage:
            (stage / "figures").mkdir()
            (stage / "figures" / "a.svg").write_text("<svg/>")
        assert sorted(entry.name for entry in path.iterdir()) == ["figures", "run.json"]
        with run.staged() as stage:
            (stage / "index.html").write_text("<html>")
            raise KeyboardInterrupt
    assert sorted(entry.name for entry in path.iterdir()) == ["figures", "run.json"]


def test_no_file_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"), RunDirectory.create(tmp_path / "run", name="x", command="simulate") as run:
        run.write_json("result.json", {"value": float("nan")})
    assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["run.json"]
