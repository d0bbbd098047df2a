"""`--set path=value`: one value of a scenario replaced from the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pydantic import BaseModel

from persia.scenario.errors import Position, ScenarioError, did_you_mean, error_at, shown
from persia.scenario.shape import Path, look, parse_path, show_path
from persia.scenario.source import parse
from persia.scenario.tree import Entry, Items, Leaf, Node, Tree

LONGEST_OVERRIDE = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A path and the node to put there; its position is the text of the `--set`."""

    path: Path
    node: Node
    position: Position


def parse_override(text: str) -> Override:
    """Return `path=value` as an override; the value is YAML (a scalar, or a list or mapping in brackets).

    Raises:
        ScenarioError: no `=`, not a path, or not YAML; file is `--set path=value`, line and column are None.
    """
    at = Position(file=f"--set {text if len(text) <= 200 else text[:197] + '...'}")
    name, equals, value = text.partition("=")
    if not equals:
        raise error_at(at, f"{shown(text)} has no `=`; expected path=value", "Write for example --set workload.batch_size=512.")
    if len(text) > LONGEST_OVERRIDE:
        raise error_at(at, f"{len(text):,} characters; expected at most {LONGEST_OVERRIDE:,}", "Write a scenario with `extends:` instead.")
    try:
        path = parse_path(name.strip())
    except ValueError as error:
        raise error_at(at, f"{error}; expected names joined by dots", "Write for example model.features[0].rows.") from error
    try:
        node = parse(value, file=at.file, fixed=at)
    except ScenarioError as error:
        # The text of a --set has no lines worth naming.
        raise error_at(at, error.message, error.remedy) from error
    return Override(path=path, node=Leaf(value=None, position=at) if node is None else node, position=at)


def apply_override(tree: Tree, override: Override, model: type[BaseModel]) -> Tree:
    """Return the tree with the override's value; mappings on the way are made where the scenario leaves them out.

    Raises:
        ScenarioError: the path is that of no field, or goes through a list item or a scalar that is not there.
    """
    place = look(model, override.path)
    if place.failed_step is not None:
        step = str(override.path[place.failed_step])
        above = show_path(override.path[: place.failed_step]) or "the top level"
        if step == "extends" and place.failed_step == 0:
            raise error_at(override.position, "extends cannot be set from outside", "Write a scenario with `extends:`.")
        message = f"{show_path(override.path)} leads nowhere: no field {shown(step)} in {above}; expected the path of a field"
        raise error_at(override.position, message, did_you_mean(step, place.siblings))
    changed = _put(tree, override, 0)
    assert isinstance(changed, Tree)
    return changed


def _put(node: Node | None, override: Override, depth: int) -> Node:
    """Return the node with the override's value at `path[depth:]` below it."""
    if depth == len(override.path):
        return override.node
    step = override.path[depth]
    at = override.position
    if isinstance(node, Items):
        if not isinstance(step, int) or step >= len(node.nodes):
            above = show_path(override.path[:depth])
            message = f"{above} has {len(node.nodes)} items; expected an index from 0 to {len(node.nodes) - 1}, not {step}"
            raise error_at(at, message, f"Set the whole list: {above}=[...].")
        changed = _put(node.nodes[step], override, depth + 1)
        return replace(node, nodes=(*node.nodes[:step], changed, *node.nodes[step + 1 :]))
    written = node is not None and not (isinstance(node, Leaf) and node.value is None)
    if isinstance(step, int) and not isinstance(node, Tree):
        above = show_path(override.path[:depth])
        raise error_at(at, f"{above} is no list that the scenario writes out; expected one", f"Set the whole list: {above}=[...].")
    if written and not isinstance(node, Tree):
        above = show_path(override.path[:depth])
        raise error_at(at, f"{above} is a single value; expected a mapping", "Correct it in the file first.")
    entries = dict(node.entries) if isinstance(node, Tree) else {}
    old = entries.get(str(step))
    entries[str(step)] = Entry(key_position=at, node=_put(old.node if old else None, override, depth + 1))
    return Tree(entries=entries, position=node.position if node is not None else at)
