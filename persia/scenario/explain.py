"""Validation of a tree, and pydantic's complaints put into words with a position and a remedy."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from persia.scenario.errors import ERRORS_SHOWN, Position, ScenarioError, did_you_mean, error_at, gather, shown
from persia.scenario.shape import Path, Place, fields_of, look, show_path, unwrapped
from persia.scenario.tree import Items, Tree, find, kind, plain, position_of

M = TypeVar("M", bound=BaseModel)

# Errors of pydantic whose meaning is "the value is of another kind than ...".
_KINDS = {
    "string_type": "a string",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dict_type": "a mapping",
}
_YAML_1_1_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})


def validate(tree: Tree, model: type[M]) -> M:
    """Return the tree as an object of the class; raises ScenarioError with every complaint."""
    try:
        return model.model_validate(plain(tree))
    except ValidationError as invalid:
        raise explained(invalid, tree, model) from None


def explained(invalid: ValidationError, tree: Tree, model: type[BaseModel]) -> ScenarioError:
    """Return pydantic's complaints as one error: unknown keys first, since they explain what else is missing."""
    details = [detail for detail in invalid.errors(include_url=False, include_input=False) if not _is_echo(detail, tree)]
    details.sort(key=lambda detail: (detail["type"] != "extra_forbidden", _order(position_of(tree, _path(detail)), tree.position.file)))
    errors: list[ScenarioError] = []
    for detail in details[:ERRORS_SHOWN]:
        errors += _explain(detail, tree, model)
    error = gather(errors)
    error.hidden += max(0, len(details) - ERRORS_SHOWN)
    return error


def _is_echo(detail: ErrorDetails, tree: Tree) -> bool:
    """Return whether a list is called too short only because its items, which are complained about themselves, are left out."""
    node = find(tree, _path(detail))
    return detail["type"] == "too_short" and isinstance(node, Items) and len(node.nodes) > 0


def _order(position: Position, main_file: str) -> tuple[bool, str, int, int]:
    """Return a sort key: the main file first, then by line and column."""
    return position.file != main_file, position.file, position.line or 0, position.column or 0


def _path(detail: ErrorDetails) -> Path:
    """Return where pydantic found it."""
    return tuple(detail["loc"])


def _explain(detail: ErrorDetails, tree: Tree, model: type[BaseModel]) -> list[ScenarioError]:
    """Return one complaint in words; several where it stands for broken rules."""
    path = _path(detail)
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return [_unknown_key(path, tree, model)]
        case "missing":
            return [_missing(path, tree, model)]
        case "rules":
            broken = sorted(context["broken"], key=lambda rule: _order(position_of(tree, rule.path), tree.position.file))
            return [error_at(position_of(tree, rule.path), f"{show_path(rule.path)}: {rule.message}", rule.remedy) for rule in broken]
    place = look(model, path)
    message, remedy = _wrong_value(detail, path, tree, place)
    return [error_at(position_of(tree, path), f"{show_path(path)}: {message}", remedy or _example(path, place))]


def _unknown_key(path: Path, tree: Tree, model: type[BaseModel]) -> ScenarioError:
    """Return the error about a key that is no field."""
    at = position_of(tree, path, of_key=True)
    *above, key = path
    where = f"in {show_path(above)}" if above else "at the top level"
    siblings = look(model, path).siblings
    if not above and "extends" not in siblings:
        siblings = (*siblings, "extends")
    remedy = "Use `extends:` to share values; merge keys are not allowed." if key == "<<" else did_you_mean(str(key), siblings)
    return error_at(at, f"unknown key {shown(str(key))} {where}; expected a field of a scenario", remedy)


def _missing(path: Path, tree: Tree, model: type[BaseModel]) -> ScenarioError:
    """Return the error about a required field that is not there, at the mapping that lacks it."""
    above = path[:-1]
    place = look(model, path)
    where = f"in {show_path(above)}" if above else "at the top level"
    words = (place.field.description if place.field else None) or "a value"
    lowered = words if words[:2].isupper() else words[0].lower() + words[1:]
    message = f"{show_path(path)} is missing {where}; expected {lowered.rstrip('.')}"
    return error_at(position_of(tree, above, of_key=True), message, _example(path, place))


def _wrong_value(detail: ErrorDetails, path: Path, tree: Tree, place: Place) -> tuple[str, str]:
    """Return what is wrong with a value and what was expected, and a remedy (empty: the field's example)."""
    context: Mapping[str, Any] = detail.get("ctx", {})
    node = find(tree, path)
    is_what = kind(node) if node else "the value"
    value = plain(node) if node else None
    match detail["type"]:
        case "quantity":
            return f"{context['wrong']}; expected {context['expected']}", context["remedy"]
        case "literal_error":
            choices = [choice for choice in typing.get_args(place.type) if isinstance(choice, str)]
            remedy = did_you_mean(value, choices) if isinstance(value, str) and choices else ""
            return f"{is_what}; expected {context['expected']}", remedy
        case "bool_type" if isinstance(value, str) and value.lower() in _YAML_1_1_BOOLEANS:
            return f"{is_what}; expected true or false", "Write true or false; yes, no, on and off are strings here."
        case "string_type" if value is not None and not isinstance(value, list | dict):
            return f"{is_what}; expected a string", f"Put it in quotes: {path[-1]}: {json.dumps(str(value))}."
        case "too_short" | "string_too_short":
            return f"{is_what} that is empty; expected at least {context.get('min_length', 1)}", ""
        case "too_long" | "string_too_long":
            return f"{is_what} that is too long; expected at most {context['max_length']}", "Shorten it."
    expected = _KINDS.get(detail["type"])
    if expected == "a mapping" and place.type is not None:
        expected = _mapping_words(place.type)
    return (f"{is_what}; expected {expected}", "") if expected else (detail["msg"], "")


def _mapping_words(annotation: Any) -> str:
    """Return `a mapping with the fields ...`."""
    inner = unwrapped(annotation)
    if isinstance(inner, type) and typing.get_origin(inner) is None and issubclass(inner, BaseModel):
        return f"a mapping with the fields {', '.join(fields_of(inner))}"
    return "a mapping"


def _example(path: Path, place: Place) -> str:
    """Return `Write for example key: value`, from the field's own example."""
    key = next((step for step in reversed(path) if isinstance(step, str)), "")
    if place.field is None or not place.field.examples:
        return f"Write {key} as a mapping." if key else "See the schema (`persia schema`)."
    example = place.field.examples[0]
    if isinstance(path[-1], int) and isinstance(example, list) and example:
        return f"Write for example {json.dumps(example[0])}."
    return f"Write for example {key}: {example if isinstance(example, str) else json.dumps(example)}."
