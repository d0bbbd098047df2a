"""An embedding worker's process."""

from __future__ import annotations

import numpy as np

from persia.embedding.plan import plan_group
from persia.embedding.pooling import gather_raw, pool, scatter_raw, unpool
from persia.embedding.precision import decode, encode
from persia.runtime.node import Context, Made
from persia.runtime.plan import Plan
from persia.runtime.worker import Worker
from persia.schedule.worker import WorkerSchedule


def make(context: Context) -> Made:
    """Return the embedding worker, with its kernels compiled; it keeps nothing, so one that came back is like a new one."""
    warm_up(context.plan)
    schedule = WorkerSchedule(context.plan.header.worker)
    driver = context.driver(schedule)
    return Made(driver=driver, role=Worker(driver, schedule, context.plan, context.records))


def warm_up(plan: Plan) -> None:
    """Compile (or load) every kernel that a worker uses, on one sample."""
    for group in plan.groups:
        ids = np.zeros(group.features, np.int64)
        offsets = np.arange(group.features + 1, dtype=np.int32)
        planned = plan_group(ids, offsets, first_feature=group.first, features=group.features, servers=plan.servers)
        rows = np.zeros((len(planned.keys), group.dim), np.float32)
        for wire in {plan.scenario.schedule.precision.server_worker, plan.scenario.schedule.precision.worker_rank}:
            decode(encode(rows, wire), wire, rows)
        if group.pooling == "raw":
            scatter_raw(gather_raw(rows, planned.inverse), planned.inverse, 1.0, len(rows))
            continue
        out = np.empty((1, group.features, group.dim), np.float32)
        pool(rows, planned.inverse, offsets, features=group.features, batch=1, pooling=group.pooling, out=out)
        unpool(out, planned.inverse, offsets, pooling=group.pooling, scale=1.0, unique=len(rows))
