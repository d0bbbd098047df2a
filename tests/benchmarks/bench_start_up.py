"""What short commands cost: `python tests/benchmarks/bench_start_up.py [--repeats 15]`.

Prints the wall time of a bare interpreter, of `persia check` on the reference scenario (the promise: at most 300 ms more)
and of `persia check` on the slowest of the malformed scenarios (the promise: a second), in turn, as medians and minima.
Run it on a quiet machine; nothing here is a test, and pytest does not collect it.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.scenario.malformed_cases import CASES, materialise  # noqa: E402 (the checkout need not be installed)
from tests.support import persia_environment  # noqa: E402


def wall_s(arguments: list[str]) -> float:
    """Return the wall time of one run of the interpreter, in seconds."""
    began_s = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=persia_environment(), capture_output=True, check=False)
    return time.perf_counter() - began_s


def main() -> None:
    """Time the commands in turn and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {"bare interpreter": [], "persia check persia-100t": []}
    for _ in range(repeats):
        times["bare interpreter"].append(wall_s(["-c", "pass"]))
        times["persia check persia-100t"].append(wall_s(["-m", "persia", "check", "persia-100t"]))
    for name, seconds in times.items():
        print(f"{name:30} median {1e3 * statistics.median(seconds):6.0f} ms, least {1e3 * min(seconds):6.0f} ms")
    beyond_s = [check - bare for bare, check in zip(*times.values(), strict=True)]
    print(f"{'beyond the interpreter':30} median {1e3 * statistics.median(beyond_s):6.0f} ms, least {1e3 * min(beyond_s):6.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        malformed = materialise(Path(folder))
        slowest = max((wall_s(["-m", "persia", "check", str(malformed / case.name)]), case.name) for case in CASES)
    print(f"{'slowest malformed scenario':30} {1e3 * slowest[0]:6.0f} ms ({slowest[1]})")


if __name__ == "__main__":
    main()
