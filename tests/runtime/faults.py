"""Killing processes of a run: when and which, and what must hold afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import yaml

from persia.runtime import coordinator
from persia.runtime.applied import AppliedLog
from persia.runtime.coordinator import Attempt, Options, Progress
from persia.runtime.records import LOGS
from persia.scenario import Scenario, load_scenario
from persia.schedule.log import Entry, read_log, replay
from persia.schedule.messages import (
    DenseDone,
    LookupServed,
    ReplyAck,
    ReplyRows,
    Restarted,
    SendBatch,
    UpdateApplied,
    Word,
)
from tests.runtime.runs import Run
from tests.support import ROOT, persia_environment

PATIENCE_S = 60.0
DYING = ROOT / "tests" / "runtime" / "dying"
Name = tuple[str, int]  # role, index

# Patient requests: on a machine that is busy with other tests nothing is to be taken for lost but what is killed.
SMALL = (
    "model.dense={dense_features: 3, layers: [16, 8], optimizer: adam, learning_rate: 0.002}",
    "model.embedding_learning_rate=0.05",
    "workload.batch_size=16",
    "workload.evaluate_every_steps=0",
    "workload.data.held_out_samples=256",
    "schedule.precision={server_worker: fp32, worker_rank: fp32}",
    "schedule.request_timeout=60s",
)
FEATURES: Sequence[Mapping[str, object]] = (
    {"name": "often", "count": 2, "rows": 60, "dim": 4, "ids_per_sample": 1.5, "optimizer": "adagrad"},
    {"name": "seldom", "count": 1, "rows": 400, "dim": 8, "ids_per_sample": 1, "optimizer": "adam"},
)
ONE_OF_EACH = [f"cluster.tiers.{tier}.processes_per_machine=1" for tier in ("embedding_worker", "parameter_server", "nn_worker")]

# What shows that a process of a role works.
WORKS: Mapping[str, tuple[type[Word], ...]] = {
    "loader": (SendBatch,),
    "embedding_worker": (ReplyRows, ReplyAck),
    "parameter_server": (LookupServed, UpdateApplied),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """Processes that are killed at once when `fraction` of the samples are trained (0: while they start)."""

    fraction: float
    victims: tuple[Name, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A process that was killed `at_s` seconds after the run began."""

    victim: Name
    at_s: float


def random_kills(number: int, victims: Sequence[Name], seed: int) -> list[Kill]:
    """Single kills, spread at random over the run."""
    random = np.random.default_rng(seed)
    fractions = np.sort(random.uniform(0.05, 0.95, number))
    return [Kill(fraction=float(fraction), victims=(victims[random.integers(len(victims))],)) for fraction in fractions]


class Killer:
    """Watches a run and kills its processes; between two kills the run must get further, so the first victim is back."""

    def __init__(self, kills: Sequence[Kill], seed: int = 0) -> None:
        self.killed: list[Killed] = []
        self.attempts: list[Attempt] = []
        self.applied: dict[int, list[int]] = {}  # server -> the batches that its list of applied updates holds in the end
        self._left = list(kills)
        self._fraction = -1.0  # at the last kill
        self._random = np.random.default_rng(seed)

    def started(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)

    def progress(self, progress: Progress) -> None:
        attempt = self.attempts[-1]
        if progress.phase == "evaluating":
            for path in Path(attempt._session.state).glob("parameter_server-*/applied"):
                self.applied[int(path.parent.name.split("-")[1])] = AppliedLog(path).batches()
        due = self._left and progress.fraction >= self._left[0].fraction and progress.fraction > self._fraction
        if due and self._left[0].victims[0] in attempt.processes.pids():
            self._fraction = progress.fraction
            time.sleep(self._random.uniform(0.0, 0.05))  # progress is reported at fixed times
            kill = self._left.pop(0)
            for victim in kill.victims:
                os.kill(attempt.processes.pids()[victim], signal.SIGKILL)
                self.killed.append(Killed(victim=victim, at_s=time.time() - attempt._session.began_at_s))


def small(*overrides: str, steps: int) -> Scenario:
    """Synthetic clicks, two of every role but the loader, `steps` steps in a moment; `overrides` come last."""
    features = yaml.safe_dump(list(FEATURES), default_flow_style=True, width=10_000).strip()
    given = (*SMALL, f"model.features={features}", *overrides)
    scenario = load_scenario("planted-small", given)
    return load_scenario("planted-small", (*given, f"workload.samples={steps * scenario.ranks * scenario.workload.batch_size}"))


def train(scenario: Scenario, folder: Path, killer: Killer | None = None, *, options: Options | None = None) -> Run:
    """Train a scenario in this process's coordinator, into `folder`, while `killer` watches."""
    killer = killer or Killer([])
    folder.mkdir()
    write_scenario(scenario, folder / "scenario.yaml")
    outcome = coordinator.run(scenario, folder, options=options or Options(), started=killer.started, progress=killer.progress)
    return Run(scenario=scenario, folder=folder, outcome=outcome)


def let_die(monkeypatch: pytest.MonkeyPatch, places: Mapping[str, Sequence[str]]) -> None:
    """Let processes that are started from now on kill themselves; see `dying/sitecustomize.py`."""
    monkeypatch.setenv("DYING", json.dumps(places))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(DYING), os.environ.get("PYTHONPATH")])))


def check_exactly_once(run: Run, killer: Killer | None = None) -> None:
    """Every batch trained once, its update applied once on every server, and every log the core's own."""
    plan = run.plan
    first = plan.header.first_step * plan.ranks
    every = range(first, plan.stop_batch)
    for name, (header, entries) in run.logs().items():
        assert replay(header, entries) is None, name
        events = [entry.event for entry in entries]
        if name.startswith("nn_worker"):
            rank = int(name.split("-")[1])
            assert [event.batch for event in events if isinstance(event, DenseDone)] == list(every[rank :: plan.ranks]), name
        if name.startswith("parameter_server"):
            applied = Counter(event.batch for event in events if isinstance(event, UpdateApplied))
            assert applied == Counter(every), name
    if killer is not None:
        assert {server: sorted(batches) for server, batches in killer.applied.items()} == {key: list(every) for key in range(plan.servers)}
    assert not any(life["counts"].get("evictions") for lives in run.outcome.stats.values() for life in lives)


def same_weights(run: Run, reference: Run) -> None:
    """The same dense model, rows and optimizer states, bit for bit."""
    weights, wanted = run.weights(), reference.weights()
    assert weights.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def seconds_to_come_back(run: Run, killed: Sequence[Killed]) -> list[float]:
    """For every kill the seconds until the process worked again, where its log tells: half a buffer dies with a process."""
    logs = run.logs()
    found = []
    for kill in killed:
        role, index = kill.victim
        _, entries = logs[f"{role}-{index}"]
        later = iter([entry for entry in entries if entry.time_s > kill.at_s])
        if any(isinstance(entry.event, Restarted) for entry in later):
            found += [entry.time_s - kill.at_s for entry in later if _works(entry, role)][:1]
    return found


def _works(entry: Entry, role: str) -> bool:
    return any(isinstance(word, WORKS[role]) for word in (entry.event, *entry.commands))


def alive(pid: int) -> bool:
    """Whether a process lives (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pids: Sequence[int], patience_s: float = PATIENCE_S) -> float:
    """Wait until no process lives any more; return the seconds that took."""
    began_s = time.monotonic()
    while any(map(alive, pids)):
        assert time.monotonic() - began_s < patience_s, f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)
    return time.monotonic() - began_s


class Command:
    """`persia train ...` as a terminal starts it: a process group of its own, and the roles' processes below it.

    `within` are the words before it, such as those that enter a network namespace.
    """

    def __init__(self, folder: Path, *arguments: str | Path, verb: str = "train", within: Sequence[str] = ()) -> None:
        self.errors = folder / "stderr.txt"
        with self.errors.open("ab") as errors:
            self.popen = subprocess.Popen(
                [*within, sys.executable, "-m", "persia", verb, *map(str, arguments)],
                cwd=folder, env=persia_environment(), stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
            )  # fmt: skip

    def roles(self) -> list[int]:
        """The process IDs of the roles that run, and of what has started them."""
        return [pid for forker in children_of(self.popen.pid) for pid in (forker, *children_of(forker))]

    def wait_until(self, there: Callable[[], object], what: str) -> None:
        """Wait until something holds; the command must still run then."""
        until_s = time.monotonic() + PATIENCE_S
        while not there():
            assert self.popen.poll() is None, f"the run ended before {what}: {self.complaint}"
            assert time.monotonic() < until_s, f"not within {PATIENCE_S} s: {what}"
            time.sleep(0.01)

    @property
    def complaint(self) -> str:
        return self.errors.read_text(encoding="utf-8")

    def kill_everything(self) -> None:
        """SIGKILL to the coordinator, then to all roles: nobody can tidy up."""
        roles = self.roles()
        self.popen.kill()
        for pid in roles:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.end()
        gone_within(roles)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave nothing running behind a test that failed."""
        if self.popen.poll() is None:
            self.kill_everything()
            for folder in state_folders(self.popen.pid):
                shutil.rmtree(folder, ignore_errors=True)

    def end(self) -> int:
        """Wait for the coordinator; return its exit code."""
        self.output, _ = self.popen.communicate(timeout=PATIENCE_S)
        return self.popen.returncode

    def run(self) -> int:
        """Wait for the coordinator; return its exit code."""
        with self:
            return self.end()


def state_folders(*coordinators: int) -> list[Path]:
    """The folders with tables and sockets that these coordinators have left."""
    return [folder for pid in coordinators for folder in Path("/dev/shm").glob(f"persia-{pid}-*")]


def children_of(parent: int) -> list[int]:
    """The process IDs of a process's living children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, ppid = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                found.append(int(stat.parent.name))
    return found


def write_scenario(scenario: Scenario, path: Path) -> Path:
    """Write a scenario as `persia train` reads it."""
    path.write_text(yaml.safe_dump(scenario.model_dump(mode="json", by_alias=True), sort_keys=False), encoding="utf-8")
    return path


def check_logs_replay(attempt: Path) -> int:
    """Replay every log of an attempt, whose processes may have been killed; return how many entries there are."""
    count = 0
    for path in sorted((attempt / LOGS).glob("*")):
        with path.open(encoding="utf-8") as lines:
            header, entries = read_log(lines)
            kept = list(entries)
        assert replay(header, kept) is None, path
        count += len(kept)
    return count
