"""The coordinator of a run: attempt after attempt, each from the last checkpoint, until all steps are trained."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from persia.runtime import checkpoint as checkpoints_of
from persia.runtime.attempt import Attempt, Options, Outcome, Progress, RankDied, RunFailed, ShowProgress
from persia.runtime.plan import Plan, make_plan
from persia.runtime.session import Session, make_state_folder, socket_endpoints
from persia.scenario import Scenario

__all__ = ["Attempt", "Options", "Outcome", "Progress", "RunFailed", "ShowProgress", "run"]

_ATTEMPTS_WITHOUT_PROGRESS = 3


def run(
    scenario: Scenario,
    folder: Path,
    *,
    options: Options,
    progress: ShowProgress = lambda progress: None,
    started: Callable[[Attempt], None] = lambda attempt: None,
) -> Outcome:
    """Train a scenario into a run directory that holds its `scenario.yaml`; goes on from its last checkpoint, if there is one.

    `started` is given each attempt when it begins (tests look at its processes).

    Raises:
        RunFailed: the run cannot go on.
        CheckpointError: the directory's checkpoint does not fit the scenario.
    """
    began_s = time.perf_counter()
    began_at_s = time.time()
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    outcome = Outcome(plan=make_plan(scenario))
    hopeless: list[int] = []
    while True:
        checkpoints_of.sweep_partial(checkpoints)
        restore = checkpoints_of.latest(checkpoints)
        first_step = restore.step + 1 if restore else 0
        plan = outcome.plan = make_plan(scenario, first_step=first_step)
        if restore is not None:
            checkpoints_of.check_matches(restore, plan)
        try:
            _attempt(plan, folder, restore, began_at_s, options, outcome, progress, started)
        except RankDied as death:
            hopeless.append(first_step)
            if hopeless[-_ATTEMPTS_WITHOUT_PROGRESS:] == [first_step] * _ATTEMPTS_WITHOUT_PROGRESS:
                raise RunFailed(f"no attempt gets further than step {first_step}. {death}", mistake=False) from death
            continue
        outcome.samples = plan.stop_batch * plan.batch_size
        outcome.wall_s = time.perf_counter() - began_s
        return outcome


def _attempt(
    plan: Plan,
    folder: Path,
    restore: checkpoints_of.Checkpoint | None,
    began_at_s: float,
    options: Options,
    outcome: Outcome,
    progress: ShowProgress,
    started: Callable[[Attempt], None],
) -> None:
    """Make a session, run it, leave nothing behind but the run directory."""
    attempts = folder / "attempts"
    attempts.mkdir(exist_ok=True)
    attempt_folder = attempts / f"{len(list(attempts.iterdir())) + 1:03d}"
    attempt_folder.mkdir()
    outcome.attempts += 1
    state = make_state_folder(folder)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, state, ignore_errors=True)
        store = cleanup.enter_context(_host_store(options)) if plan.ranks > 1 or options.rendezvous else None
        session = Session(
            scenario=str((folder / "scenario.yaml").resolve()),
            attempt=str(attempt_folder.resolve()),
            state=str(state),
            checkpoints=str((folder / "checkpoints").resolve()),
            restore=str(restore.folder.resolve()) if restore else None,
            first_step=plan.header.first_step,
            began_at_s=began_at_s,
            token=secrets.token_hex(16),
            endpoints={} if options.rendezvous else socket_endpoints(state, plan.processes()),
            bind=options.bind,
            store=store,
            device=options.device,
            compress=options.compress,
        )
        if options.rendezvous:
            _publish(session, outcome.attempts, plan.scenario.name)
        attempt = Attempt(plan, session, state, options, outcome, progress)
        cleanup.callback(attempt.close)
        started(attempt)
        attempt.run_to_end()


def _host_store(options: Options) -> contextlib.AbstractContextManager[str]:
    """Host the ranks' store; one rank alone meets nobody, and its coordinator does not wait for torch."""
    from persia.runtime.rendezvous import host_store

    if options.rendezvous is None:
        return host_store()
    address, _, port = options.rendezvous.rpartition(":")
    return host_store(address, int(port))


def _publish(session: Session, number: int, name: str) -> None:
    from persia.runtime.rendezvous import publish_session

    assert session.store is not None
    publish_session(session.store, session, number, name)
