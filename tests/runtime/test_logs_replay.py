"""The real logs of every mode: the core gives the same commands again, and the simulator's accounting the same staleness."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("numba")
pytest.importorskip("zmq")
pytest.importorskip("torch")

from persia.runtime.records import LOGS
from persia.schedule import messages as m
from persia.schedule.invariants import CollectiveOrder, broken_laws
from persia.schedule.log import Entry, Header, new_schedule, read_log, replay
from persia.schedule.server import ServerSchedule
from persia.schedule.staleness import VersionStaleness
from persia.trace import Span, StalenessRecord, to_chrome
from simulator.run import simulate
from tests.runtime.runs import STEPS, Run, run_of

# A case each, so that the runs are also those of other tests.
MODES = {"sync": 0, "async": 2, "naive-hybrid": 1, "hybrid": 3}
RANKS = SERVERS = WORKERS = 2
BATCHES = STEPS * RANKS
# Work that both worlds do and call the same; the dense part is one span in a real rank, four in a simulated one.
SHARED_SPANS = {
    *(("loader", "read"), ("embedding_worker", "dedup"), ("embedding_worker", "pool"), ("embedding_worker", "un-pool")),
    *(("parameter_server", "lookup"), ("parameter_server", "update"), ("nn_worker", "lookup"), ("nn_worker", "push")),
}


@pytest.fixture(scope="module", params=MODES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_of(tmp_path_factory, MODES[request.param], f"schedule.mode={request.param}")


def entries_of(run: Run, role: str) -> list[tuple[Header, list[Entry]]]:
    return [log for name, log in run.logs().items() if name.rpartition("-")[0] == role]


def test_every_log_replays_without_a_difference(run: Run) -> None:
    paths = sorted((run.attempt / LOGS).iterdir())
    assert len(paths) == 1 + WORKERS + SERVERS + RANKS
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            assert replay(*read_log(lines)) is None


def test_the_laws_hold_after_every_event(run: Run) -> None:
    order = CollectiveOrder(RANKS)
    for name, (header, entries) in run.logs().items():
        role, _, index = name.rpartition("-")
        assert header == run.plan.header
        assert {(entry.role, entry.index) for entry in entries} == {(role, int(index))}
        schedule = new_schedule(header, role, int(index))
        for entry in entries:
            assert tuple(schedule.handle(entry.event, entry.time_s)) == entry.commands
            assert broken_laws(schedule) == []
            if role == "nn_worker":
                assert order.broken_laws(int(index), entry.commands) == []


def test_every_batch_is_trained_once_and_applied_once_on_every_server(run: Run) -> None:
    trained = [e.event.batch for _, entries in entries_of(run, "nn_worker") for e in entries if isinstance(e.event, m.DenseDone)]
    assert sorted(trained) == list(range(BATCHES))
    for _, entries in entries_of(run, "parameter_server"):
        applied = [entry.event.batch for entry in entries if isinstance(entry.event, m.UpdateApplied)]
        assert sorted(applied) == list(range(BATCHES))
    assert len(run.outcome.losses) == BATCHES


def staleness_of(header: Header, entries: list[Entry], index: int) -> Counter[int]:
    """One server's version staleness as the simulator counts it, from a fresh schedule that hears the logged events."""
    schedule, staleness, histogram = ServerSchedule(header.server), VersionStaleness(), Counter[int]()
    for entry in entries:
        if isinstance(entry.event, m.UpdateApplied):
            version = staleness.updated(entry.event.batch, schedule.version)
            assert version is not None
            histogram[version] += 1
        for command in schedule.handle(entry.event, entry.time_s):
            if isinstance(command, m.ServeLookup):
                staleness.looked_up(command.batch, schedule.version)
    return histogram


def test_the_logs_give_the_staleness_that_the_run_reports_and_traces(run: Run) -> None:
    total: Counter[int] = Counter()
    for index, (header, entries) in enumerate(entries_of(run, "parameter_server")):
        own = staleness_of(header, entries, index)
        traced = [r.version for r in run.trace() if isinstance(r, StalenessRecord) and r.server == index]
        assert own == Counter(traced)
        total += own
    assert total == run.reported_staleness()
    assert sum(total.values()) == BATCHES * SERVERS
    if run.scenario.schedule.mode == "sync":
        assert set(total) == {0}
    else:
        assert max(total) > 0


def test_lookups_find_no_more_in_flight_than_there_are_permits(run: Run) -> None:
    in_flight = run.reported_staleness("in_flight", "nn_worker")
    assert sum(in_flight.values()) == BATCHES
    assert 1 <= min(in_flight) <= max(in_flight) <= run.plan.header.rank.staleness_permits


def test_a_real_trace_has_the_lanes_of_a_simulated_one(run: Run) -> None:
    real = {(span.tier, span.name) for span in run.trace() if isinstance(span, Span)}
    simulated = {(span.tier, span.name) for span in simulate(run.scenario, overrides=["simulation.fidelity=message"], steps=30).spans}
    shared = SHARED_SPANS - ({("parameter_server", "update")} if run.scenario.schedule.mode == "sync" else set())
    assert shared <= real
    assert shared <= simulated
    assert {tier for tier, _ in real} == {tier for tier, _ in simulated}


def test_a_real_trace_opens_in_a_viewer(run: Run) -> None:
    records = list(run.trace())
    events = to_chrome(records)["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == sum(isinstance(record, Span) for record in records)
    assert sum(event["ph"] == "C" for event in events) == BATCHES * SERVERS
    spans = [record for record in records if isinstance(record, Span)]
    assert all(0.0 <= span.start_s <= span.end_s <= run.outcome.wall_s for span in spans)
    trained = Counter(span.batch for span in spans if span.name == "train")
    assert trained == Counter(range(BATCHES))
