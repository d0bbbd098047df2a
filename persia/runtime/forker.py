"""Processes of a run in milliseconds: a forker imports once what a role needs, and forks one such process after another.

Importing numba and its kernels takes a second, torch several.  `python -m persia.runtime.forker FD torch` prepares itself for
roles that need it or, without that word, for the others; then it hears requests on its socket: a line of JSON with the file descriptors of
the new process.  It answers with the process ID, and tells when that process has ended.  It goes when nobody listens any
more, and its processes notice that they are orphans.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from persia.runtime import node
from persia.runtime.plan import make_plan
from persia.scenario import load_scenario

_MESSAGE_BYTES_MAX = 1 << 16
_DESCRIPTORS_MAX = 16
_MODULES = tuple(f"persia.runtime.{name}" for name in ("make_loader", "make_worker", "make_server", "make_emulated_rank"))
_TORCH_MODULES = ("persia.runtime.make_rank", "torch._dynamo")  # DistributedDataParallel needs the second, which takes seconds
_LOOK_S = 0.05  # another thread may have taken the word that this one waits for


class Child:
    """A forked process, as `subprocess.Popen` would show it."""

    def __init__(self, forker: Forker, pid: int) -> None:
        """Take the answer to a request."""
        self.pid = pid
        self.returncode: int | None = None
        self._forker = forker

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout_s: float | None = None) -> int:
        """Return the exit code when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        due_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while (code := self._look(min(_LOOK_S, max(0.0, due_s - time.monotonic())))) is None:
            if time.monotonic() >= due_s:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout_s or 0.0)
        return code

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _look(self, timeout_s: float) -> int | None:
        if self.returncode is None:
            self.returncode = self._forker.ended(self.pid, timeout_s)
        return self.returncode


class Forker:
    """The coordinator's end: asks for processes, hears of their end."""

    def __init__(self, environment: Mapping[str, str], *, torch: bool) -> None:
        """Start it; it prepares itself for roles with torch or for those without.

        Its processes are a group of their own, which Ctrl-C at the terminal does not reach, of the same session: Linux lets
        sessions share the cores, however many threads they have (autogroup), and ranks would get as much as all other roles.
        """
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "persia.runtime.forker", str(other.fileno()), *(["torch"] if torch else [])],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,
                env=environment,
                pass_fds=[other.fileno()],
            )
        self._lock = threading.RLock()
        self._running: set[int] = set()
        self._ended: dict[int, int] = {}
        self._answers: list[int] = []
        self.ready = False

    @property
    def gone(self) -> bool:
        """Return whether it has ended, and all its processes with it."""
        return self._socket.fileno() < 0

    def fork(self, arguments: Sequence[str], output: int, kept: Sequence[int] = ()) -> Child:
        """Fork a process that runs `node.main(arguments)`; it writes to `output` and keeps the file descriptors `kept` open.

        Raises:
            OSError: the forker is gone.
        """
        request = json.dumps({"arguments": list(arguments), "folder": str(Path.cwd())}).encode()
        with self._lock:
            socket.send_fds(self._socket, [request], [output, *kept])
            while not self._answers:
                self._wait(None)
                self.hear()
                if self.gone:
                    raise OSError(f"the process that starts the others ended with {self._process.wait()}")
            return Child(self, self._answers.pop())

    def ended(self, pid: int, timeout_s: float) -> int | None:
        """Return a process's exit code, or None if nothing is heard of its end within the time."""
        self.hear()
        if pid not in self._ended and timeout_s > 0.0:
            self._wait(timeout_s)
            self.hear()
        return self._ended.pop(pid, None)

    def hear(self) -> None:
        """Take what it has said."""
        with self._lock:
            while self._wait(0.0):
                message = b""
                with contextlib.suppress(ConnectionResetError):
                    message = self._socket.recv(_MESSAGE_BYTES_MAX)
                self._heard(message)

    def _heard(self, message: bytes) -> None:
        if not message:  # its processes die of it
            self._ended.update(dict.fromkeys(self._running, -signal.SIGKILL))
            self._running.clear()
            self.close()
            return
        said = json.loads(message)
        if "forked" in said:
            self._running.add(said["forked"])
            self._answers.append(said["forked"])
        elif "ended" in said:
            self._running.discard(said["ended"])
            self._ended[said["ended"]] = said["code"]
        else:
            self.ready = True

    def _wait(self, timeout_s: float | None) -> bool:
        """Return whether there is a word from it, after so long at most."""
        return not self.gone and bool(select.select([self._socket], [], [], timeout_s)[0])

    def used_seconds(self) -> float:
        """Return the processor seconds of the forker and of its processes that have ended."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


_FORKERS: dict[tuple[Any, ...], Forker] = {}


def forker_of(environment: Mapping[str, str], *, torch: bool) -> Forker:
    """Return this process's forker of roles with or without torch; it is started when such an environment first asks for it."""
    key = (torch, *sorted(environment.items()))
    forker = _FORKERS.get(key)
    if forker is None or forker.gone:
        forker = _FORKERS[key] = Forker(environment, torch=torch)
    return forker


def forked_seconds() -> float:
    """Return the processor seconds of all forkers and of those of their processes that have ended."""
    return sum(forker.used_seconds() for forker in _FORKERS.values() if not forker.gone)


@atexit.register
def _close() -> None:
    for forker in _FORKERS.values():
        forker.close()


def main(descriptor: int, torch: bool) -> int:
    """Serve requests until nobody listens; returns in the forked processes too, with their exit code."""
    _prepare(torch)
    gc.freeze()
    own_pid = os.getpid()  # not the parent that a process asks for later: it may be an orphan by then
    here = socket.socket(fileno=descriptor)
    awake, wake = socket.socketpair()
    wake.setblocking(False)
    awake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno())
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    _say(here, {"ready": True})
    while True:
        readable, _, _ = select.select([here, awake], [], [])
        if awake in readable:
            with contextlib.suppress(BlockingIOError):
                awake.recv(_MESSAGE_BYTES_MAX)
            _report_ended(here)
        if here not in readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(here, _MESSAGE_BYTES_MAX, _DESCRIPTORS_MAX)
        if not message:
            return 0
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (here, awake, wake):
                end.close()
            for number in (1, 2):
                os.dup2(descriptors[0], number)
            asked = json.loads(message)
            os.chdir(asked["folder"])
            return node.main([*asked["arguments"], str(own_pid)])
        _say(here, {"forked": pid})
        for descriptor in descriptors:
            os.close(descriptor)


def _prepare(torch: bool) -> None:
    """Import all that a role will, and load its kernels."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # a process that has begun with CUDA must not fork
    for name in (*_MODULES, *(_TORCH_MODULES if torch else ())):
        importlib.import_module(name)
    plan = make_plan(load_scenario("planted-small"))
    sys.modules["persia.runtime.make_worker"].warm_up(plan)
    sys.modules["persia.runtime.tables"].warm_up(plan)


def _report_ended(here: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            _say(here, {"ended": found[0], "code": os.waitstatus_to_exitcode(found[1])})


def _say(here: socket.socket, what: Mapping[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        here.send(json.dumps(what).encode())


if __name__ == "__main__":
    _code = 1
    try:
        _code = main(int(sys.argv[1]), sys.argv[2:] == ["torch"])
    except BaseException:
        sys.excepthook(*sys.exc_info())
    sys.stderr.flush()
    os._exit(_code)  # at once: a training thread may still wait for a rank that is gone
