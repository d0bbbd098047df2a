"""Which fields a scenario may have: paths such as `model.features[0].rows` walked through the pydantic classes."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Path = tuple[str | int, ...]

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+|)\]")
_LONGEST = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a path leads to: a field with its type, or, where it leads nowhere, the step that fails and its siblings."""

    type: Any = None
    field: FieldInfo | None = None
    failed_step: int | None = None
    siblings: tuple[str, ...] = ()


def parse_path(text: str) -> Path:
    """Return the steps of `a.b[0].c`, `a.b.0.c` or `a.b[].c` (`[]`: any item, here the first).

    Raises:
        ValueError: the text is no path.
    """
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        match = _STEP.match(text, position) if len(text) <= _LONGEST else None
        if match is None:
            raise ValueError(f"{text[:60]!r} is not a path")
        name, index = match.groups()
        steps.append(int(index or 0) if name is None else int(name) if name.isascii() and name.isdigit() and len(name) < 10 else name)
        position = match.end()
        if text[position : position + 1] == ".":
            position += 1
            if position == len(text):
                raise ValueError(f"{text[:60]!r} ends with a dot")
    if not steps:
        raise ValueError("the path is empty")
    return tuple(steps)


def show_path(path: Sequence[str | int]) -> str:
    """Return the path as text, `a.b[0].c`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


@lru_cache(maxsize=64)
def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return a model's fields by the names they have in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def look(root: type[BaseModel], path: Path) -> Place:
    """Return what the path leads to."""
    here: Any = root
    field: FieldInfo | None = None
    for index, step in enumerate(path):
        here = unwrapped(here)
        if _is_model(here):
            field = fields_of(here).get(str(step))
            if field is None:
                return Place(type=here, failed_step=index, siblings=tuple(fields_of(here)))
            here = field.annotation
        elif typing.get_origin(here) is tuple and isinstance(step, int):
            here = typing.get_args(here)[0]
        elif typing.get_origin(here) is Mapping:
            here = typing.get_args(here)[1]
        else:
            return Place(type=here, failed_step=index)
    return Place(type=unwrapped(here), field=field)


def unwrapped(annotation: Any) -> Any:
    """Return the type within Annotated[...] and `| None`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return unwrapped(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return unwrapped(next(kind for kind in typing.get_args(annotation) if kind is not type(None)))
    return annotation


def _is_model(kind: Any) -> bool:
    """Return whether the type is a pydantic class."""
    return isinstance(kind, type) and typing.get_origin(kind) is None and issubclass(kind, BaseModel)
