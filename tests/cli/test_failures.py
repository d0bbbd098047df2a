"""Exit codes: what went wrong is said in a line on stderr, never with a traceback, and stdout stays clean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from persia import cli
from persia.commands import failures
from persia.commands.exits import ExitCode, Failure
from simulator.excuse import Excuse, Infeasible
from tests.conftest import Persia
from tests.support import persia_environment

SHORT = Excuse(reason="short by 3 TB", bottleneck="memory", remedies=("more servers",))
PLACE = re.compile(r"^\S*broken\.yaml:\d+:\d+: ", re.MULTILINE)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("verb", ["check", "simulate"])
def test_scenario_error_names_file_line_and_column(persia: Persia, tmp_path: Path, verb: str) -> None:
    broken = write(tmp_path / "broken.yaml", "name: broken\nextends: persia-100t\nworkload:\n  batch_sise: 12\n")
    done = persia(verb, broken)
    assert done.returncode == ExitCode.USAGE
    assert PLACE.search(done.stderr)
    assert ":4:3: " in done.stderr
    assert "batch_size" in done.stderr, "the message should say what was meant"
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["simulate"],
        ["simulate", "persia-100t", "--steps", "0"],
        ["simulate", "persia-100t", "--steps", "many"],
        ["simulate", "persia-100t", "--engine", "steam"],
        ["simulate", "persia-100t", "--set", "no-equals-sign"],
        ["simulate", "persia-100t", "--set", "schedule.moode=sync"],
        ["check", "no-such-scenario"],
        ["catalog", "--family", "m22"],
        ["validate"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(persia: Persia, arguments: list[str]) -> None:
    done = persia(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_existing_out_is_refused(persia: Persia, tmp_path: Path) -> None:
    precious = write(tmp_path / "precious", "mine")
    done = persia("simulate", "laptop", "--steps", "20", "--out", precious)
    assert done.returncode == ExitCode.USAGE
    assert "never overwritten" in done.stderr
    assert precious.read_text() == "mine"


def test_out_below_a_file_is_an_environment_failure(persia: Persia, tmp_path: Path) -> None:
    write(tmp_path / "file", "mine")
    done = persia("simulate", "laptop", "--steps", "20", "--out", tmp_path / "file" / "run")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "Traceback" not in done.stderr


def test_missing_package_is_an_environment_failure(tmp_path: Path) -> None:
    write(tmp_path / "simpy.py", "raise ModuleNotFoundError('No module named simpy', name='simpy')")
    env = persia_environment()
    env["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{env['PYTHONPATH']}"
    command = [sys.executable, "-m", "persia", "simulate", "laptop", "--steps", "20"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "simpy" in done.stderr
    assert "persia doctor" in done.stderr
    assert "Traceback" not in done.stderr


def test_closed_pipe_is_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "persia", "schema"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=persia_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read()
        process.wait(timeout=60)
    assert complaints == ""
    assert process.returncode == ExitCode.BROKEN_PIPE


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Failure(ExitCode.USAGE, "no such thing"), ExitCode.USAGE, "no such thing"),
        (
            Infeasible([Excuse(reason="short by 3 TB", bottleneck="memory", remedies=("more servers",))]),
            ExitCode.INFEASIBLE,
            "more servers",
        ),
        (PermissionError(13, "Permission denied", "out"), ExitCode.ENVIRONMENT, "--out"),
        (OSError(28, "No space left on device", "out"), ExitCode.ENVIRONMENT, "Free some space"),
        (MemoryError(), ExitCode.ENVIRONMENT, "out of memory"),
        (RuntimeError("a bug"), ExitCode.INTERNAL, "a mistake in persia"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_exception_has_its_code(error: Exception, code: ExitCode, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert failures.report_failure(error) is code
    out, err = capsys.readouterr()
    assert words in err
    assert out == ""


def test_interrupt_exits_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == ExitCode.INTERRUPTED
    assert capsys.readouterr().out == ""
