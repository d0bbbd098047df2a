"""A data loader's process."""

from __future__ import annotations

from typing import cast

from persia.runtime.kept import kept_number
from persia.runtime.loader import Loader
from persia.runtime.node import Context, Made
from persia.schedule.loader import LoaderSchedule
from persia.schedule.log import loader_limits, restarted
from persia.schedule.messages import Restarted, Timer


def make(context: Context) -> Made:
    """Return the loader; one that came back goes on from the offset that was committed last."""
    offset_file = context.state / "offset"
    limits = loader_limits(context.plan.header.loader, context.index)
    event = Restarted(kept_number(offset_file, limits.first_batch))
    if context.life:
        schedule = cast("LoaderSchedule", restarted(context.plan.header, "loader", context.index, event, None))
    else:
        schedule = LoaderSchedule(limits)
    driver = context.driver(schedule)
    loader = Loader(driver, schedule, context.data(), context.records, offset_file)
    return Made(driver=driver, role=loader, first=() if context.life else (Timer(),), restarted=event)
