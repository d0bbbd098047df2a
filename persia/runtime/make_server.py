"""A parameter server's process: attaches to the tables that a predecessor has left, or makes them, or restores them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from persia.runtime.applied import AppliedLog
from persia.runtime.checkpoint import Checkpoint
from persia.runtime.node import Context, Made
from persia.runtime.plan import Plan
from persia.runtime.records import cut_after_last_line, last_lines
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
        reconcile(tables, applied, plan, context.log_path)
    schedule = ServerSchedule(plan.header.server, applied.done(plan.ranks, session.first_step))
    driver = context.driver(schedule)
    server = Server(driver, schedule, plan, context.records, tables, applied, Path(session.checkpoints), context.state / "cut")
    return Made(driver=driver, role=server, close=tables.close)


def reconcile(tables: Tables, applied: AppliedLog, plan: Plan, log_path: Path) -> None:
    """Make the list of applied batches say what the event log says, which is written first.

    An update whose line is in the log is done: its journal may go.  One without a line stays in the journal, where its
    repetition will find it, done or half done.
    """
    gather = plan.header.server.gather
    drop_half_step(log_path, gather)
    logged = _logged_updates(log_path)
    known = set(applied.batches()[-len(logged) - 1 :]) if logged else set()
    for batch in logged:
        if batch not in known:
            applied.append(batch)
    done = applied.done(plan.ranks, plan.header.first_step)
    for number in tables.pending():
        batches = range(number * gather, (number + 1) * gather)
        if all(batch in done for batch in batches):
            tables.forget(number)


def drop_half_step(path: Path, gather: int) -> None:
    """Cut off a log's last lines where they tell of a part of a gathered step only.

    They leave in one write, but a kill can end a write between two pages of the file.  The step was not noted beside the
    tables then, nor acknowledged: it counts as not applied, for half of it will never be gathered again.
    """
    if gather == 1 or not path.exists():
        return
    end = cut_after_last_line(path)
    half: list[str] = []
    step = None
    for line in reversed(last_lines(path, _TAIL_BYTES)):
        batch = _applied_by(line)
        if batch is None or step not in (None, batch // gather):
            break
        step = batch // gather
        half.append(line)
    if len(half) < gather:
        os.truncate(path, end - sum(len(line.encode()) + 1 for line in half))


def _logged_updates(path: Path) -> list[int]:
    """Return the batches of the last UpdateApplied events of a log."""
    batches = map(_applied_by, last_lines(path, _TAIL_BYTES))
    return [batch for batch in batches if batch is not None]


def _applied_by(line: str) -> int | None:
    """Return the batch whose UpdateApplied a log's line tells, or None."""
    entry = json.loads(line)
    event = from_line(entry[3]) if isinstance(entry, list) else None
    return event.batch if isinstance(event, UpdateApplied) else None
