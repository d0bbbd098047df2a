"""A simulated log replayed through the core gives the same commands; a log that was tampered with does not."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import cache

import pytest

from persia.schedule.log import Difference, read_log, replay
from simulator.run import simulate
from tests.simulator.small_clusters import SMALL, TIERS

MODES = ("sync", "async", "naive-hybrid", "hybrid")
FIDELITIES = ("phase", "message")


@cache
def log_of(mode: str, fidelity: str) -> tuple[str, ...]:
    """The lines of the log of a run with two processes on some machines and a checkpoint on the way."""
    log = io.StringIO()
    overrides = (
        f"schedule.mode={mode}",
        f"simulation.fidelity={fidelity}",
        "schedule.checkpoint_every_steps=6",
        f"{TIERS}.nn_worker.count=2",
        f"{TIERS}.nn_worker.processes_per_machine=2",
    )
    result = simulate(SMALL, overrides=overrides, steps=15, log=log)
    plain = simulate(SMALL, overrides=overrides, steps=15)
    assert result.digest == plain.digest  # whether or not a log is written
    return tuple(log.getvalue().splitlines())


def difference(lines: list[str] | tuple[str, ...]) -> Difference | None:
    return replay(*read_log(lines))


@pytest.mark.parametrize("fidelity", FIDELITIES)
@pytest.mark.parametrize("mode", MODES)
def test_a_log_replays_without_a_difference(mode: str, fidelity: str) -> None:
    lines = log_of(mode, fidelity)
    roles = {json.loads(line)[1] for line in lines[1:]}
    assert roles == {"loader", "embedding_worker", "nn_worker"} | ({"parameter_server"} if fidelity == "message" else set())
    assert difference(lines) is None


def entry_with_commands(lines: list[str], role: str) -> int:
    """The place of an entry in the middle of the log in which a process of this role gave a command."""
    found = [number for number, line in enumerate(lines) if number and json.loads(line)[1] == role and len(json.loads(line)) > 4]
    return found[len(found) // 2]


def without_command(entry: list[object]) -> list[object]:
    return entry[:-1]


def command_twice(entry: list[object]) -> list[object]:
    return [*entry, entry[-1]]


def other_process(entry: list[object]) -> list[object]:
    return [*entry[:2], int(str(entry[2])) + 50, *entry[3:]]


@pytest.mark.parametrize("tamper", [without_command, command_twice])
@pytest.mark.parametrize("role", ["loader", "embedding_worker", "parameter_server", "nn_worker"])
@pytest.mark.parametrize("mode", MODES)
def test_a_changed_command_is_found_where_it_is(mode: str, role: str, tamper: Callable[[list[object]], list[object]]) -> None:
    lines = list(log_of(mode, "message"))
    place = entry_with_commands(lines, role)
    lines[place] = json.dumps(tamper(json.loads(lines[place])))
    found = difference(lines)
    assert found is not None
    assert found.entry == place - 1  # the first line is the header
    assert found.logged.role == role


def test_a_lost_or_misdelivered_event_is_found() -> None:
    lines = list(log_of("hybrid", "phase"))
    place = entry_with_commands(lines, "nn_worker")
    assert difference(lines[:place] + lines[place + 1 :]) is not None
    lines[place] = json.dumps(other_process(json.loads(lines[place])))
    assert difference(lines) is not None


def test_other_limits_are_found() -> None:
    lines = list(log_of("hybrid", "phase"))
    header = json.loads(lines[0])
    header["rank"]["staleness_permits"] = 2
    assert difference([json.dumps(header), *lines[1:]]) is not None
