"""An NN worker's process whose accelerator is emulated: it never waits for torch."""

from __future__ import annotations

from pathlib import Path

from persia.runtime.emulation import EmulatedTrainer, NoEvaluation
from persia.runtime.node import Context, Made
from persia.runtime.rank import Rank
from persia.schedule.modes import Reduction
from persia.schedule.rank import RankSchedule


def make(context: Context) -> Made:
    """Return the rank; what it restores of a checkpoint is its place in the data."""
    plan, session = context.plan, context.session
    assert session.emulated is not None
    schedule = RankSchedule(plan.header.rank, context.index, session.first_step)
    driver = context.driver(schedule)
    trainer = EmulatedTrainer(driver, plan, context.index, session.emulated)
    rank = Rank(driver, schedule, plan, context.records, trainer, Path(session.checkpoints), NoEvaluation(driver))
    ready = rank.fetch_parameters if plan.header.rank.reduction is Reduction.NONE else None
    return Made(driver=driver, role=rank, ready=ready)
