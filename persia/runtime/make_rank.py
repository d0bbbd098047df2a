"""An NN worker's process: the only one that imports torch."""

from __future__ import annotations

from pathlib import Path

from persia.runtime.checkpoint import Checkpoint, read_dense
from persia.runtime.evaluation import Evaluation
from persia.runtime.node import Context, Made
from persia.runtime.rank import Rank
from persia.runtime.rendezvous import ranks_store, reduce_at
from persia.runtime.trainer import Trainer
from persia.schedule.modes import Reduction
from persia.schedule.rank import RankSchedule


def make(context: Context) -> Made:
    """Return the rank: its dense model built or restored, the other ranks met."""
    plan, session = context.plan, context.session
    trainer = Trainer(plan, context.index, session.device)
    if session.restore is not None:
        trainer.load(read_dense(Checkpoint.of(Path(session.restore))))
    if plan.ranks > 1:
        reduce_at(session.bind or "127.0.0.1")
        trainer.join(ranks_store(session, context.index), context.index)
    schedule = RankSchedule(plan.header.rank, context.index, session.first_step)
    driver = context.driver(schedule)
    evaluation = Evaluation(driver, plan, context.data)
    rank = Rank(driver, schedule, plan, context.records, trainer, Path(session.checkpoints), evaluation)
    ready = rank.fetch_parameters if plan.header.rank.reduction is Reduction.NONE else None
    return Made(driver=driver, role=rank, ready=ready)
