"""What a process needs to know of a run to take part in it; and the folder that the processes of one host share."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from persia.runtime.dense_part import EmulatedDense

ROLES = ("loader", "embedding_worker", "parameter_server", "nn_worker")
_PREFIX = "persia-"
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One attempt at a run, as every process reads it.

    `attempt` is its folder of logs and traces, `state` the folder of tables and sockets that ends with the run, `restore`
    the checkpoint to begin from.  `endpoints` are the inboxes of each role; where they are not known beforehand, every process
    binds a port of `bind`, and all learn of each other at `store`, HOST:PORT of the rendezvous, where ranks meet too (without
    one they meet at rank 0).
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
    emulated: EmulatedDense | None = None

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
        emulated = data.get("emulated")
        return cls(**{**data, "emulated": emulated and EmulatedDense(**emulated)})


def make_state_folder(fallback: Path) -> tuple[Path, int]:
    """Return a new folder in memory for tables and sockets, or in `fallback` where this system has none, and its lock.

    Whoever was given the lock's file descriptor holds the folder until it dies; folders that nobody holds any more are
    removed first.
    """
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else fallback
    for folder in base.glob(f"{_PREFIX}*"):
        _remove_unless_held(folder)
    while True:
        state = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
        held = hold(state)
        if held is not None and state.exists():  # nobody has swept it before it was held
            return state, held


def _remove_unless_held(folder: Path) -> None:
    """Remove a folder of this user that no process holds."""
    with contextlib.suppress(OSError):  # somebody else is removing it
        if folder.stat().st_uid != os.getuid():
            return
        held = hold(folder)
        if held is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def hold(folder: Path, patience_s: float = 0.0) -> int | None:
    """Lock a folder until this process and all that inherit the file descriptor are gone; None while others hold it.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    due_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= due_s:
                os.close(descriptor)
                return None
            time.sleep(_LOOK_S)
        except OSError:  # a file system without locks: then nobody is kept out
            return descriptor
        else:
            return descriptor


def socket_endpoints(state: Path, processes: Mapping[str, int]) -> dict[str, list[str]]:
    """Return the inbox of every process of a run on one host, and the coordinator's."""
    short = {"loader": "l", "embedding_worker": "w", "parameter_server": "s", "nn_worker": "r", "coordinator": "c"}
    counts = {**processes, "coordinator": 1}
    return {role: [f"ipc://{state}/{short[role]}{index}" for index in range(count)] for role, count in counts.items()}
