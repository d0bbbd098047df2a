"""The JSON Schema of the YAML that a user writes; `scenario.schema.json` beside this file is its committed copy."""

from __future__ import annotations

import json
from typing import Any

from persia.scenario.scenario import Scenario

# Mappings that an heir writes in part: what is missing in them may come from `extends:`.  Items of lists are not merged.
_WHOLE = frozenset({"Assumption", "Feature", "Link", "SlowMachine"})
_EXTENDS = {
    "type": "string",
    "minLength": 1,
    "description": "A packaged scenario's name, or a file relative to this one, whose values this scenario inherits and overrides.",
    "examples": ["persia-100t"],
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a scenario's YAML: quantities may be numbers or strings with units."""
    schema = Scenario.model_json_schema(by_alias=True, mode="validation")
    for name, definition in schema["$defs"].items():
        if name not in _WHOLE:
            definition.pop("required", None)
    required = schema.pop("required")
    properties = {"extends": _EXTENDS, **schema.pop("properties")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "properties": properties,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": required},
    }


def schema_text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
