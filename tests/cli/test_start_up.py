"""`persia check` answers at once: within 300 ms beyond what the interpreter itself needs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.support import persia_environment

ROUNDS = 25  # other work on the machine only ever adds time, so the least of several is the command's own
BUDGET_S = 0.3
SLOW_MODULES = ("matplotlib", "networkx", "simpy", "scipy", "rich", "jinja2", "torch")


def wall_s(arguments: list[str], folder: Path) -> float:
    """The time of one run in seconds."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, env=persia_environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began_s


def test_check_is_fast(tmp_path: Path) -> None:
    bare_s = min(wall_s(["-c", "pass"], tmp_path) for _ in range(3))
    times_s = []
    for _ in range(ROUNDS):
        times_s.append(wall_s(["-m", "persia", "check", "persia-100t"], tmp_path) - bare_s)
        if times_s[-1] < BUDGET_S:
            break
    assert min(times_s) < BUDGET_S


def test_check_imports_nothing_slow(tmp_path: Path) -> None:
    program = f"""
import sys
from persia.commands import check
check.run(source="persia-100t", overrides=(), as_json=False)
print(*[name for name in {SLOW_MODULES!r} if name in sys.modules], file=sys.stderr)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=persia_environment(), capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""
