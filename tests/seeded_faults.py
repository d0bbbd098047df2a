"""Seeds faults into the core, one at a time, and shows which test catches each: `python tests/seeded_faults.py [TEST_FILE ...]`.

A fault is a replacement of source text in a copy of the program; it must match exactly once.  The tests that know its part
are then run on the copy until the first fails; test files on the command line are run instead of those.  Exit 1 if a fault
survives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = (
    "persia",
    "simulator",
    "scenarios",
    "tests/schedule",
    "tests/simulator",
    "tests/conftest.py",
    "tests/support.py",
    "pyproject.toml",
)
PARALLEL = min(4, os.cpu_count() or 1)
TIMEOUT_S = 100
# No plugins, which are half of a short run's time, and no smallest failing examples, for nobody reads them.
SETTINGS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PERSIA_TESTS_DO_NOT_SHRINK": "1", "PYTHONHASHSEED": "0"}

RANK = ("tests/schedule/test_rank.py", "tests/schedule/test_rank_machine.py")
WORKER = ("tests/schedule/test_worker.py", "tests/schedule/test_worker_machine.py")
SERVER = ("tests/schedule/test_server.py", "tests/schedule/test_server_machine.py")
LOADER = ("tests/schedule/test_loader.py", "tests/schedule/test_loader_machine.py")
LOG = ("tests/schedule/test_event_log.py",)
MODES = ("tests/schedule/test_schedule_modes.py",)
BUCKETS = ("tests/simulator/test_allreduce.py",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A wrong line: in `path`, `good` (found exactly once) becomes `bad`."""

    name: str
    path: str
    good: str
    bad: str
    tests: tuple[str, ...]

    def seed_into(self, root: Path) -> None:
        """Patch the copy under `root`.

        Raises:
            ValueError: the good text is not found exactly once.
        """
        file = root / self.path
        text = file.read_text(encoding="utf-8")
        if text.count(self.good) != 1:
            raise ValueError(f"{self.name}: found {text.count(self.good)} times in {self.path}: {self.good!r}")
        file.write_text(text.replace(self.good, self.bad), encoding="utf-8")


def rank_fault(name: str, good: str, bad: str) -> Fault:
    """Return a fault of RankSchedule."""
    return Fault(name=name, path="persia/schedule/rank.py", good=good, bad=bad, tests=RANK)


def worker_fault(name: str, good: str, bad: str) -> Fault:
    """Return a fault of WorkerSchedule."""
    return Fault(name=name, path="persia/schedule/worker.py", good=good, bad=bad, tests=WORKER)


def server_fault(name: str, good: str, bad: str) -> Fault:
    """Return a fault of ServerSchedule."""
    return Fault(name=name, path="persia/schedule/server.py", good=good, bad=bad, tests=SERVER)


def loader_fault(name: str, good: str, bad: str) -> Fault:
    """Return a fault of LoaderSchedule."""
    return Fault(name=name, path="persia/schedule/loader.py", good=good, bad=bad, tests=LOADER)


_PUSHED = "        self.push_retries.forget(batch)\n        self.permits.remove(batch)\n"
_LOOKUP_LOST = "            self.lookup_retries.lost(event.batch, now_s)\n"
_PUSH_LOST = "            self.push_retries.lost(event.batch, now_s)\n"
_ACKED_GUARD = (
    "        elif batch not in self.push_retries:\n"
    "            self.ignored += 1\n"
    "            return\n"
    "        self.push_retries.forget(batch)\n"
)
_NEXT_TO_TRAIN = "        if self.dense_batch in self.looked_up:\n            batch = self.dense_batch\n"
_ANY_TO_TRAIN = "        if self.looked_up:\n            batch = max(self.looked_up)\n"
_RETRY_KIND = "(RetryUpdate if self.fan_outs[batch].is_update else RetryLookup)"
_COMMIT = "        while self.committed in self.committed_ahead:\n            self.committed_ahead.remove(self.committed)\n"
_COMMIT_ANY = "        if self.committed_ahead:\n            self.committed_ahead.clear()\n"
_IN_TURN = "ahead and ahead[0] in self.read and len(queue) < self.limits.input_queue_max:\n            batch = ahead.popleft()\n"
_AS_READ = (
    "(ready := [batch for batch in ahead if batch in self.read]) and len(queue) < self.limits.input_queue_max:\n"
    "            batch = ready[0]\n"
    "            ahead.remove(batch)\n"
)
_UNKNOWN_CREDIT = "        if batch not in self.in_queue.get(rank, ()):\n            return False\n"
_ANY_CREDIT = (
    "        if batch not in self.in_queue.get(rank, ()):\n"
    "            batch = min(self.in_queue.get(rank) or [-1])\n"
    "        if batch < 0:\n"
    "            return False\n"
)

FAULTS = [
    rank_fault("a permit is not returned", _PUSHED, "        self.push_retries.forget(batch)\n"),
    rank_fault(
        "a permit is returned at the push, not at its acknowledgement",
        "            self.pushing.add(batch)\n",
        "            self.pushing.add(batch)\n            self.permits.discard(batch)\n",
    ),
    rank_fault("a failed lookup is dropped", _LOOKUP_LOST, "            pass\n"),
    rank_fault("a failed push is dropped", _PUSH_LOST, "            pass\n"),
    rank_fault(
        "a push acknowledged twice counts twice",
        _ACKED_GUARD + "        self.permits.remove(batch)\n",
        "        self.permits.discard(batch)\n",
    ),
    rank_fault("any batch that is looked up is trained", _NEXT_TO_TRAIN, _ANY_TO_TRAIN),
    rank_fault(
        "a barrier is entered one push early", "if self.pushed_steps == self.barrier_step + 1", "if self.pushed_steps == self.barrier_step"
    ),
    rank_fault("a barrier does not hold lookups", "                    or 0 <= self.barrier_step < batch // limits.world_size\n", ""),
    rank_fault("a checkpoint does not hold lookups", "                    or self.checkpointing is not None\n", ""),
    rank_fault("the dense gradients are never exchanged", "self.limits.reduction is Reduction.NONE and", "False and"),
    rank_fault(
        "two dense exchanges run at a time",
        "and not self.exchanging and self.trained > self.exchanged",
        "and self.trained > self.exchanged",
    ),
    rank_fault("prefetching ignores its window", "                    or waiting >= limits.prefetch_max\n", ""),
    rank_fault(
        "a retry without a slot spins on its timer",
        "self.lookup_retries.next_due_s() if len(self.looking_up) < self.limits.lookups_max else None",
        "self.lookup_retries.next_due_s()",
    ),
    rank_fault("a finished batch that is sent again is not reported", "            self.to_commit.append(batch)\n", "            pass\n"),
    worker_fault(
        "rows are replied after the first server's answer", "len(fan_out.answered) < self.limits.servers", "len(fan_out.answered) < 1"
    ),
    worker_fault(
        "a server that answers twice counts twice", "fan_out.answered.add(server)", "fan_out.answered.add(-len(fan_out.answered))"
    ),
    worker_fault("a retry asks for the wrong kind", _RETRY_KIND, "(RetryLookup if self.fan_outs[batch].is_update else RetryUpdate)"),
    worker_fault("a failed server is not asked again", "        self.retries.lost((event.batch, event.server), now_s)\n", ""),
    worker_fault(
        "a repeated push of an applied batch is not acknowledged",
        "            self.to_reply_ack.append(batch)\n        elif",
        "            pass\n        elif",
    ),
    worker_fault("a credit is granted twice", "        if batch not in self.taken:\n", "        if True:\n"),
    worker_fault(
        "credits ignore the buffer", "while self.ungranted and len(self.buffer) < self.limits.buffer_max:", "while self.ungranted:"
    ),
    worker_fault("a batch expires with work under way", "                if batch in self.work:\n", "                if False:\n"),
    server_fault("an update that is sent again is applied again", "        if batch in self.applied:\n", "        if False:\n"),
    server_fault(
        "a step is applied without its last rank", "if len(group) == self.limits.gather:", "if len(group) == self.limits.gather - 1:"
    ),
    server_fault("a snapshot is cut while updates are applied", "and self.cutting is None and not self.busy:", "and self.cutting is None:"),
    server_fault(
        "updates go on while a snapshot is cut",
        "while self.queue and not self.snapshots and self.cutting is None and",
        "while self.queue and",
    ),
    loader_fault("the offset passes batches that are not trained", _COMMIT, _COMMIT_ANY),
    loader_fault("a credit granted twice makes room twice", _UNKNOWN_CREDIT, _ANY_CREDIT),
    loader_fault("a batch that a worker forgot is not read again", "        self.to_read_again.append(event.batch)\n", ""),
    loader_fault("a rank's batches leave in the order in which they are read", _IN_TURN, _AS_READ),
    Fault(
        name="sync skips its barriers",
        path="persia/schedule/modes.py",
        good="barrier_every_steps=1 if sync else 0",
        bad="barrier_every_steps=0",
        tests=(*MODES, *RANK),
    ),
    Fault(
        name="hybrid and naive-hybrid swap their reductions",
        path="persia/schedule/modes.py",
        good="    Mode.NAIVE_HYBRID: Reduction.AFTER_BACKWARD,\n    Mode.HYBRID: Reduction.OVERLAPPED,\n",
        bad="    Mode.NAIVE_HYBRID: Reduction.OVERLAPPED,\n    Mode.HYBRID: Reduction.AFTER_BACKWARD,\n",
        tests=MODES,
    ),
    Fault(
        name="the digest ignores commands",
        path="persia/schedule/log.py",
        good="        for command in commands:\n            code,",
        bad="        for command in ():\n            code,",
        tests=LOG,
    ),
    Fault(
        name="a replay compares no more than how many commands there are",
        path="persia/schedule/log.py",
        good="if replayed != entry.commands:",
        bad="if len(replayed) != len(entry.commands):",
        tests=LOG,
    ),
    Fault(
        name="a server that comes back forgets what its table holds",
        path="persia/schedule/log.py",
        good="ServerSchedule(header.server, before.applied)",
        bad="ServerSchedule(header.server)",
        tests=LOG,
    ),
    Fault(
        name="gradient buckets are reordered",
        path="simulator/allreduce.py",
        good="zip(reversed(layer_parameter_bytes), reversed(flops), strict=True)",
        bad="zip(layer_parameter_bytes, flops, strict=True)",
        tests=BUCKETS,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which test caught a fault; None where it survived."""

    fault: Fault
    caught_by: str | None
    output: str


def copy_program(to: Path) -> None:
    """Copy what the tests need, compiled files included, so that only what is patched is compiled again."""
    for name in COPIED:
        source = ROOT / name
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, to / name)
        else:
            shutil.copy2(source, to / name)


def judge(fault: Fault, pristine: Path, tests: Sequence[str]) -> Verdict:
    """Seed one fault into a fresh copy and run the tests on it until the first fails."""
    with tempfile.TemporaryDirectory(dir=pristine.parent) as folder:
        root = Path(folder) / "program"
        shutil.copytree(pristine, root)
        fault.seed_into(root)
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *(tests or fault.tests)]
        environment = {**os.environ, **SETTINGS, "PYTHONPATH": str(root)}
        try:
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Verdict(fault=fault, caught_by=None, output=f"no verdict after {TIMEOUT_S} s")
    failed = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    caught = failed is not None and done.returncode == 1
    return Verdict(fault=fault, caught_by=failed[1] if failed and caught else None, output=done.stdout + done.stderr)


def judge_all(faults: Sequence[Fault], tests: Sequence[str] = ()) -> Iterator[Verdict]:
    """Judge all faults, a few at a time, in their order."""
    with tempfile.TemporaryDirectory(prefix="seeded-faults-") as folder:
        pristine = Path(folder) / "pristine"
        copy_program(pristine)
        with ThreadPoolExecutor(PARALLEL) as pool:
            yield from pool.map(lambda fault: judge(fault, pristine, tests), faults)


def main(arguments: Sequence[str]) -> int:
    """Print `fault -> caught by test` for every fault; return 1 if one survives."""
    began_s = time.monotonic()
    survivors = 0
    for verdict in judge_all(FAULTS, arguments):
        if verdict.caught_by is None:
            survivors += 1
            print(f"{verdict.fault.name} -> SURVIVED\n{verdict.output}", flush=True)
        else:
            print(f"{verdict.fault.name} -> caught by {verdict.caught_by}", flush=True)
    print(f"{len(FAULTS) - survivors} of {len(FAULTS)} faults caught in {time.monotonic() - began_s:.0f} s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
