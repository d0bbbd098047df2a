"""Exit codes of the `persia` command, and the failure that carries one."""

from __future__ import annotations

import os
import sys
from enum import IntEnum


class ExitCode(IntEnum):
    """What the command's exit code says; scripts rely on it."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    INFEASIBLE = 3
    ENVIRONMENT = 4
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Failure(Exception):
    """A verb cannot do what was asked; `message` says what is wrong and what to do, `code` is the exit code."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def note(message: str) -> None:
    """Print a line for the person at the terminal, on stderr."""
    sys.stderr.write(f"{message}\n")


def hush_stdout() -> None:
    """Send what is still to be written to stdout nowhere: its reader is gone, and Python would complain at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
