"""Outputs that README.md shows: `python tests/readme_outputs.py` runs their commands again and writes what they print.

A console block behind the line `<!-- output shown -->` holds one command and what it printed on stdout.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support import ROOT, persia_environment

README = ROOT / "README.md"
SHOWN = re.compile(
    r"(?<=^<!-- output shown -->\n```console\n)\$ (?P<command>persia [^\n]*)\n(?P<output>.*?)(?=^```$)", re.MULTILINE | re.DOTALL
)
EXITS = re.compile(r"\s+# exits with (\d+)$")


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a `persia ...` line of a document, comments left out, in `folder`."""
    arguments = [sys.executable, "-m", "persia", *shlex.split(EXITS.sub("", command))[1:]]
    return subprocess.run(arguments, cwd=folder, env=persia_environment(), capture_output=True, text=True, timeout=240)


def expected_code(command: str) -> int:
    """The exit code that the line promises: 0 unless it says another."""
    match = EXITS.search(command)
    return int(match[1]) if match else 0


def shape(output: str) -> list[str]:
    """The words of an output, without numbers, units that hang on a number's size, bars and frames."""
    words = re.sub(r"[█░╭╮╰╯│─━#+]", " ", re.sub(r"\d[\d.,]*\s*(?:[kMGTPµm]?B?\b|%)?", "N", output)).split()
    return [word for word in words if word not in ("N", "-")]


def main() -> None:
    """Write every shown output anew; nothing is written where a command ends otherwise than its line promises."""
    with tempfile.TemporaryDirectory() as folder:

        def renew(match: re.Match[str]) -> str:
            done = run(match["command"], Path(folder))
            if done.returncode != expected_code(match["command"]):
                raise SystemExit(f"{match['command']}: exit code {done.returncode}\n{done.stderr}")
            return f"$ {match['command']}\n{done.stdout}"

        README.write_text(SHOWN.sub(renew, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
