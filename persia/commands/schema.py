"""`persia schema`: the JSON Schema of a scenario."""

from __future__ import annotations

from persia.commands.exits import ExitCode
from persia.commands.output import print_json
from persia.scenario import json_schema


def run() -> ExitCode:
    """Print the schema on stdout."""
    print_json(json_schema())
    return ExitCode.OK
