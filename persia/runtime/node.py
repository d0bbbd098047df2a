"""One process of a run: opens its inbox, makes its role, serves until it is told to stop.

`main` is what a forker of the coordinator runs; LIFE counts restarts from 0, PARENT is the forker's process, which this one
does not outlive.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from persia.data import DataError, DataSet, open_data
from persia.runtime.checkpoint import CheckpointError
from persia.runtime.driver import Action, Clock, Driver, Listener, Role
from persia.runtime.plan import Plan, make_plan
from persia.runtime.records import Records, log_path, open_log
from persia.runtime.session import ROLES, Session
from persia.runtime.transport import Kind, Mailbox, Message
from persia.scenario import ScenarioError, load_scenario
from persia.schedule.log import Schedule, new_schedule
from persia.schedule.messages import Command, Event, Restarted

_STATS_S = 1.0
_ORPHAN_LOOK_S = 0.1
_ORPHAN_PATIENCE_S = 0.8  # for an orphan to end in order, its log whole
MISTAKES = (DataError, ScenarioError, CheckpointError)  # what the user can mend


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every role is made from."""

    session: Session
    plan: Plan
    role: str
    index: int
    life: int
    mailbox: Mailbox
    clock: Clock
    records: Records

    @property
    def state(self) -> Path:
        """Return the folder in which this process keeps what outlives it."""
        folder = Path(self.session.state) / f"{self.role}-{self.index}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def log_path(self) -> Path:
        """Return the file of this process's event log."""
        return log_path(Path(self.session.attempt), self.role, self.index)

    def driver(self, schedule: Schedule) -> Driver:
        """Return a driver of the schedule, with its event log open."""
        log, log_file = open_log(self.log_path, self.plan.header)
        return Driver(
            schedule=schedule, role=self.role, index=self.index, log=log, log_file=log_file, mailbox=self.mailbox, clock=self.clock
        )

    def schedule(self) -> Schedule:
        """Return the schedule as the run begins it."""
        return new_schedule(self.plan.header, self.role, self.index)

    def data(self) -> DataSet:
        """Open the data set."""
        return open_run_data(self.plan)


def open_run_data(plan: Plan) -> DataSet:
    """Return the scenario's data set; raises DataError."""
    scenario = plan.scenario
    data = scenario.workload.data
    return open_data(
        kind=data.kind,
        path=data.path,
        batch_size=plan.batch_size,
        groups=plan.data_groups(),
        dense_features=scenario.model.dense.dense_features,
        seed=plan.seed,
        held_out_samples=data.held_out_samples,
        on_bad_row=data.on_bad_row,
        distinct_batches=data.distinct_batches,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A role ready to serve: its driver, what comes first after START, what a process that came back is told first."""

    driver: Driver
    role: Role
    first: tuple[Event, ...] = ()
    restarted: Restarted | None = None  # Restarted(0), unless the number matters
    ready: Callable[[], None] | None = None  # sends READY itself, later
    close: Callable[[], None] = lambda: None


class _Reporting:
    """A role that also hears START and STOP, and reports its counts every second."""

    def __init__(self, context: Context, made: Made) -> None:
        self._context = context
        self._made = made
        self._due_s = 0.0
        self.come_again = False

    def actions(self) -> Mapping[type[Command], Action]:
        """Return the role's."""
        return self._made.role.actions()

    def listeners(self) -> Mapping[Kind, Listener]:
        """Return the role's, and those that all have."""
        own = self._made.role.listeners()
        return {**own, Kind.START: self._start, Kind.STOP: self._stop, Kind.HELLO: lambda message: self._hello(message, own)}

    def posted(self, item: object) -> None:
        """Pass it on."""
        self._made.role.posted(item)

    def tick(self, now_s: float) -> float | None:
        """Let the role look, and report."""
        if now_s >= self._due_s:
            self._due_s = now_s + _STATS_S
            self._report(Kind.PROGRESS)
        due_s = self._made.role.tick(now_s)
        return self._due_s if due_s is None else min(due_s, self._due_s)

    def _start(self, message: Message) -> None:
        if self._made.first:
            self._made.driver.tell(*self._made.first)

    def _hello(self, message: Message, own: Mapping[Kind, Listener]) -> None:
        """A process came back, perhaps at another address."""
        self._context.mailbox.connect(message.role, message.index, message.payload()["endpoint"])
        if Kind.HELLO in own:
            own[Kind.HELLO](message)

    def _stop(self, message: Message) -> None:
        self.come_again = bool(message.extra)
        self._report(Kind.STATS)
        self._made.driver.stop()

    def _report(self, kind: Kind) -> None:
        payload = {**self._context.records.to_json(), "life": self._context.life, "unsent": self._context.mailbox.unsent}
        self._context.mailbox.send("coordinator", 0, kind, -1, payload=payload)


def serve(session: Session, role: str, index: int, life: int, *, parent: int | None = None) -> bool:
    """Take part in a run as one process, until told to stop or until `parent` is gone; return whether to come again.

    Raises:
        DataError, ScenarioError, CheckpointError: the user's mistake.
        OSError: a folder or an endpoint that cannot be used.
    """
    plan = make_plan(load_scenario(session.scenario), first_step=session.first_step)
    own = session.endpoints[role][index] if session.endpoints else f"tcp://{session.bind}:0"
    mailbox = Mailbox(endpoint=own, role=role, index=index, token=bytes.fromhex(session.token), compress=session.compress)
    if not session.endpoints:
        from persia.runtime.rendezvous import exchange_endpoints

        session = replace(session, endpoints=exchange_endpoints(session, role, index, mailbox.endpoint, plan.processes()))
    for peer, endpoints in session.endpoints.items():
        for number, endpoint in enumerate(endpoints):
            mailbox.connect(peer, number, endpoint)
    clock = Clock(session.began_at_s)
    records = Records(Path(session.attempt), role=role, index=index, scenario=plan.scenario.name, clock=clock)
    context = Context(session=session, plan=plan, role=role, index=index, life=life, mailbox=mailbox, clock=clock, records=records)
    try:
        made = _make(context)
        if life:
            _say_hello(context)
        if made.ready is None:
            mailbox.send("coordinator", 0, Kind.READY)
        else:
            made.ready()
        reporting = _Reporting(context, made)
        made.driver.run(reporting, first=(made.restarted or Restarted(0)) if life else None, parent=parent)
        made.close()
        return reporting.come_again
    except (*MISTAKES, OSError) as error:
        mailbox.send("coordinator", 0, Kind.FAILED, payload={"mistake": isinstance(error, MISTAKES), "message": str(error)})
        raise
    finally:
        records.close()
        mailbox.close()


def _make(context: Context) -> Made:
    """Return the role; torch is imported by the ranks only, for it takes longer than a restart may."""
    match context.role:
        case "loader":
            from persia.runtime.make_loader import make
        case "embedding_worker":
            from persia.runtime.make_worker import make
        case "parameter_server":
            from persia.runtime.make_server import make
        case "nn_worker" if context.session.emulated is not None:
            from persia.runtime.make_emulated_rank import make
        case "nn_worker":
            from persia.runtime.make_rank import make
        case _:
            raise ValueError(f"unknown role {context.role!r}: one of {', '.join(ROLES)}")
    return make(context)


def _say_hello(context: Context) -> None:
    """Tell everyone that what this process was asked is lost."""
    for role, endpoints in context.session.endpoints.items():
        for index in range(len(endpoints)):
            if (role, index) != (context.role, context.index):
                context.mailbox.send(role, index, Kind.HELLO, context.life, payload={"endpoint": context.mailbox.endpoint})


def _die_with(parent: int) -> None:
    """End this process soon after its parent, whatever it is doing: starting, compiling, waiting for other ranks."""
    while os.getppid() == parent:
        time.sleep(_ORPHAN_LOOK_S)
    time.sleep(_ORPHAN_PATIENCE_S)
    os._exit(1)


def process_name(role: str, index: int) -> str:
    """Return what the kernel calls a role's process, in its fifteen characters: rank-0, worker-0, server-0."""
    return f"{'rank' if role == 'nn_worker' else role.rpartition('_')[2]}-{index}"


def main(arguments: list[str]) -> int:
    """Run one process, `SESSION.json ROLE INDEX LIFE PARENT`; return its exit code."""
    session_path, role, index, life, parent = arguments
    with suppress(OSError):  # what `ps` and `top` show
        Path("/proc/self/comm").write_text(process_name(role, int(index)), encoding="ascii")
    threading.Thread(target=_die_with, args=(int(parent),), name="orphan", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the coordinator's, which tells everyone to stop
    logging.basicConfig(level=logging.WARNING, format=f"{role} {index}: %(message)s", stream=sys.stderr)
    try:
        serve(Session.read(Path(session_path)), role, int(index), int(life), parent=int(parent))
    except (*MISTAKES, OSError) as error:
        sys.stderr.write(f"{role} {index}: {error}\n")
        return 1
    return 0
