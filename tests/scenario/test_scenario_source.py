"""YAML text to a tree: positions, and scalars as YAML 1.2 reads them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from persia.scenario import ScenarioError, source
from persia.scenario.source import parse, read_tree, resolve
from persia.scenario.tree import from_plain, plain, position_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-0", 0),
        ("30e9", 30e9),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("12:30", "12:30"),
        ("2_048", "2_048"),
        ("2026-11-24", "2026-11-24"),
        ("=", "="),
        (".inf", math.inf),
    ],
)
def test_scalars(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


def test_quoted_scalars_stay_strings() -> None:
    assert plain(parse("a: '1'\nb: \"true\"\nc: |\n  2\n", file="f") or from_plain({})) == {"a": "1", "b": "true", "c": "2\n"}


def test_every_key_and_value_has_its_position() -> None:
    tree = parse("a: 1\nb:\n  - x\n  - {c: ü, d: 2}\n", file="f.yaml")
    assert tree is not None
    assert str(position_of(tree, ("a",))) == "f.yaml:1:4"
    assert str(position_of(tree, ("a",), of_key=True)) == "f.yaml:1:1"
    assert str(position_of(tree, ("b", 0))) == "f.yaml:3:5"
    assert str(position_of(tree, ("b", 1, "d"))) == "f.yaml:4:15"
    # What is not there has the position of what lacks it.
    assert str(position_of(tree, ("b", 1, "missing"))) == "f.yaml:4:5"


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfname: x\n")
    tree = read_tree(tmp_path / "bom.yaml")
    assert plain(tree) == {"name": "x"}
    assert position_of(tree, ("name",), of_key=True).column == 1


def test_windows_line_ends_count_as_one_line() -> None:
    tree = parse("a: 1\r\nb: 2\r\n", file="f")
    assert tree is not None
    assert str(position_of(tree, ("b",))) == "f:2:4"


def test_both_parsers_give_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a: [1, {b: 'x'}]\nc:\n- d\n", "# nothing\n", "a: 1\n---\nb: 2\n", "a: &x 1\n", "a: !t 1\n", "a: {b: [1, 2}\n", "[" * 100]

    def outcomes() -> list[str]:
        return [outcome(text) for text in texts]

    def outcome(text: str) -> str:
        try:
            return repr(parse(text, file="f"))
        except ScenarioError as error:
            # Libyaml and PyYAML differ in where they notice broken YAML, in nothing else.
            return "this is not YAML" if "this is not YAML" in error.message else str(error)

    ours = outcomes()
    monkeypatch.setattr(source, "_LOADER", yaml.SafeLoader)
    assert outcomes() == ours


def test_plain_data_of_a_wrong_type_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    for value in ({1: 2}, {"a": object()}, {"a": {1, 2}}, {"a": endless}):
        with pytest.raises(ScenarioError):
            from_plain(value)
