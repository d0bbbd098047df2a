"""The event log: its digest sees everything, and its replay finds the first difference."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest

from persia.schedule.log import ROLES, DigestLog, Entry, FileLog, Header, new_schedule, read_log, replay
from persia.schedule.messages import (
    Acknowledge,
    BatchArrived,
    BatchCommitted,
    BatchRead,
    Command,
    CommitOffset,
    DenseDone,
    Event,
    FeaturesArrived,
    LookedUp,
    Lookup,
    LookupAsked,
    LookupQueued,
    LookupServed,
    Push,
    Pushed,
    ReadBatch,
    Restarted,
    Timer,
    UpdateApplied,
    UpdateQueued,
)
from tests.schedule.telling import small_loader_limits, small_rank_limits, small_server_limits, small_worker_limits

HEADER = Header(
    rank=small_rank_limits(world_size=2, staleness_permits=1),
    worker=small_worker_limits(),
    server=small_server_limits(),
    loader=small_loader_limits(),
)
EVENTS: list[tuple[float, str, int, Event]] = [
    (0.0, "loader", 0, Timer()),
    (0.1, "loader", 0, BatchRead(0)),
    (0.2, "loader", 0, BatchRead(1)),
    (1 / 3, "embedding_worker", 0, FeaturesArrived(0)),
    (0.4, "nn_worker", 0, BatchArrived(0)),
    (0.4, "nn_worker", 1, BatchArrived(1)),
    (0.5, "embedding_worker", 0, LookupAsked(0)),
    (0.6, "parameter_server", 1, LookupQueued(0)),
    (0.7, "parameter_server", 1, LookupServed(0)),
    (0.8, "nn_worker", 0, LookedUp(0)),
    (0.8, "nn_worker", 0, BatchArrived(2)),
    (0.9, "nn_worker", 0, DenseDone(0)),
    (0.9, "parameter_server", 1, UpdateQueued(0)),
    (1.0, "parameter_server", 1, UpdateApplied(0)),
    (1.1, "nn_worker", 0, Pushed(0)),
    (1.2, "loader", 0, BatchCommitted(0)),
    (2.0, "parameter_server", 1, Restarted(0)),
    (2.1, "parameter_server", 1, UpdateQueued(0)),
    (2.2, "loader", 0, Restarted(1)),
    (2.3, "embedding_worker", 0, Restarted(0)),
]


def entries() -> list[Entry]:
    """Return a run of every role, the restarts' commands as they must be, the others as the schedules give them."""
    schedules = {}
    made = []
    for time_s, role, index, event in EVENTS[:-4]:
        if (role, index) not in schedules:
            schedules[role, index] = new_schedule(HEADER, role, index)
        commands = tuple(schedules[role, index].handle(event, time_s))
        made.append(Entry(time_s=time_s, role=role, index=index, event=event, commands=commands))
    words: list[tuple[Command, ...]] = [(), (Acknowledge(0),), (ReadBatch(1), ReadBatch(2)), ()]
    for (time_s, role, index, event), commands in zip(EVENTS[-4:], words, strict=True):
        made.append(Entry(time_s=time_s, role=role, index=index, event=event, commands=commands))
    return made


def written(run: list[Entry]) -> tuple[str, str]:
    """Return the run as a log file and its digest."""
    file = io.StringIO()
    log = FileLog(file, HEADER)
    for entry in run:
        log.record(entry.time_s, entry.role, entry.index, entry.event, entry.commands)
    return file.getvalue(), log.hexdigest()


def digest(run: list[Entry]) -> str:
    log = DigestLog()
    for entry in run:
        log.record(entry.time_s, entry.role, entry.index, entry.event, entry.commands)
    assert log.entries == len(run)
    return log.hexdigest()


def test_a_log_reads_back_exactly_and_replays_without_a_difference() -> None:
    run = entries()
    text, file_digest = written(run)
    header, read = read_log(io.StringIO(text))
    assert header == HEADER
    again = list(read)
    assert again == run
    assert digest(again) == file_digest == digest(run)
    assert replay(header, again) is None


def test_the_digest_does_not_depend_on_when_it_is_folded() -> None:
    run = entries() * 4000
    log = DigestLog()
    for number, entry in enumerate(run):
        log.record(entry.time_s, entry.role, entry.index, entry.event, entry.commands)
        if number % 1000 == 0:
            log.hexdigest()
    assert log.hexdigest() == digest(run)


def with_changes(entry: Entry, **changes: object) -> Entry:
    values = {"time_s": entry.time_s, "role": entry.role, "index": entry.index, "event": entry.event, "commands": entry.commands}
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: with_changes(entry, time_s=entry.time_s + 1e-12),
        lambda entry: with_changes(entry, role="loader"),
        lambda entry: with_changes(entry, index=5),
        lambda entry: with_changes(entry, event=BatchArrived(2)),
        lambda entry: with_changes(entry, event=LookedUp(0)),
        lambda entry: with_changes(entry, commands=()),
        lambda entry: with_changes(entry, commands=(Lookup(2),)),
        lambda entry: with_changes(entry, commands=(Push(0),)),
        lambda entry: with_changes(entry, commands=(Lookup(0), Lookup(0))),
    ],
)
def test_the_digest_sees_every_part_of_an_entry(change: Callable[[Entry], Entry]) -> None:
    run = entries()
    assert run[4].commands == (Lookup(0),)
    changed = [*run[:4], change(run[4]), *run[5:]]
    assert digest(changed) != digest(run)


def test_the_digest_sees_the_order() -> None:
    run = entries()
    assert digest([run[1], run[0], *run[2:]]) != digest(run)
    assert digest(run[:-1]) != digest(run)


@pytest.mark.parametrize("number", range(len(EVENTS)))
def test_a_changed_answer_is_the_first_difference(number: int) -> None:
    run = entries()
    forged = with_changes(run[number], commands=(*run[number].commands, CommitOffset(99)))
    difference = replay(HEADER, [*run[:number], forged, *run[number + 1 :]])
    assert difference is not None
    assert (difference.entry, difference.logged, difference.replayed) == (number, forged, run[number].commands)


def test_another_command_in_the_place_of_the_logged_one_is_a_difference() -> None:
    run = entries()
    forged = with_changes(run[4], commands=(Lookup(2),))
    difference = replay(HEADER, [*run[:4], forged, *run[5:]])
    assert difference is not None
    assert (difference.entry, difference.replayed) == (4, (Lookup(0),))


def test_an_event_left_out_shows_where_it_was_missed() -> None:
    run = entries()
    looked_up = next(number for number, entry in enumerate(run) if entry.event == LookedUp(0))
    difference = replay(HEADER, run[:looked_up] + run[looked_up + 1 :])
    assert difference is not None
    assert difference.logged.event == DenseDone(0)


def test_another_limit_shows_at_once() -> None:
    header = Header(rank=HEADER.rank, worker=HEADER.worker, server=HEADER.server, loader=small_loader_limits(read_ahead_max=3))
    difference = replay(header, entries())
    assert difference is not None
    assert difference.entry == 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the log is empty"),
        ("{}\n", "does not begin with a header"),
        ("[1]\n", "does not begin with a header"),
        ('{"log_version": 999}\n', "log version 1"),
        ('{"log_version": 1}\n', "header of the log lacks"),
        ("rubbish\n", "Expecting value"),
    ],
)
def test_a_log_without_its_header_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_log(io.StringIO(text))


@pytest.mark.parametrize(
    "line",
    [
        "[1.0, 'nn_worker'",
        "[]",
        '[1.0, "nn_worker", 0]',
        '[1.0, "nn_worker", 0, 7]',
        '[1.0, "nn_worker", 0, "Dance 1"]',
        '[1.0, "nn_worker", 0, "Lookup 1"]',
        '[1.0, "nn_worker", 0, "Timer", "Timer"]',
    ],
)
def test_a_damaged_line_is_named(line: str) -> None:
    text = json.dumps(HEADER.to_json()) + '\n[0.0, "nn_worker", 0, "Timer"]\n' + line + "\n"
    _, read = read_log(io.StringIO(text))
    with pytest.raises(ValueError, match="line 3 of the log"):
        list(read)


def test_an_unknown_role_and_an_event_of_another_role_are_refused() -> None:
    entry = Entry(time_s=0.0, role="conductor", index=0, event=Timer(), commands=())
    with pytest.raises(ValueError, match="unknown role 'conductor'"):
        replay(HEADER, [entry])
    with pytest.raises(KeyError):
        replay(HEADER, [with_changes(entry, role="parameter_server")])
    assert len(ROLES) == 4
