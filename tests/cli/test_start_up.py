"""`persia check` answers at once: within 300 ms of processor time beyond what the interpreter itself needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support import persia_environment

ROUNDS = 5
BUDGET_S = 0.3
SLOW_MODULES = ("matplotlib", "networkx", "simpy", "scipy", "rich", "jinja2", "torch")


def processor_s(arguments: list[str], folder: Path) -> float:
    """The least processor time of several runs: waiting for a busy machine does not count."""
    times = []
    for _ in range(ROUNDS):
        process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=persia_environment(), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    return min(times)


def test_check_is_fast(tmp_path: Path) -> None:
    bare_s = processor_s(["-c", "pass"], tmp_path)
    check_s = processor_s(["-m", "persia", "check", "persia-100t"], tmp_path)
    assert check_s - bare_s < BUDGET_S


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
