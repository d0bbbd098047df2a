"""`persia check` answers at once, because it imports nothing slow; `tests/benchmarks/bench_start_up.py` times it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import persia_environment

SLOW_MODULES = ("matplotlib", "networkx", "simpy", "scipy", "rich", "jinja2", "torch")


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
