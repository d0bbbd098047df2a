"""A parameter server's process: attaches to the tables that a predecessor has left, or makes them, or restores them."""

from __future__ import annotations

import json
from pathlib import Path

from persia.runtime.applied import AppliedLog
from persia.runtime.checkpoint import Checkpoint
from persia.runtime.node import Context, Made
from persia.runtime.records import last_lines
from persia.runtime.restore import restore_tables
from persia.runtime.server import Server
from persia.runtime.tables import Tables, warm_up
from persia.schedule.lines import from_line
from persia.schedule.messages import UpdateApplied
from persia.schedule.server import ServerSchedule

_TAIL_BYTES = 1 << 16  # of the event log: more than the lines of one step's updates


def make(context: Context) -> Made:
    """Return the server, its kernels compiled, its tables as the last process of this run or the checkpoint left them."""
    plan, session = context.plan, context.session
    warm_up(plan)
    applied = AppliedLog(context.state / "applied")
    tables = Tables(plan, context.index, context.state)
    if tables.fresh and session.restore is not None:
        restore_tables(tables, Checkpoint.of(Path(session.restore)), plan)
    tables.mark_ready()
    if context.life:
        reconcile(tables, applied, context)
    schedule = ServerSchedule(plan.header.server, applied.done(plan.ranks, session.first_step))
    driver = context.driver(schedule)
    server = Server(driver, schedule, plan, context.records, tables, applied, Path(session.checkpoints))
    return Made(driver=driver, role=server, close=tables.close)


def reconcile(tables: Tables, applied: AppliedLog, context: Context) -> None:
    """Make the list of applied batches say what the event log says, which is written first.

    An update whose line is in the log is done: its journal may go.  One without a line stays in the journal, where its
    repetition will find it, done or half done.
    """
    gather = context.plan.header.server.gather
    logged = _logged_updates(context.log_path)
    known = set(applied.batches()[-len(logged) - 1 :]) if logged else set()
    for batch in logged:
        if batch not in known:
            applied.append(batch)
    done = applied.done(context.plan.ranks, context.session.first_step)
    for number in tables.pending():
        batches = range(number * gather, (number + 1) * gather)
        if all(batch in done for batch in batches):
            tables.forget(number)


def _logged_updates(path: Path) -> list[int]:
    """Return the batches of the last UpdateApplied events of a log."""
    batches = []
    for line in last_lines(path, _TAIL_BYTES):
        entry = json.loads(line)
        if isinstance(entry, list):
            event = from_line(entry[3])
            if isinstance(event, UpdateApplied):
                batches.append(event.batch)
    return batches
