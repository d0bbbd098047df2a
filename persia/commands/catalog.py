"""`persia catalog`: the machine types that scenarios may name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict

from persia.commands.exits import ExitCode, Failure
from persia.commands.output import print_json, print_text
from persia.scenario import load_catalog
from reports.terminal import catalog_table

SCHEMA_VERSION = 1


def run(*, family: str | None, as_json: bool) -> ExitCode:
    """Print the machines of one family, or of all; exit 2 where there is no such family."""
    catalog = load_catalog()
    families = sorted({machine.family for machine in catalog.machines.values()})
    if family is not None and family not in families:
        raise Failure(ExitCode.USAGE, f"no machine family {family!r}. {_choices(family, families)}")
    machines = [machine for machine in catalog.machines.values() if family in (None, machine.family)]
    if as_json:
        print_json({"schema_version": SCHEMA_VERSION, "machines": [asdict(machine) for machine in machines]})
    else:
        print_text(catalog_table(machines))
    return ExitCode.OK


def _choices(family: str, families: Sequence[str]) -> str:
    near = difflib.get_close_matches(family, families, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"Choose among: {', '.join(families)}."
