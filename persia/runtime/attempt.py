"""One attempt at a run: starts every process, restarts what dies, makes checkpoints valid, stops all.

A worker, server or loader that dies is started again and finds its way back by itself.  When a rank dies, all processes
are ended and a new attempt begins from the last checkpoint.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from persia.runtime import checkpoint as checkpoints_of
from persia.runtime.dense_part import EmulatedDense
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import Plan
from persia.runtime.processes import Process, Processes
from persia.runtime.records import cut_after_last_lines
from persia.runtime.session import ROLES, Session
from persia.runtime.transport import Kind, Mailbox, Message

_POLL_S = 0.05
_STOP_S = 1.5  # patience with processes that were told to stop
_READY_S = 300.0  # the first start compiles kernels
_KEPT_CHECKPOINTS = 2


class RunFailed(Exception):
    """A run that cannot go on: the message says why and what to do; `mistake` is whether the user can mend it."""

    def __init__(self, message: str, *, mistake: bool) -> None:
        super().__init__(message)
        self.mistake = mistake


class RankDied(Exception):
    """An NN worker is gone, and with it what it had in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to run, beside the scenario.

    With a `rendezvous` (HOST:PORT, hosted here) all processes talk over tcp; this host's are reached at `bind`, and the
    `remote` ones, (role, index), are started elsewhere by `persia node`.
    A scenario with an emulated accelerator needs its times, `emulated`.
    """

    device: str = "cpu"
    compress: bool = False
    save: bool = True
    rendezvous: str | None = None
    bind: str = "127.0.0.1"
    remote: frozenset[tuple[str, int]] = frozenset()
    emulated: EmulatedDense | None = None

    def torch_roles(self) -> tuple[str, ...]:
        """Return the roles that need torch: ranks that train, and all where a rendezvous is their meeting place."""
        if self.rendezvous:
            return ROLES
        return () if self.emulated else ("nn_worker",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a progress bar shows."""

    fraction: float
    samples: int
    samples_per_s: float
    loss: float | None
    staleness: float | None
    auc: float | None
    phase: str


@dataclass(slots=True)
class Outcome:
    """What a run has measured.

    `trained_s[i]` is when the i-th batch of the last attempt was trained, in seconds since the run began, which was at
    `began_at_s` since the epoch; `losses` go with it.  `stats` are the counts of every process, those of its restarts added
    up.  `qualities` are evaluations, in order.
    """

    plan: Plan
    began_at_s: float = field(default_factory=time.time)
    trained_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    stats: dict[tuple[str, int], list[Mapping[str, Any]]] = field(default_factory=dict)
    qualities: list[dict[str, Any]] = field(default_factory=list)
    attempts: int = 0
    restarts: int = 0
    samples: int = 0
    wall_s: float = 0.0
    checkpoint: Path | None = None


ShowProgress = Callable[[Progress], None]


class Attempt:
    """One attempt: from the start of all processes to the end of the data, or to the death of a rank."""

    def __init__(
        self,
        plan: Plan,
        session: Session,
        state: Path,
        options: Options,
        outcome: Outcome,
        progress: ShowProgress,
        interrupts: Interrupts,
        locks: Sequence[int],
    ) -> None:
        """Open the inbox; `locks` are file descriptors that every process of the attempt keeps open."""
        self._plan = plan
        self._session = session
        self._options = options
        self._outcome = outcome
        self._progress = progress
        self._interrupts = interrupts
        own = session.endpoints["coordinator"][0] if session.endpoints else f"tcp://{session.bind}:0"
        self._mailbox = Mailbox(endpoint=own, role="coordinator", index=0, token=bytes.fromhex(session.token))
        path = state / "session.json"
        session.write(path)
        self.processes = Processes(path, Path(session.attempt) / "errors", locks, torch=options.torch_roles())
        self._remote = options.remote
        self._expected = {(role, index) for role, count in plan.processes().items() for index in range(count)}
        self._ready: set[tuple[str, int]] = set()
        self._finished: set[int] = set()
        self._written: dict[int, set[tuple[str, int]]] = {}
        self._trained: dict[int, list[tuple[float, float]]] = {rank: [] for rank in range(plan.ranks)}
        self._pushed_steps: dict[int, int] = {}
        self._lives: dict[tuple[str, int], dict[int, Mapping[str, Any]]] = {}
        self._evaluated: dict[str, Any] | None = None
        self._saving = False  # the trained model, at the end
        self._saved_step = plan.header.first_step - 1
        self._looked_s = 0.0
        self._last_step = plan.stop_batch // plan.ranks - 1
        self._listeners: dict[Kind, Callable[[Message], None]] = {
            Kind.READY: self._is_ready,
            Kind.PROGRESS: self._progressed,
            Kind.STATS: self._counted,
            Kind.FINISHED: lambda message: self._finished.add(message.index),
            Kind.SNAPSHOT_WRITTEN: self._snapshot_written,
            Kind.EVALUATED: self._quality,
            Kind.FAILED: self._failed,
            Kind.HELLO: lambda message: self._mailbox.connect(message.role, message.index, message.payload()["endpoint"]),
        }

    def run(self) -> None:
        """Train all steps, evaluate, save; raises RankDied, RunFailed, KeyboardInterrupt."""
        self._launch()
        self._serve(lambda: len(self._finished) == self._plan.ranks, "training")
        self._saving = self._options.save
        for server in range(self._plan.servers):
            self._save_server(server)
        every = self._plan.header.rank.checkpoint_every_steps
        ranks_save_it = every > 0 and (self._last_step + 1) % every == 0  # a checkpoint like any other
        self._mailbox.send("nn_worker", 0, Kind.EVALUATE, self._last_step, extra=int(self._unsaved() and not ranks_save_it))
        self._serve(lambda: self._evaluated is not None and (not self._unsaved()), "evaluating")

    def _launch(self) -> None:
        """Start every process of this host; when all are ready, let them begin."""
        here = sorted(self._expected - self._remote)
        self._show("preparing")
        while not self.processes.ready({role for role, _ in here}):
            self._interrupts.check()
            time.sleep(_POLL_S)
        for role, index in here:
            self._interrupts.check()
            self.processes.start(role, index)
        self._meet()
        self._serve(lambda: self._ready >= self._expected, "starting", _READY_S)
        for role, index in sorted(self._expected):
            self._mailbox.send(role, index, Kind.START)

    def _unsaved(self) -> bool:
        return self._saving and self._saved_step != self._last_step

    def _save_server(self, server: int) -> None:
        """Let a server write its part of the trained model, unless it is written: one that came back may have lost it."""
        if self._unsaved() and ("parameter_server", server) not in self._written.get(self._last_step, ()):
            self._mailbox.send("parameter_server", server, Kind.ASK_SNAPSHOT, self._last_step)

    def _meet(self) -> None:
        """Learn every process's inbox, those on other hosts too."""
        endpoints = self._session.endpoints
        if not endpoints:
            from persia.runtime.rendezvous import exchange_endpoints

            endpoints = exchange_endpoints(self._session, "coordinator", 0, self._mailbox.endpoint, self._plan.processes(), self._look)
        for role, inboxes in endpoints.items():
            for index, endpoint in enumerate(inboxes):
                self._mailbox.connect(role, index, endpoint)

    def run_to_end(self) -> None:
        """Run, and stop every process whatever happens: Ctrl-C too leaves nothing running."""
        try:
            self.run()
        except RankDied:  # the rest waits for the dead: `close` kills it; those elsewhere come again
            for role, index in sorted(self._remote):
                self._mailbox.send(role, index, Kind.STOP, extra=1)
            raise
        except BaseException:
            self.stop()
            raise
        self.stop()

    def stop(self) -> None:
        """Tell every process to end, hear its last counts, wait for it; kill what does not listen."""
        for role, index in sorted(self._expected):
            self._mailbox.send(role, index, Kind.STOP)
        self.processes.kill_all_but(self._ready)  # one that starts does not listen yet, and has nothing to tell
        due_s = time.monotonic() + _STOP_S
        silent = self._expected & self._ready
        while time.monotonic() < due_s and silent:
            message = self._mailbox.receive(_POLL_S)
            if not isinstance(message, Message):
                silent -= {(process.role, process.index) for process in self.processes.dead()}
            elif message.kind is Kind.STATS:
                self._counted(message)
                silent.discard((message.role, message.index))
        self.processes.end(max(0.2, due_s - time.monotonic()))

    def close(self) -> None:
        """Kill what is left, close the inbox, let no file end in the middle; take the counts into the outcome."""
        self.processes.kill()
        self._mailbox.close()
        cut_after_last_lines(Path(self._session.attempt))
        checkpoints_of.sweep_partial(self._folder)
        outcome = self._outcome
        for key, lives in self._lives.items():
            outcome.stats.setdefault(key, []).extend(lives.values())
        merged = sorted(pair for pairs in self._trained.values() for pair in pairs)
        outcome.trained_s = [pair[0] for pair in merged]
        outcome.losses = [pair[1] for pair in merged]

    @property
    def _folder(self) -> Path:
        return Path(self._session.checkpoints)

    def _serve(self, done: Callable[[], bool], phase: str, patience_s: float | None = None) -> None:
        """Hear messages and look after the processes until `done`."""
        began_s = time.monotonic()
        self._show(phase)
        while not done():
            message = self._mailbox.receive(_POLL_S)
            if isinstance(message, Message):
                self._hear(message)
                if time.monotonic() - self._looked_s < _POLL_S:
                    continue
            self._look()
            self._show(phase)
            if patience_s is not None and time.monotonic() - began_s > patience_s:
                missing = ", ".join(f"{role} {index}" for role, index in sorted(self._expected - self._ready))
                raise RunFailed(f"not ready after {patience_s:.0f} s: {missing}", mistake=False)

    def _look(self) -> None:
        """Look for an interrupt and for dead processes, however many messages there are."""
        self._looked_s = time.monotonic()
        self._interrupts.check()
        self._look_after_processes()

    def _hear(self, message: Message) -> None:
        listener = self._listeners.get(message.kind)
        if listener is not None:
            listener(message)

    def _look_after_processes(self) -> None:
        for process in self.processes.dead():
            self._drain()  # a process may have said why it ends
            if process.role == "nn_worker":
                raise RankDied(self._obituary(process))
            if self.processes.keeps_dying(process):
                raise RunFailed(f"{process.name} dies again and again. {self._obituary(process)}", mistake=False)
            self._outcome.restarts += 1
            self._ready.discard((process.role, process.index))
            self.processes.restart(process, sum(map(len, self._trained.values())))

    def _drain(self) -> None:
        while isinstance(message := self._mailbox.receive(0.0), Message):
            self._hear(message)

    def _obituary(self, process: Process) -> str:
        complaint = self.processes.complaint(process)
        return f"{process.name} ended with {process.child.returncode}." + (f" Its last words:\n{complaint}" if complaint else "")

    # --- what the processes say -------------------------------------------------------------------------------

    def _is_ready(self, message: Message) -> None:
        self._ready.add((message.role, message.index))
        if message.role == "parameter_server":
            self._save_server(message.index)

    def _progressed(self, message: Message) -> None:
        if message.number < 0:
            self._counted(message)
        elif message.role == "nn_worker":
            times_s, losses = message.arrays
            self._trained[message.index] += zip(times_s.tolist(), losses.tolist(), strict=True)
            self._pushed_steps[message.index] = message.number

    def _counted(self, message: Message) -> None:
        payload = message.payload()
        self._lives.setdefault((message.role, message.index), {})[payload["life"]] = payload

    def _failed(self, message: Message) -> None:
        payload = message.payload()
        raise RunFailed(str(payload["message"]), mistake=bool(payload["mistake"]))

    def _quality(self, message: Message) -> None:
        payload = message.payload()
        self._outcome.qualities.append(payload)
        if payload["step"] == self._last_step + 1:
            self._evaluated = payload

    def _snapshot_written(self, message: Message) -> None:
        """A part of a checkpoint is on disk; with the last one it is whole."""
        step = message.number
        written = self._written.setdefault(step, set())
        written.add((message.role, message.index))
        if len(written) == self._plan.servers + 1:
            del self._written[step]
            self._outcome.checkpoint = checkpoints_of.complete(self._folder, step, self._plan)
            checkpoints_of.sweep(self._folder, _KEPT_CHECKPOINTS)
            self._saved_step = step

    def _show(self, phase: str) -> None:
        plan = self._plan
        loss = [pair[1] for pairs in self._trained.values() for pair in pairs[-50:] if not math.isnan(pair[1])]
        times = [pair for pairs in self._trained.values() for pair in pairs[-50:]]
        span_s = max(t for t, _ in times) - min(t for t, _ in times) if len(times) > 1 else 0.0
        trained = plan.header.first_step * plan.ranks + sum(map(len, self._trained.values()))
        versions: dict[int, int] = {}
        for (role, _), lives in self._lives.items():
            if role == "parameter_server":
                for payload in lives.values():
                    for value, count in payload["version"].items():
                        versions[int(value)] = versions.get(int(value), 0) + count
        updates = sum(versions.values())
        self._progress(
            Progress(
                fraction=trained / plan.stop_batch,
                samples=trained * plan.batch_size,
                samples_per_s=len(times) * plan.batch_size / span_s if span_s else 0.0,
                loss=float(np.mean(loss)) if loss else None,
                staleness=sum(value * count for value, count in versions.items()) / updates if updates else None,
                auc=self._outcome.qualities[-1]["auc"] if self._outcome.qualities else None,
                phase=phase,
            )
        )
