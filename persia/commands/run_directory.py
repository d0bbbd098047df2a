"""A run directory: new for every run, never overwritten, valid at every moment.

Each file appears whole (written beside, then renamed) or grows by whole lines; `run.json` says whether the run is still
`running`, or `complete`, `interrupted` or `failed`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from persia import __version__
from persia.commands.exits import ExitCode, Failure

SCHEMA_VERSION = 1
RUNS = Path("runs")

State = Literal["running", "complete", "interrupted", "failed"]


class RunDirectory:
    """The folder of one run; a context manager that notes how the run ended."""

    def __init__(self, path: Path, *, command: str) -> None:
        """Take over an empty folder that the caller has made."""
        self.path = path
        self._command = command
        self._started_at = _now()
        self._streams: list[TextIO] = []

    @classmethod
    def create(cls, out: Path | None, *, name: str, command: str) -> RunDirectory:
        """Make `out`, or the first free `runs/NAME-001`, `-002`, ...

        Raises:
            Failure: `out` exists already.
            OSError: the folder cannot be made.
        """
        if out is not None:
            try:
                out.mkdir(parents=True)
            except FileExistsError:
                raise Failure(
                    ExitCode.USAGE, f"{out} exists already, and a run directory is never overwritten. Give --out a new name."
                ) from None
            return cls(out, command=command)
        RUNS.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = RUNS / f"{name}-{number:03d}"
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return cls(path, command=command)
        raise AssertionError("count() never ends")

    def __enter__(self) -> RunDirectory:
        self._put_state("running")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _undisturbed():
            for stream in self._streams:
                stream.close()
                _end_at_last_line(Path(stream.name))
            if kind is None:
                self._put_state("complete")
            else:
                self._put_state("interrupted" if issubclass(kind, KeyboardInterrupt) else "failed")

    def write_text(self, name: str, text: str) -> Path:
        """Write one file so that it is either absent or whole."""
        target = self.path / name
        partial = self.path / f".{name}.partial"
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def write_json(self, name: str, payload: object) -> Path:
        """Write one JSON file, whole or not at all."""
        return self.write_text(name, json.dumps(payload, indent=2, allow_nan=False) + "\n")

    def open_lines(self, name: str) -> TextIO:
        """Open a file that grows by lines; it is closed, and cut after its last whole line, when the run ends."""
        stream = (self.path / name).open("x", encoding="utf-8", newline="\n")
        self._streams.append(stream)
        return stream

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Give a folder to write into; its files move into the run directory only once all of them are written."""
        stage = Path(tempfile.mkdtemp(prefix=".stage-", dir=self.path))
        try:
            yield stage
            with _undisturbed():
                for path in sorted(stage.iterdir()):
                    path.replace(self.path / path.name)
        finally:
            with _undisturbed():
                shutil.rmtree(stage)

    def _put_state(self, state: State) -> None:
        payload: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "command": self._command,
            "persia": __version__,
            "state": state,
            "started_at": self._started_at,
            "ended_at": None if state == "running" else _now(),
        }
        self.write_json("run.json", payload)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _end_at_last_line(path: Path) -> None:
    """Cut a file after its last newline: an interrupted write may have left half a line."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep a second Ctrl-C from stopping the tidying-up that the first one began."""
    try:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which is the only one that Ctrl-C reaches
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
