"""A YAML document as a tree in which every key and every value knows where it was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from persia.scenario.errors import Position, error_at
from persia.scenario.units import described

DEEPEST = 40
_MAPPING = Position(file="(mapping)")

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A scalar, resolved as YAML 1.2 does."""

    value: Scalar
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value of a mapping, with the position of its key."""

    key_position: Position
    node: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A mapping, in the order in which it was written."""

    entries: Mapping[str, Entry]
    position: Position


Node = Leaf | Items | Tree


def plain(node: Node) -> object:
    """Return the node as Python's own dict, list and scalars."""
    match node:
        case Leaf():
            return node.value
        case Items():
            return [plain(item) for item in node.nodes]
        case Tree():
            return {key: plain(entry.node) for key, entry in node.entries.items()}


def kind(node: Node) -> str:
    """Return what the node is, in YAML's words."""
    return described(plain(node) if isinstance(node, Leaf) else {} if isinstance(node, Tree) else [])


def from_plain(value: object, *, position: Position = _MAPPING, depth: int = 0) -> Node:
    """Return a tree made from Python's own dict, list and scalars; every node has the position given.

    Raises:
        ScenarioError: nested too deeply, a key that is not a string, or a value of another type.
    """
    if depth > DEEPEST:
        raise error_at(position, f"nested more than {DEEPEST} levels deep", "Flatten it.")
    if isinstance(value, Mapping):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise error_at(position, f"the key {described(wrong)} is not a string", "Use the names of fields as keys.")
        nodes = {key: from_plain(item, position=position, depth=depth + 1) for key, item in value.items()}
        return Tree(entries={key: Entry(key_position=position, node=node) for key, node in nodes.items()}, position=position)
    if isinstance(value, list | tuple):
        return Items(nodes=tuple(from_plain(item, position=position, depth=depth + 1) for item in value), position=position)
    if value is None or isinstance(value, str | bool | int | float):
        return Leaf(value=value, position=position)
    raise error_at(
        position, f"a value of type {type(value).__name__} is not allowed", "Use strings, numbers, true, false, lists and mappings."
    )


def merge(parent: Node, child: Node) -> Node:
    """Return the child laid over the parent: mappings are merged deeply, anything else is replaced."""
    if not (isinstance(parent, Tree) and isinstance(child, Tree)):
        return child
    entries = dict(parent.entries)
    for key, entry in child.entries.items():
        inherited = entries.get(key)
        entries[key] = entry if inherited is None else replace(entry, node=merge(inherited.node, entry.node))
    return Tree(entries=entries, position=child.position)


def find(root: Node, path: tuple[str | int, ...]) -> Node | None:
    """Return the node at the path, or None where there is none."""
    node: Node | None = root
    for step in path:
        node = child(node, step) if node is not None else None
    return node


def child(node: Node, step: str | int) -> Node | None:
    """Return the node one step below, or None."""
    if isinstance(node, Tree):
        entry = node.entries.get(str(step))
        return entry.node if entry else None
    if isinstance(node, Items) and isinstance(step, int) and 0 <= step < len(node.nodes):
        return node.nodes[step]
    return None


def position_of(root: Node, path: tuple[str | int, ...], *, of_key: bool = False) -> Position:
    """Return where the value at the path was written; what is not written has the position of the nearest key above it."""
    here = root.position
    node: Node = root
    for index, step in enumerate(path):
        entry = node.entries.get(str(step)) if isinstance(node, Tree) else None
        below = child(node, step)
        if below is None:
            return here
        last = index == len(path) - 1
        here = entry.key_position if entry and (of_key or not last or _begins_below(entry)) else below.position
        node = below
    return here


def _begins_below(entry: Entry) -> bool:
    """Return whether a value begins on a later line than its key: the key then shows better what is meant."""
    return entry.node.position.line != entry.key_position.line and entry.node.position.file == entry.key_position.file
