"""Every malformed scenario ends `persia check` with 2, file, line and column on stderr, and no traceback, in under a second."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from persia import cli
from persia.commands.exits import ExitCode
from tests.conftest import Persia
from tests.scenario.malformed_cases import CASES, Case, materialise

AS_PROCESS = ("unknown-key.yaml", "alias-bomb.yaml", "unclosed-quote.yaml", "nan.yaml", "python-tag.yaml")


@pytest.fixture(scope="module")
def malformed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(tmp_path_factory.mktemp("malformed"))


def assert_refused(case: Case, returncode: object, out: str, err: str) -> None:
    assert returncode == ExitCode.USAGE
    assert re.search(rf"{re.escape(case.blamed)}:{case.line}:\d+: ", err), err
    assert case.fragment in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_command_refuses(malformed: Path, case: Case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["persia", "check", str(malformed / case.name)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert_refused(case, caught.value.code, *capsys.readouterr())


@pytest.mark.parametrize("case", [case for case in CASES if case.name in AS_PROCESS], ids=lambda case: case.name)
@pytest.mark.parametrize("verb", ["check", "simulate"])
def test_process_refuses(malformed: Path, case: Case, verb: str, persia: Persia) -> None:
    done = persia(verb, malformed / case.name)
    assert_refused(case, done.returncode, done.stdout, done.stderr)


def test_forty_are_tried_and_five_as_processes() -> None:
    assert len(CASES) >= 40
    assert len([case for case in CASES if case.name in AS_PROCESS]) == len(AS_PROCESS)
