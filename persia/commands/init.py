"""`persia init`: a commented scenario to start from."""

from __future__ import annotations

import re
from pathlib import Path

from persia.commands.exits import ExitCode, Failure
from persia.commands.output import print_text
from persia.scenario import Scenario, load_scenario

TEMPLATE = """\
# A scenario: what is trained, on which machines, under which schedule.
# It extends {base}: what is not written here is as it is there, so write only what differs.
#
#   persia check {file}              is it valid, does it fit, what does it cost?
#   persia simulate {file} --report  how fast, how stale, what holds it back?
#   persia schema                    every field, for an editor that checks as you type
#
# Sizes, rates, times and counts take units: 12TB, 4GiB, 32Gbps, 80us, 30e9.
name: {name}
extends: {base}
description: What this cluster is for

# workload:
#   batch_size: {batch_size}                # samples a rank trains at once

# model:
#   dense:
#     layers: {layers}

# cluster:
#   tiers:                          # `persia catalog` lists the machine types
{tiers}
# schedule:
#   mode: {mode}                    # sync, naive-hybrid, hybrid or async
#   staleness_permits: 10           # batches a rank may have under way between lookup and update

# pricing:
#   model: on-demand                # on-demand, spot, sustained-use, commit-1y or commit-3y
"""


def run(*, path: Path, base: str) -> ExitCode:
    """Write the file; exit 2 where it exists or `base` is no packaged scenario."""
    text = starter(base=base, path=path)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Failure(ExitCode.USAGE, f"{path} exists already and is left as it is. Give another name: persia init PATH.") from None
    print_text(f"Wrote {path}. Next: persia check {path}")
    return ExitCode.OK


def starter(*, base: str, path: Path) -> str:
    """Return the text of a scenario that extends `base`, with base's own values in its comments."""
    scenario = load_scenario(base)
    return TEMPLATE.format(
        base=base,
        file=path,
        name=_name(path),
        batch_size=scenario.workload.batch_size,
        layers=list(scenario.model.dense.layers),
        tiers=_tiers(scenario),
        mode=scenario.schedule.mode,
    )


def _name(path: Path) -> str:
    """Return a scenario name made of the file's own."""
    return re.sub(r"[^a-z0-9.-]+", "-", path.stem.lower()).strip("-.") or "my-cluster"


def _tiers(scenario: Scenario) -> str:
    lines = []
    for name in ("loader", "embedding_worker", "parameter_server", "nn_worker"):
        tier = scenario.tier(name)
        place = f"machine_type: {tier.machine_type}" if tier.machine_type else f"hosted_on: {tier.hosted_on}"
        lines.append(f"#     {name}: {{{place}, count: {tier.count}}}\n")
    return "".join(lines)
