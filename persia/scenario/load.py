"""Loading: file or name -> tree -> what it extends -> overrides -> a validated scenario."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from persia.scenario.errors import Position, ScenarioError, did_you_mean, error_at, shown
from persia.scenario.explain import validate
from persia.scenario.overrides import apply_override, parse_override
from persia.scenario.packaged import list_scenarios, looks_like_path, scenario_path
from persia.scenario.scenario import Scenario
from persia.scenario.source import read_tree
from persia.scenario.tree import Entry, Items, Leaf, Tree, child, from_plain, kind, merge

DEEPEST_EXTENDS = 8


def load_scenario(source: str | Path | Mapping[str, object], overrides: Sequence[str] = ()) -> Scenario:
    """Return a validated scenario.

    Args:
        source: the path of a YAML file, the name of a packaged scenario, or plain data of the same form.
        overrides: `path=value` texts, applied in order after everything that is inherited.

    Raises:
        ScenarioError: anything wrong with it, with the position of the value to blame, be it inherited or overridden.
    """
    tree = scenario_tree(source)
    for override in [parse_override(text) for text in overrides]:
        tree = apply_override(tree, override, Scenario)
    return validate(tree, Scenario)


def scenario_tree(source: str | Path | Mapping[str, object]) -> Tree:
    """Return a scenario's tree with everything it inherits, unvalidated; raises ScenarioError."""
    if isinstance(source, Mapping):
        tree = from_plain(source)
        assert isinstance(tree, Tree)
        return _with_inherited(tree, None)
    path = _path_of(source)
    return _with_inherited(_read(path, None), path)


def _path_of(source: str | Path) -> Path:
    """Return the file that a path or a packaged scenario's name stands for."""
    path = Path(source)
    name = str(source)
    if isinstance(source, Path) or looks_like_path(name) or "\0" in name or path.is_file():
        return path
    if name in list_scenarios():
        return scenario_path(name)
    if path.is_dir():
        return path
    at = Position(file=shown(name).strip("'\""), line=1, column=1)
    message = f"no file and no packaged scenario of this name: {shown(name)}"
    raise error_at(at, message, did_you_mean(name, list_scenarios()))


def _read(path: Path, asked_at: Position | None) -> Tree:
    """Return one file's tree, in which the path of a profile is relative to the working folder, no longer to the file."""
    tree = read_tree(path, asked_at=asked_at)
    simulation = child(tree, "simulation")
    profile = child(simulation, "profile") if isinstance(simulation, Tree) else None
    if not (
        isinstance(simulation, Tree) and isinstance(profile, Leaf) and isinstance(profile.value, str) and looks_like_path(profile.value)
    ):
        return tree
    moved = replace(profile, value=str(path.parent / profile.value))
    inner = replace(simulation, entries={**simulation.entries, "profile": replace(simulation.entries["profile"], node=moved)})
    return replace(tree, entries={**tree.entries, "simulation": replace(tree.entries["simulation"], node=inner)})


def _with_inherited(tree: Tree, path: Path | None) -> Tree:
    """Return a tree laid over everything that it extends, without its `extends:`."""
    generations = [tree]
    files = [path.resolve() if path else Path("(mapping)")]
    base: Path | None = path
    while (entry := generations[-1].entries.get("extends")) is not None:
        at = entry.node.position
        base = _parent_path(entry, base)
        resolved = base.resolve()
        if resolved in files:
            names = " -> ".join(file.name for file in [*files[files.index(resolved) :], resolved])
            raise error_at(at, f"extends goes round in a circle: {names}", "Let one of these files stand on its own.")
        if len(generations) > DEEPEST_EXTENDS:
            raise error_at(at, f"extends is more than {DEEPEST_EXTENDS} deep", "Extend a scenario nearer to the root.")
        files.append(resolved)
        generations.append(_read(base, at))
    bare = [replace(one, entries={key: entry for key, entry in one.entries.items() if key != "extends"}) for one in generations]
    return reduce(_inherit, reversed(bare))


def _parent_path(entry: Entry, base: Path | None) -> Path:
    """Return the file that `extends:` names: relative to the file it stands in, or else a packaged scenario."""
    node = entry.node
    if not isinstance(node, Leaf) or not isinstance(node.value, str) or not node.value.strip():
        message = f"extends: {kind(node)}; expected the name of a packaged scenario or the path of a file"
        raise error_at(node.position, message, "Write for example extends: persia-100t.")
    name = node.value
    if "\0" in name:
        raise error_at(node.position, f"extends: {shown(name)} is no file name", "Remove the NUL character.")
    folder = base.parent if base else Path()
    if looks_like_path(name):
        return folder / name
    try:
        # A bare name beside the file, but not the file itself: `laptop.yaml` may extend the packaged `laptop`.
        beside = folder / f"{name}.yaml"
        if beside.is_file() and not (base and beside.resolve() == base.resolve() and name in list_scenarios()):
            return beside
    except OSError as error:
        raise error_at(node.position, f"extends: {shown(name)}: {error.strerror}", "Check the name.") from error
    if name in list_scenarios():
        return scenario_path(name)
    raise _no_such_parent(node, name)


def _no_such_parent(node: Leaf, name: str) -> ScenarioError:
    """Return the error about an `extends:` that names nothing."""
    message = f"extends: no file beside this one and no packaged scenario is called {shown(name)}"
    return error_at(node.position, message, did_you_mean(name, list_scenarios()))


def _inherit(parent: Tree, heir: Tree) -> Tree:
    """Return the heir over its parent; assumptions are merged by their paths, so that an heir argues only what it changes."""
    merged = merge(parent, heir)
    assert isinstance(merged, Tree)
    old, new = child(parent, "assumptions"), child(heir, "assumptions")
    if not (isinstance(old, Items) and isinstance(new, Items)):
        return merged
    restated = [_assumed_path(node) for node in new.nodes]
    kept = tuple(node for node in old.nodes if _assumed_path(node) not in restated)
    both = replace(new, nodes=(*kept, *new.nodes))
    return replace(merged, entries={**merged.entries, "assumptions": replace(merged.entries["assumptions"], node=both)})


def _assumed_path(node: object) -> object:
    """Return the path of one assumption, or None where it is malformed."""
    leaf = child(node, "path") if isinstance(node, Tree) else None
    return leaf.value if isinstance(leaf, Leaf) else None
