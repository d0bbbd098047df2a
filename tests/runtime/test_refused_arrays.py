"""Arrays that no process of the run would send: counted and dropped, and never the end of a server or a worker."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")

from persia.embedding.precision import encode
from persia.runtime.plan import Plan, make_plan
from persia.runtime.server import Server
from persia.runtime.transport import Kind, Message
from persia.runtime.worker import Worker
from persia.schedule.messages import GradientsArrived, UpdateQueued
from persia.schedule.server import ServerSchedule
from persia.schedule.worker import WorkerSchedule
from tests.runtime.runs import scenario_of

WIRES = ("fp32", "fp16", "fp16-scaled")


def plan_of(wire: str, servers: int = 2) -> Plan:
    return make_plan(scenario_of(0, f"schedule.precision={{server_worker: {wire}, worker_rank: {wire}}}", servers=servers))


class Told:
    """Stands for a driver and for its mailbox: remembers what it is told and what it is to send."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.sent: list[Any] = []
        self.mailbox = self
        self.clock = SimpleNamespace(now_s=lambda: 0.0)

    def tell(self, *events: Any) -> None:
        self.events += events

    def send(self, *words: Any, **_: Any) -> bool:
        self.sent.append(words)
        return True


class Counts(SimpleNamespace):
    """Stands for a process's records."""

    def __init__(self) -> None:
        super().__init__(counts=Counter())


def update_of(plan: Plan, wire: str, keys: int = 5) -> list[Any]:
    arrays: list[Any] = []
    for group in plan.groups:
        arrays += [np.arange(keys, dtype=np.uint64), *encode(np.ones((keys, group.dim), np.float32), wire)]
    return arrays


def spoilt(arrays: list[Any], place: int) -> list[list[Any]]:
    """The arrays with one of them of another length, width, type or missing."""
    one = arrays[place]
    wrong = [one[:-1], one.astype(np.float64), one.reshape(-1)[: one.size - 1]]
    return [*([*arrays[:place], bad, *arrays[place + 1 :]] for bad in wrong), arrays[:-1], []]


@pytest.mark.parametrize("wire", WIRES)
def test_server_drops_updates_whose_gradients_do_not_fit(tmp_path: Path, wire: str) -> None:
    plan, told, records = plan_of(wire), Told(), Counts()
    tables: Any = SimpleNamespace(counts=dict)
    parts: tuple[Any, Any, Any] = (told, ServerSchedule(plan.header.server), plan)
    hear = Server(*parts, records, tables, SimpleNamespace(), tmp_path, tmp_path / "cut").listeners()[Kind.UPDATE]  # type: ignore[arg-type]
    good = update_of(plan, wire)
    bad = [arrays for place in range(len(good)) for arrays in spoilt(good, place)]
    for arrays in bad:
        hear(Message(Kind.UPDATE, "embedding_worker", 0, 3, arrays=tuple(arrays)))
    assert told.events == []
    assert records.counts["refused_messages"] == len(bad)
    hear(Message(Kind.UPDATE, "embedding_worker", 0, 3, arrays=tuple(good)))
    assert told.events == [UpdateQueued(3)]


@pytest.mark.parametrize("servers", [1, 2])
@pytest.mark.parametrize("wire", WIRES)
def test_worker_drops_rows_that_it_did_not_ask_for(wire: str, servers: int) -> None:
    plan, told, records = plan_of(wire, servers), Told(), Counts()
    worker: Any = Worker(told, WorkerSchedule(plan.header.worker), plan, records)  # type: ignore[arg-type]
    bags = []
    for group in plan.groups:
        count = group.features * 3
        bags += [np.arange(count, dtype=np.int64), np.arange(count + 1, dtype=np.int32)]
    listeners = worker.listeners()
    listeners[Kind.PEEK_POOLED](Message(Kind.PEEK_POOLED, "nn_worker", 0, 7, extra=3, arrays=tuple(bags)))
    asked = told.sent
    assert len(asked) == servers
    told.sent = []
    for server in range(servers):
        keys = asked[server][4]
        good = [a for k, g in zip(keys, plan.groups, strict=True) for a in encode(np.ones((len(k), g.dim), np.float32), wire)]
        bad = spoilt(good, 0) + spoilt(good, len(good) - 1)
        for arrays in bad:
            listeners[Kind.ROWS_PEEK](Message(Kind.ROWS_PEEK, "parameter_server", server, 7, extra=3, arrays=tuple(arrays)))
        assert records.counts["refused_messages"] == len(bad) * (server + 1)
        assert told.sent == []
        listeners[Kind.ROWS_PEEK](Message(Kind.ROWS_PEEK, "parameter_server", server, 7, extra=3, arrays=tuple(good)))
    (answer,) = told.sent
    assert answer[2] is Kind.POOLED_PEEK
    assert records.counts["refused_messages"] == len(bad) * servers


@pytest.mark.parametrize("wire", WIRES)
def test_worker_drops_gradients_that_do_not_fit(wire: str) -> None:
    plan, told, records = plan_of(wire), Told(), Counts()
    worker: Any = Worker(told, WorkerSchedule(plan.header.worker), plan, records)  # type: ignore[arg-type]
    hear, batch = worker.listeners()[Kind.GRADIENTS], plan.batch_size
    good: list[Any] = []
    for group in plan.groups:
        shape = (7, group.dim) if group.pooling == "raw" else (batch, group.features, group.dim)
        good += encode(np.ones(shape, np.float32), wire)
    bad = [arrays for place in range(len(good)) for arrays in spoilt(good, place) if not is_shorter_raw(plan, place, arrays, good)]
    for arrays in bad:
        hear(Message(Kind.GRADIENTS, "nn_worker", 0, 3, arrays=tuple(arrays)))
    assert told.events == []
    assert records.counts["refused_messages"] == len(bad)
    hear(Message(Kind.GRADIENTS, "nn_worker", 0, 3, arrays=tuple(good)))
    assert told.events == [GradientsArrived(3)]


def is_shorter_raw(plan: Plan, place: int, arrays: list[Any], good: list[Any]) -> bool:
    """Whether only a raw group's array became shorter: without the batch's bags nobody can know its length."""
    each = len(good) // len(plan.groups)
    raw = plan.groups[place // each].pooling == "raw"
    return raw and len(arrays) == len(good) and arrays[place].ndim == 2 and arrays[place].dtype == good[place].dtype
