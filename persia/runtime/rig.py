"""Measures what each thread of each role costs, by the kernel's clocks of all threads, read before and after some batches.

A run in which nothing overlaps (mode sync, one rank) is a rig on which every stage works alone; one with several ranks and
permits shows what becomes of it on a crowded machine.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persia.runtime.attempt import Attempt, Options, Outcome, RankDied, RunFailed
from persia.runtime.coordinator import prepared_session
from persia.runtime.interrupts import Interrupts
from persia.runtime.memory_probe import MemoryProbe
from persia.runtime.plan import make_plan
from persia.runtime.processes import Processes
from persia.runtime.records import TRACES
from persia.scenario import Scenario
from persia.trace import Span, read_trace

_LOOKS = 30
_PATIENCE_S = 60.0
_OWN_THREAD = "main"
_TRAIN = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a batch cost at one point, in seconds.

    `thread_s[role, thread]` is processor time: `main` (the role's own), `io` (the transport's), `other` (a rank's training
    thread); `span_s[stage]` is that of each stage of the trace; `step_s` the time from batch to batch; `other_cores` what other
    work of the machine used meanwhile; `memory_s` what the memory probe's reads took.
    """

    batches: float
    thread_s: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float
    other_cores: float
    noise_cv: float
    memory_s: float


class _RigAttempt(Attempt):
    """An attempt that ends when it has measured long enough; `resident_gib` is each role's memory then."""

    resident_gib: dict[str, float]

    def measure(self, warm_batches: int, batches: int, seconds: float) -> None:
        """Train until so many batches behind the warm-up are done and so much time has passed; raises RunFailed."""
        enough = warm_batches + batches
        try:
            self._launch()
            self._serve(lambda: self._trained_batches() >= warm_batches, "warming up", _PATIENCE_S)
            began_s = time.monotonic()
            self._serve(lambda: self._trained_batches() >= enough and time.monotonic() - began_s >= seconds, "measuring", _PATIENCE_S)
        except RankDied as death:
            raise RunFailed(str(death), mistake=False) from death
        self.resident_gib = {role: resident_gib(pid) for (role, _), pid in self.processes.pids().items()}
        self.stop()

    def _trained_batches(self) -> int:
        return sum(map(len, self._trained.values()))


class Rig:
    """Measures point after point, in a folder; `resident_gib` is the memory of each role's process at the last."""

    def __init__(self, folder: Path, interrupts: Interrupts) -> None:
        self._folder = folder
        self._interrupts = interrupts
        self._number = 0
        self.resident_gib: dict[str, float] = {}

    def measure(self, scenario: Scenario, scenario_text: str, *, warm_batches: int, batches: int, seconds: float) -> Measured:
        """Return what a batch of the scenario costs; `scenario_text` is its YAML.  Raises RunFailed."""
        self._number += 1
        folder = self._folder / f"point-{self._number}"
        folder.mkdir()
        (folder / "scenario.yaml").write_text(scenario_text, encoding="utf-8")
        (folder / "checkpoints").mkdir()
        plan = make_plan(scenario)
        outcome = Outcome(plan=plan)
        with ExitStack() as cleanup:
            session, state, _ = cleanup.enter_context(prepared_session(plan, folder, None, outcome.began_at_s, Options(save=False)))
            attempt = _RigAttempt(plan, session, state, Options(save=False), outcome, lambda progress: None, self._interrupts, ())
            cleanup.callback(attempt.close)
            with MemoryProbe() as memory, _samples(attempt.processes, seconds / _LOOKS) as samples:
                attempt.measure(warm_batches, batches, seconds)
            self.resident_gib = attempt.resident_gib
        trained_s = np.array(outcome.trained_s) + outcome.began_at_s
        return _measured(trained_s, samples, memory, Path(session.attempt), warm_batches, outcome.began_at_s)


@contextmanager
def open_rig(interrupts: Interrupts) -> Iterator[Rig]:
    """Give a rig in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="persia-rig-") as folder:
        yield Rig(Path(folder), interrupts)


_Sample = tuple[float, dict[tuple[str, str], float], float]  # time, seconds by role and thread, idle seconds and this thread's own


@contextmanager
def _samples(processes: Processes, every_s: float) -> Iterator[list[_Sample]]:
    """Read all threads' clocks now and then while the block runs."""
    taken: list[_Sample] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(every_s):
            clocks: dict[tuple[str, str], float] = defaultdict(float)
            for (role, _), pid in processes.pids().items():
                for thread, seconds in thread_seconds(pid).items():
                    clocks[role, thread] += seconds
            taken.append((time.time(), dict(clocks), _idle_seconds() + time.thread_time()))

    looker = threading.Thread(target=look, name="clocks", daemon=True)
    looker.start()
    try:
        yield taken
    finally:
        over.set()
        looker.join()


def resident_gib(pid: int) -> float:
    """Return the memory of a process in GiB, what it shares with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2.0**30


def _idle_seconds() -> float:
    """Return how long the machine's cores have been idle, all together."""
    words = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=6)
    return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")


def thread_seconds(pid: int) -> dict[str, float]:
    """Return the processor seconds of a process by kind of thread; nothing for one that is gone."""
    seconds: dict[str, float] = defaultdict(float)
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            kind = _OWN_THREAD if task.name == str(pid) else "io" if name.startswith("ZMQ") else "other"
            seconds[kind] += int((task / "schedstat").read_text().split()[0]) * 1e-9
    except OSError:
        return {}
    return dict(seconds)


def _measured(
    trained_s: Any, samples: Sequence[_Sample], memory: MemoryProbe, attempt: Path, warm_batches: int, began_at_s: float
) -> Measured:
    """Return the means between two looks at the clocks, behind the warm-up."""
    begin_s, end_s = trained_s[warm_batches - 1], trained_s[-1]
    inside = [sample for sample in samples if begin_s <= sample[0] <= end_s]
    first, last = inside[0], inside[-1]
    place = np.interp([first[0], last[0]], trained_s, np.arange(len(trained_s)))
    batches, wall_s = float(place[1] - place[0]), last[0] - first[0]
    used_s = {key: seconds - first[1].get(key, 0.0) for key, seconds in last[1].items()}
    spans: dict[str, dict[tuple[str, int, float], float]] = defaultdict(dict)
    for path in (attempt / TRACES).glob("*.jsonl"):
        for record in read_trace(path):
            if not isinstance(record, Span) or not first[0] <= record.start_s + began_at_s < last[0]:
                continue
            if record.tier != "nn_worker" or record.name == _TRAIN:
                spans[record.name][record.tier, record.index, record.start_s] = record.cpu_s or 0.0
    used = {name: list(each.values()) for name, each in spans.items()}
    return Measured(
        batches=batches,
        thread_s={key: seconds / batches for key, seconds in used_s.items()},
        span_s={name: sum(seconds) / batches for name, seconds in used.items()},
        step_s=wall_s / batches,
        other_cores=(os.cpu_count() or 1) - (sum(used_s.values()) + last[2] - first[2]) / wall_s,
        noise_cv=float(sum(map(np.std, used.values())) / sum(map(np.mean, used.values()))),
        memory_s=memory.mean_s(first[0], last[0]),
    )
