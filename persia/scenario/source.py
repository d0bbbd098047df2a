"""YAML text -> tree, refusing everything that a scenario has no use for.

The parser's events are read one by one, and never through a constructor: nothing is ever instantiated, no recursion
follows the document's depth, and every key and value keeps its line and column.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from persia.scenario.errors import Position, ScenarioError, error_at, shown
from persia.scenario.tree import DEEPEST, Entry, Items, Leaf, Node, Scalar, Tree

LARGEST_FILE_BYTES = 1024 * 1024
MOST_NODES = 20_000
_LONGEST_NUMBER = 300
_LONGEST_KEY = 200

# libyaml's parser where PyYAML was built with it: about ten times as fast, the same events.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The core schema of YAML 1.2, without octal and hexadecimal: `no`, `on`, `010` and `12:30` stay strings; `30e9` is a number.
_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_REAL = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def resolve(text: str) -> Scalar:
    """Return what an unquoted scalar means."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= _LONGEST_NUMBER:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _REAL.fullmatch(text):
            return float(text)
    return text


def read_text(path: Path, *, asked_at: Position | None = None) -> str:
    """Return a file's text, reading no more than LARGEST_FILE_BYTES.

    `asked_at` is where the file was asked for (an `extends:`); errors about a missing file are reported there.

    Raises:
        ScenarioError: missing, not a regular file, unreadable, too large, not UTF-8, or with control characters.
    """
    start = Position(file=str(path), line=1, column=1)
    asked_at = asked_at or start
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
        if stat.S_ISDIR(mode):
            raise error_at(asked_at, f"{str(path)!r} is a directory, not a file", "Name the YAML file in it.")
        if not stat.S_ISREG(mode):
            raise error_at(asked_at, f"{str(path)!r} is not a regular file", "Write the scenario to a file.")
        if size > LARGEST_FILE_BYTES:
            remedy = "Use `count:` for identical features, and `extends:` for what scenarios share."
            raise error_at(start, f"the file has {size:,} bytes; a scenario has at most {LARGEST_FILE_BYTES:,}", remedy)
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError as error:
        raise error_at(asked_at, f"no such file: {str(path)!r}", "Check the name, or run `persia init` to write one.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise error_at(asked_at, f"cannot read {shown(str(path))}: {reason}", "Check the name and its permissions.") from error
    return _decoded(data, str(path))


def _decoded(data: bytes, file: str) -> str:
    """Return UTF-8 bytes as text, without a byte order mark; refuse other encodings and control characters."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        at = Position(file=file, line=line, column=column)
        raise error_at(at, f"the byte 0x{data[error.start]:02x} is not UTF-8", "Save the file as UTF-8.") from error
    _refuse_unprintable(text, file)
    return text


def _refuse_unprintable(text: str, file: str) -> None:
    """Refuse the characters that YAML excludes, NUL among them."""
    found = _UNPRINTABLE.search(text)
    if found:
        start = found.start()
        at = Position(file=file, line=text.count("\n", 0, start) + 1, column=start - text.rfind("\n", 0, start))
        raise error_at(at, f"the character U+{ord(found[0]):04X} is not allowed in YAML", "Remove it.")


def read_tree(path: Path, *, asked_at: Position | None = None) -> Tree:
    """Return a file's mapping; raises ScenarioError."""
    return as_mapping(parse(read_text(path, asked_at=asked_at), file=str(path)), file=str(path))


def as_mapping(node: Node | None, *, file: str) -> Tree:
    """Return a document's top level, refusing an empty document and anything but a mapping."""
    if isinstance(node, Tree):
        return node
    remedy = "Start with `name: my-scenario`, or with `extends: persia-100t`."
    if node is None or (isinstance(node, Leaf) and node.value is None):
        raise error_at(Position(file=file, line=1, column=1), "the document is empty; expected a mapping of fields", remedy)
    what = "a list" if isinstance(node, Items) else "a scalar"
    raise error_at(node.position, f"the top level is {what}; expected a mapping of fields", remedy)


def parse(text: str, *, file: str, fixed: Position | None = None) -> Node | None:
    """Return the tree of one YAML document, or None where there is none; with `fixed` every node has that position.

    Raises:
        ScenarioError: broken YAML; several documents; tags, anchors, aliases or duplicate keys; too deep or too large.
    """
    if fixed is not None:
        # The text of a --set has not passed `read_text`.
        _refuse_unprintable(text, file)
    builder = _Builder(file=file, fixed=fixed)
    try:
        for event in _events(text):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = builder.position(mark) if mark else Position(file=file, line=1, column=1)
        what = ", ".join(part for part in (error.context, error.problem) if part)
        raise error_at(at, f"this is not YAML: {what}", "Check indentation, colons, brackets and quotes near this place.") from error
    except yaml.YAMLError as error:
        raise error_at(
            Position(file=file, line=1, column=1), f"this is not YAML: {shown(str(error))}", "Check the file's encoding."
        ) from error
    return builder.root


def _events(text: str) -> Iterator[yaml.Event]:
    """Return the parser's events, one at a time: what is refused early is never read to its end."""
    return iter(yaml.parse(text, Loader=_LOADER))


@dataclass(slots=True, kw_only=True)
class _Open:
    """A mapping or list that has begun; `key` waits for its value."""

    position: Position
    is_mapping: bool
    nodes: list[Node] = field(default_factory=list)
    entries: dict[str, Entry] = field(default_factory=dict)
    key: str | None = None
    key_position: Position | None = None


@dataclass(slots=True, kw_only=True)
class _Builder:
    """Events in, tree out; an explicit stack instead of recursion."""

    file: str
    fixed: Position | None
    root: Node | None = None
    stack: list[_Open] = field(default_factory=list)
    nodes: int = 0
    documents: int = 0

    def position(self, mark: Any) -> Position:
        """Return the position of one of the parser's marks (of either parser), which count from 0."""
        return self.fixed or Position(file=self.file, line=mark.line + 1, column=mark.column + 1)

    def take(self, event: yaml.Event) -> None:
        """Add one event."""
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                raise error_at(self.position(event.start_mark), "the file holds several documents", "Keep one scenario in one file.")
        elif isinstance(event, yaml.NodeEvent):
            self._node(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._close()

    def _node(self, event: yaml.NodeEvent) -> None:
        """Add a scalar, or begin a mapping or a list."""
        at = self.position(event.start_mark)
        _refuse_special(event, at)
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise error_at(at, f"more than {MOST_NODES:,} values", "Use `count:` for identical features.")
        top = self.stack[-1] if self.stack else None
        is_key = top is not None and top.is_mapping and top.key is None
        if isinstance(event, yaml.ScalarEvent):
            if is_key and top is not None:
                self._key(top, event.value, at)
            else:
                self._add(Leaf(value=resolve(event.value) if event.implicit[0] else event.value, position=at))
            return
        if is_key:
            raise error_at(at, "a mapping or list cannot be a key", "Use the name of a field as the key.")
        if len(self.stack) >= DEEPEST:
            raise error_at(at, f"nested more than {DEEPEST} levels deep", "Flatten it; no field of a scenario lies that deep.")
        self.stack.append(_Open(position=at, is_mapping=isinstance(event, yaml.MappingStartEvent)))

    def _key(self, top: _Open, key: str, at: Position) -> None:
        """Note a key, refusing one that is there already."""
        if len(key) > _LONGEST_KEY:
            raise error_at(
                at, f"a key of {len(key):,} characters", f"Use the name of a field; keys have at most {_LONGEST_KEY} characters."
            )
        if key in top.entries:
            first = top.entries[key].key_position
            raise error_at(at, f"the key {shown(key)} appears twice; the first is at {first}", "Keep one of them.")
        top.key, top.key_position = key, at

    def _add(self, node: Node) -> None:
        """Put a finished node where it belongs."""
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if top.is_mapping:
            assert top.key is not None
            assert top.key_position is not None
            top.entries[top.key] = Entry(key_position=top.key_position, node=node)
            top.key = None
        else:
            top.nodes.append(node)

    def _close(self) -> None:
        """End the innermost mapping or list."""
        done = self.stack.pop()
        if done.is_mapping:
            self._add(Tree(entries=done.entries, position=done.position))
        else:
            self._add(Items(nodes=tuple(done.nodes), position=done.position))


def _refuse_special(event: yaml.NodeEvent, at: Position) -> None:
    """Refuse aliases, anchors and tags: an alias bomb grows without bound, a tag names code or a type of its own."""
    if isinstance(event, yaml.AliasEvent):
        raise _alias_error(at, f"the alias {shown(f'*{event.anchor}')}")
    if event.anchor is not None:
        raise _alias_error(at, f"the anchor {shown(f'&{event.anchor}')}")
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise error_at(at, f"the tag {shown(tag)} is not allowed; a scenario holds plain values only", "Remove the tag.")


def _alias_error(at: Position, what: str) -> ScenarioError:
    """Return the error about an anchor or alias."""
    remedy = "Write the value out, use `count:` for identical features, or share it through `extends:`."
    return error_at(at, f"{what} is not allowed; scenarios have neither anchors nor aliases", remedy)
