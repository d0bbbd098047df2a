"""What a process needs to know of a run to take part in it; and the folder that the processes of one host share."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROLES = ("loader", "embedding_worker", "parameter_server", "nn_worker")
_PREFIX = "persia-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One attempt at a run, as every process reads it.

    `attempt` is its folder of logs and traces, `state` the folder of tables and sockets that ends with the run, `restore`
    the checkpoint to begin from.  `endpoints` are the inboxes of each role; where they are not known beforehand, every process
    binds a port of `bind`, and all learn of each other at `store`, HOST:PORT of the rendezvous, where ranks meet too.
    """

    scenario: str
    attempt: str
    state: str
    checkpoints: str
    restore: str | None
    first_step: int
    began_at_s: float
    token: str
    endpoints: Mapping[str, list[str]]
    store: str | None
    device: str = "cpu"
    compress: bool = False
    bind: str | None = None

    def write(self, path: Path) -> None:
        """Write the session for the processes of this host."""
        path.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Session:
        """Return the session that `write` wrote."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Session:
        """Return the session from its object."""
        return cls(**data)


def make_state_folder(fallback: Path) -> Path:
    """Return a new folder in memory for tables and sockets, or in `fallback` where this system has none.

    Its name tells the process that made it; folders of processes that are gone are removed first.
    """
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else fallback
    for folder in base.glob(f"{_PREFIX}*"):
        if folder.owner() == _user() and not _lives(folder.name.split("-")[1]):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))


def _user() -> str:
    return Path("/proc/self").owner()


def _lives(pid: str) -> bool:
    with contextlib.suppress(ValueError, ProcessLookupError, PermissionError):
        os.kill(int(pid), 0)
        return True
    return False


def socket_endpoints(state: Path, processes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the inbox of every process of a run on one host, and the coordinator's."""
    short = {"loader": "l", "embedding_worker": "w", "parameter_server": "s", "nn_worker": "r", "coordinator": "c"}
    counts = {**processes, "coordinator": 1}
    return {role: [f"ipc://{state}/{short[role]}{index}" for index in range(count)] for role, count in counts.items()}
