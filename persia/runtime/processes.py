"""The processes of one attempt on this host: started, watched, restarted, ended; none outlives the coordinator."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SHORT_LIFE_S = 5.0
_SHORT_LIVES_MAX = 3  # in a row
_TAIL_LINES = 12


@dataclass(slots=True)
class Process:
    """One role's process: `life` counts its restarts, `short_lives` those that followed at once upon one another."""

    role: str
    index: int
    life: int
    popen: subprocess.Popen[bytes]
    started_s: float
    short_lives: int = 0

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.role} {self.index}"


class Processes:
    """All processes of an attempt; their complaints go to a file each in `folder`."""

    def __init__(self, session_path: Path, folder: Path) -> None:
        self._session_path = session_path
        self._folder = folder
        self._all: dict[tuple[str, int], Process] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, role: str, index: int, life: int = 0) -> Process:
        """Start a process of its own session, so that Ctrl-C at the terminal reaches the coordinator only."""
        command = [sys.executable, "-m", "persia.runtime.node", str(self._session_path), role, str(index), str(life)]
        with self._errors(role, index).open("ab") as errors:
            popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True, env=_environment()
            )
        process = Process(role=role, index=index, life=life, popen=popen, started_s=time.monotonic())
        self._all[role, index] = process
        return process

    def restart(self, dead: Process) -> Process:
        """Start a dead process again."""
        short = time.monotonic() - dead.started_s < _SHORT_LIFE_S
        process = self.start(dead.role, dead.index, dead.life + 1)
        process.short_lives = dead.short_lives + 1 if short else 0
        return process

    def dead(self) -> list[Process]:
        """Return the processes that have ended."""
        return [process for process in self._all.values() if process.popen.poll() is not None]

    def keeps_dying(self, process: Process) -> bool:
        """Return whether restarting it again is hopeless."""
        return process.short_lives >= _SHORT_LIVES_MAX

    def complaint(self, process: Process) -> str:
        """Return the last lines that a process wrote to its stderr."""
        path = self._errors(process.role, process.index)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-_TAIL_LINES:])

    def pids(self) -> dict[tuple[str, int], int]:
        """Return the process ID of each role's process."""
        return {key: process.popen.pid for key, process in self._all.items()}

    def end(self, patience_s: float) -> None:
        """Wait for all to end by themselves, then kill the rest; returns when none is left."""
        due_s = time.monotonic() + patience_s
        for process in self._all.values():
            try:
                process.popen.wait(max(0.0, due_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.popen.kill()
        for process in self._all.values():
            process.popen.wait()

    def kill(self) -> None:
        """Kill all at once."""
        for process in self._living():
            process.popen.send_signal(signal.SIGKILL)
        self.end(0.0)

    def _living(self) -> Iterator[Process]:
        return (process for process in self._all.values() if process.popen.poll() is None)

    def _errors(self, role: str, index: int) -> Path:
        return self._folder / f"{role}-{index}.err"


def _environment() -> dict[str, str]:
    """Return this process's environment, in which the child finds this very package."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return {**threads, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
