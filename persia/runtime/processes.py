"""The processes of one attempt on this host: started, watched, restarted, ended; none outlives the coordinator."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from persia.runtime.forker import Child, Forker, forker_of

_VAIN_LIVES_MAX = 3  # in a row
_TAIL_LINES = 12
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# For glibc's malloc: keep the memory of a batch's arrays for the next batch's, in huge pages.  By default an array of some
# megabytes is new memory from the kernel every time, and its page faults cost as much as the work on it.
_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


@dataclass(slots=True)
class Process:
    """One role's process: `life` counts its restarts, `vain` the lives in a row in which the run trained nothing.

    `trained` is how many batches the run had trained when it was started.
    """

    role: str
    index: int
    life: int
    child: Child
    trained: int = 0
    vain: int = 0

    @property
    def name(self) -> str:
        """Return what people call it."""
        return f"{self.role} {self.index}"


class Processes:
    """All processes of an attempt; their complaints go to a file each in `folder`."""

    def __init__(self, session_path: Path, folder: Path, locks: Sequence[int] = (), *, torch: Container[str] = ("nn_worker",)) -> None:
        """Keep `locks`, file descriptors, open in every process; `torch` are the roles that need it."""
        self._session_path = session_path
        self._locks = locks
        self._folder = folder
        self._torch = torch
        self._all: dict[tuple[str, int], Process] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def ready(self, roles: Iterable[str]) -> bool:
        """Return whether processes of these roles start at once; what they need is being imported otherwise."""
        return prepare(roles, torch=self._torch)

    def start(self, role: str, index: int, life: int = 0) -> Process:
        """Start a process; Ctrl-C at the terminal reaches the coordinator only."""
        with self._errors(role, index).open("ab") as errors:
            child = _forker(role, self._torch).fork([str(self._session_path), role, str(index), str(life)], errors.fileno(), self._locks)
        process = Process(role=role, index=index, life=life, child=child)
        self._all[role, index] = process
        return process

    def restart(self, dead: Process, trained: int) -> Process:
        """Start a dead process again, when the run has trained so many batches."""
        process = self.start(dead.role, dead.index, dead.life + 1)
        process.trained = trained
        process.vain = dead.vain + 1 if trained == dead.trained else 0
        return process

    def dead(self) -> list[Process]:
        """Return the processes that have ended."""
        return [process for process in self._all.values() if process.child.poll() is not None]

    def keeps_dying(self, process: Process) -> bool:
        """Return whether restarting it again is hopeless."""
        return process.vain >= _VAIN_LIVES_MAX

    def complaint(self, process: Process) -> str:
        """Return the last lines that a process wrote to its stderr."""
        path = self._errors(process.role, process.index)
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-_TAIL_LINES:])

    def pids(self) -> dict[tuple[str, int], int]:
        """Return the process ID of each role's process."""
        return {key: process.child.pid for key, process in self._all.items()}

    def end(self, patience_s: float) -> None:
        """Wait for all to end by themselves, then kill the rest; returns when none is left."""
        due_s = time.monotonic() + patience_s
        for process in self._all.values():
            try:
                process.child.wait(max(0.0, due_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.child.kill()
        for process in self._all.values():
            process.child.wait()

    def kill(self) -> None:
        """Kill all at once."""
        self.kill_all_but(())
        self.end(0.0)

    def kill_all_but(self, spared: Container[tuple[str, int]]) -> None:
        """Kill the processes whose (role, index) is not spared; does not wait for their end."""
        for key, process in self._all.items():
            if key not in spared and process.child.poll() is None:
                process.child.kill()

    def _errors(self, role: str, index: int) -> Path:
        return self._folder / f"{role}-{index}.err"


def prepare(roles: Iterable[str], *, torch: Container[str]) -> bool:
    """Let all that these roles need, some of them torch, be imported by processes beside this one; return whether it is."""
    forkers = [_forker(role, torch) for role in roles]
    for forker in forkers:
        forker.hear()
    return all(forker.ready or forker.gone for forker in forkers)


def _forker(role: str, torch: Container[str]) -> Forker:
    return forker_of(child_environment(), torch=role in torch)


def child_environment() -> dict[str, str]:
    """Return this process's environment, in which the child finds this very package."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**_THREADS, **_MEMORY, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
