"""Measures what each thread of each role costs, by the kernel's clocks of all threads, read before and after some batches.

A run in which nothing overlaps (mode sync, one rank) is a rig on which every stage works alone; one with several ranks and
permits shows what becomes of it on a crowded machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from persia.readings import Readings
from persia.runtime.attempt import Attempt, Options, Outcome, RankDied, RunFailed
from persia.runtime.coordinator import prepared_session
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import make_plan
from persia.runtime.probe import Probe
from persia.runtime.processes import Processes
from persia.runtime.records import TRACES
from persia.scenario import Scenario
from persia.trace import Span, read_trace

_PATIENCE_S = 60.0
_OWN_THREAD = "main"
_TRAIN = "train"
_OF_A_BATCH = ("dedup", "pool", "un-pool")  # spans: one of each, however many happen to begin in the measured time


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a batch cost at one point, in seconds.

    `thread_s[role, thread]` is processor time: `main` (the role's own), `io` (the transport's), `other` (a rank's training
    thread); `sleeps` how often such a thread waited for something to do; `span_s[stage]` is the processor time of each stage of
    the trace; `step_s` the time from batch to batch; `other_cores` what other work of the machine used meanwhile; `readings` what
    the probe told of it; `unrest` how far the processor time of a batch in either half of the measurement is from the
    mean, over it: what a restless machine makes of the mean's error, with one degree of freedom.
    """

    batches: float
    thread_s: Mapping[tuple[str, str], float]
    sleeps: Mapping[tuple[str, str], float]
    span_s: Mapping[str, float]
    step_s: float
    other_cores: float
    noise_cv: float
    readings: Readings
    unrest: float


class _RigAttempt(Attempt):
    """An attempt that ends when it has measured long enough.

    `clocks` are read three times, behind the warm-up, half-way and at the end: reading takes milliseconds, in which a core is not
    the roles'.  `resident_gib` is each role's memory at the end.
    """

    clocks: tuple[_Clocks, _Clocks, _Clocks]
    resident_gib: dict[str, float]

    def measure(self, warm_batches: int, warm_seconds: float, batches: int, seconds: float) -> None:
        """Train until so many batches behind the warm-up are done and so much time has passed; raises RunFailed."""

        def measured(part: float) -> _Clocks:
            """Return what the clocks say after a part of the measurement."""
            enough, until_s = warm_batches + part * batches, began_s + part * seconds
            self._serve(lambda: self._trained_batches() >= enough and time.monotonic() >= until_s, "measuring", _PATIENCE_S)
            return _read_clocks(self.processes)

        try:
            self._launch()
            self._serve(lambda: self._trained_batches() > 0, "starting", _PATIENCE_S)
            warm_s = time.monotonic() + warm_seconds
            self._serve(lambda: self._trained_batches() >= warm_batches and time.monotonic() >= warm_s, "warming up", _PATIENCE_S)
            first, began_s = _read_clocks(self.processes), time.monotonic()
            self.clocks = first, measured(0.5), measured(1.0)
            self._serve(lambda: self._told_until_s() >= self.clocks[-1].at_s, "measured", _PATIENCE_S)
        except RankDied as death:
            raise RunFailed(str(death), mistake=False) from death
        self.resident_gib = {role: resident_gib(pid) for (role, _), pid in self.processes.pids().items()}
        self.stop()

    def _told_until_s(self) -> float:
        """Return up to which time all ranks have told what they have trained, in seconds since the epoch: they tell now and then."""
        return self._session.began_at_s + min(pairs[-1][0] if pairs else 0.0 for pairs in self._trained.values())

    def _trained_batches(self) -> int:
        return sum(map(len, self._trained.values()))


class Rig:
    """Measures point after point, in a folder; `resident_gib` is the memory of each role's process at the last."""

    def __init__(self, folder: Path, interrupts: Interrupts) -> None:
        self._folder = folder
        self._interrupts = interrupts
        self._number = 0
        self.resident_gib: dict[str, float] = {}

    def measure(
        self, scenario: Scenario, scenario_text: str, *, warm_batches: int, warm_seconds: float = 0.0, batches: int, seconds: float
    ) -> Measured:
        """Return what a batch of the scenario costs, behind so many batches and so much time; `scenario_text` is its YAML.

        Raises:
            RunFailed: it cannot be run.
        """
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
            with Probe() as probe:
                attempt.measure(warm_batches, warm_seconds, batches, seconds)
            self.resident_gib = attempt.resident_gib
        trained_s = np.array(outcome.trained_s) + outcome.began_at_s
        return _measured(trained_s, attempt.clocks, probe, Path(session.attempt), outcome.began_at_s)


@contextmanager
def open_rig(interrupts: Interrupts) -> Iterator[Rig]:
    """Give a rig in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="persia-rig-") as folder:
        yield Rig(Path(folder), interrupts)


@dataclass(frozen=True, slots=True)
class Use:
    """What a kind of thread has used so far: processor seconds, and how often it has slept."""

    seconds: float = 0.0
    sleeps: int = 0

    def __add__(self, other: Use) -> Use:
        return Use(self.seconds + other.seconds, self.sleeps + other.sleeps)


class _Clocks(NamedTuple):
    """What the clocks say at a time in seconds since the epoch; `others_s` is how long cores were idle or this process's."""

    at_s: float
    used: Mapping[tuple[str, str], Use]
    others_s: float


def _read_clocks(processes: Processes) -> _Clocks:
    """Read all threads' clocks."""
    at_s, others_s = time.time(), _idle_seconds() + time.process_time()
    used: dict[tuple[str, str], Use] = defaultdict(Use)
    for (role, _), pid in processes.pids().items():
        for thread, use in thread_use(pid).items():
            used[role, thread] += use
    return _Clocks(at_s, used, others_s)


def resident_gib(pid: int) -> float:
    """Return the memory of a process in GiB, what it shares with others included."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2.0**30


def _idle_seconds() -> float:
    """Return how long the machine's cores have been idle, all together."""
    words = Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=6)
    return (int(words[4]) + int(words[5])) / os.sysconf("SC_CLK_TCK")


def thread_use(pid: int) -> dict[str, Use]:
    """Return what a process has used by kind of thread; nothing for one that is gone."""
    used: dict[str, Use] = defaultdict(Use)
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            name = (task / "comm").read_text().strip()
            kind = _OWN_THREAD if task.name == str(pid) else "io" if name.startswith("ZMQ") else "other"
            slept = (task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split(maxsplit=1)[0]
            used[kind] += Use(int((task / "schedstat").read_text().split()[0]) * 1e-9, int(slept))
    except OSError:
        return {}
    return dict(used)


def _measured(trained_s: Any, clocks: tuple[_Clocks, _Clocks, _Clocks], probe: Probe, attempt: Path, began_at_s: float) -> Measured:
    """Return the means between the first reading of the clocks and the last."""
    first, _, last = clocks
    place = np.interp([each.at_s for each in clocks], trained_s, np.arange(len(trained_s)))
    batches, wall_s = float(place[-1] - place[0]), last.at_s - first.at_s
    halves_s = np.diff([sum(use.seconds for use in each.used.values()) for each in clocks]) / np.diff(place)
    before = {key: first.used.get(key, Use()) for key in last.used}
    used_s = {key: use.seconds - before[key].seconds for key, use in last.used.items()}
    sleeps = {key: (use.sleeps - before[key].sleeps) / batches for key, use in last.used.items()}
    spans: dict[str, dict[tuple[str, int, float], float]] = defaultdict(dict)
    for path in (attempt / TRACES).glob("*.jsonl"):
        for record in read_trace(path):
            if not isinstance(record, Span) or not first.at_s <= record.start_s + began_at_s < last.at_s:
                continue
            if record.tier != "nn_worker" or record.name == _TRAIN:
                spans[record.name][record.tier, record.index, record.start_s] = record.cpu_s or 0.0
    used = {name: list(each.values()) for name, each in spans.items()}
    per_batch = {name: 1.0 if name in _OF_A_BATCH else len(each) / batches for name, each in used.items()}
    return Measured(
        batches=batches,
        thread_s={key: seconds / batches for key, seconds in used_s.items()},
        sleeps=sleeps,
        span_s={name: fmean(seconds) * per_batch[name] for name, seconds in used.items()},
        step_s=wall_s / batches,
        other_cores=(os.cpu_count() or 1) - (sum(used_s.values()) + last.others_s - first.others_s) / wall_s,
        noise_cv=float(sum(map(np.std, used.values())) / sum(map(np.mean, used.values()))),
        readings=probe.mean(first.at_s, last.at_s),
        unrest=float(abs(halves_s[1] - halves_s[0]) / sum(halves_s)),
    )
