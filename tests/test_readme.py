"""What the Markdown files show is run: every Python block, and every `persia` command of the console blocks.

A command that is meant to refuse says so behind it: `$ persia check x.yaml  # exits with 3`.  The two installing lines of
README.md are run by .ci/run, in an environment of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.readme_outputs import README, SHOWN, expected_code, run, shape
from tests.support import ROOT

SKIPPED_FOLDERS = {".git", ".venv", "node_modules", "runs", "shared", ".pytest_cache"}
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^\$ (persia .*)$", re.MULTILINE)
INSTALL = re.compile(r"^<!-- command: (\w+) -->\n```bash\n(.+)\n```$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One block of a document, or one command of it: where it stands, and what is to be run."""

    where: str
    text: str


def documents() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.md")) if not SKIPPED_FOLDERS & set(path.relative_to(ROOT).parts)]


def blocks(path: Path, *languages: str) -> Iterator[Example]:
    text = path.read_text(encoding="utf-8")
    for match in BLOCK.finditer(text):
        if match["language"] in languages:
            line = text.count("\n", 0, match.start()) + 2
            yield Example(where=f"{path.relative_to(ROOT)}:{line}", text=match["text"])


def commands(path: Path) -> list[Example]:
    return [
        Example(where=block.where, text=command) for block in blocks(path, "console", "bash") for command in COMMAND.findall(block.text)
    ]


PYTHON = [block for path in documents() for block in blocks(path, "python")]
# The commands of one document run in its order in one folder: `persia init mine.yaml` comes before what reads mine.yaml.
SHELL = [(path, found) for path in documents() if (found := commands(path))]


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.where)
def test_python_block_runs(block: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.where, "exec"), {"__name__": "example"})


@pytest.mark.parametrize(("path", "examples"), SHELL, ids=lambda value: value.name if isinstance(value, Path) else "")
def test_commands_end_and_print_as_shown(path: Path, examples: list[Example], tmp_path: Path) -> None:
    """Numbers may differ a little from machine to machine, words may not: `python tests/readme_outputs.py` renews them."""
    outputs = {match["command"]: match["output"] for match in SHOWN.finditer(path.read_text(encoding="utf-8"))}
    (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
    for example in examples:
        done = run(example.text, tmp_path)
        assert done.returncode == expected_code(example.text), f"{example.where}: {example.text}\n{done.stderr}"
        if example.text in outputs:
            assert shape(done.stdout) == shape(outputs[example.text]), f"{example.where}: {example.text}"


@pytest.mark.parametrize(
    ("one", "other", "alike"), [("64 × 1,024 at 1.9 M", "8 × 512 at 601 k", True), ("2 steps late", "2 steps early", False)]
)
def test_shape_is_the_words(one: str, other: str, alike: bool) -> None:
    assert (shape(one) == shape(other)) is alike


def test_readme_shows_code_and_commands() -> None:
    assert any(block.where.startswith("README.md") for block in PYTHON)
    assert "README.md" in [path.name for path, _ in SHELL]


def test_readme_has_the_two_lines_that_ci_runs() -> None:
    lines = dict(INSTALL.findall(README.read_text(encoding="utf-8")))
    assert list(lines) == ["demo", "test"]
    assert all("-c constraints.txt" in line and line.startswith("python3 -m venv .venv && ") for line in lines.values())
    assert lines["demo"].endswith("persia demo")
    assert ".[dev,runtime]" in lines["test"]
