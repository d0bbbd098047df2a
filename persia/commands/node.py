"""`persia node`: one role of a run whose coordinator runs elsewhere."""

from __future__ import annotations

from pathlib import Path

from persia.commands.exits import ExitCode, Failure, note
from persia.commands.roles import role_name
from persia.commands.run_directory import RunDirectory
from persia.commands.simulate import command_line
from persia.runtime.node import MISTAKES
from persia.runtime.remote import join
from persia.runtime.rendezvous import RendezvousError
from persia.scenario import load_scenario


def run(*, source: str, role: str, index: int, rendezvous: str, bind: str, out: Path | None) -> ExitCode:
    """Join the run, serve until it ends; the scenario must be the coordinator's."""
    name = role_name(role)
    scenario = load_scenario(source)
    if not 0 <= index < scenario.processes(name):
        raise Failure(ExitCode.USAGE, f"--index {index}: {scenario.name} has {scenario.processes(name)} of {role}, counted from 0.")
    with RunDirectory.create(out, name=f"{scenario.name}-{name}-{index}", command=command_line()) as directory:
        note(f"persia: joining the run at {rendezvous} as {name} {index}; logs go to {directory.path}")
        try:
            join(role=name, index=index, rendezvous=rendezvous, bind=bind, folder=directory.path.resolve(), name=scenario.name)
        except RendezvousError as error:
            raise Failure(ExitCode.ENVIRONMENT, str(error)) from error
        except MISTAKES as error:
            raise Failure(ExitCode.USAGE, str(error)) from error
    return ExitCode.OK
