"""Roles as they are named on the command line."""

from __future__ import annotations

from persia.commands.exits import ExitCode, Failure
from persia.runtime.session import ROLES
from persia.scenario import did_you_mean


def role_name(role: str) -> str:
    """Return the tier that a role's name on the command line stands for: parameter-server, parameter_server.

    Raises:
        Failure: there is no such role.
    """
    name = role.replace("-", "_")
    if name not in ROLES:
        known = [tier.replace("_", "-") for tier in ROLES]
        raise Failure(ExitCode.USAGE, f"unknown role {role!r}; expected one of {', '.join(known)}. {did_you_mean(role, known)}".rstrip())
    return name


def remote_role(text: str) -> tuple[str, int]:
    """Return the process that ROLE:INDEX names.

    Raises:
        Failure: it names none.
    """
    role, _, index = text.partition(":")
    if not index.isdecimal():
        raise Failure(ExitCode.USAGE, f"--elsewhere {text}: expected ROLE:INDEX such as parameter-server:0.")
    return role_name(role), int(index)
