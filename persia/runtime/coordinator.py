"""The coordinator of a run: attempt after attempt, each from the last checkpoint, until all steps are trained."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from persia.runtime import checkpoint as checkpoints_of
from persia.runtime.attempt import Attempt, Options, Outcome, Progress, RankDied, RunFailed, ShowProgress
from persia.runtime.interrupts import Interrupts
from persia.runtime.plan import Plan, make_plan
from persia.runtime.processes import prepare
from persia.runtime.records import cut_after_last_lines
from persia.runtime.session import ROLES, Session, hold, make_state_folder, socket_endpoints
from persia.scenario import Scenario

__all__ = ["Attempt", "Options", "Outcome", "Progress", "RunFailed", "ShowProgress", "run"]

_ATTEMPTS_WITHOUT_PROGRESS = 3
_ORPHANS_S = 5.0  # patience with the processes of a coordinator that was killed


def run(
    scenario: Scenario,
    folder: Path,
    *,
    options: Options,
    progress: ShowProgress = lambda progress: None,
    started: Callable[[Attempt], None] = lambda attempt: None,
    interrupts: Interrupts | None = None,
) -> Outcome:
    """Train a scenario into a run directory that holds its `scenario.yaml`; goes on from its last checkpoint, if there is one.

    `started` is given each attempt when it begins (tests look at its processes).  `interrupts` are those that the caller
    has begun to note; without them they are noted from here to the end.

    Raises:
        RunFailed: the run cannot go on.
        CheckpointError: the directory's checkpoint does not fit the scenario.
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing runs any more, nothing is left behind but the run directory.
    """
    if scenario.simulation.emulated_accelerator != (options.emulated and options.emulated.accelerator):
        raise RunFailed("simulation.emulated_accelerator: the run needs this accelerator's times in its options.", mistake=True)
    with contextlib.ExitStack() as cleanup:
        interrupts = interrupts or cleanup.enter_context(Interrupts())
        prepare(ROLES, torch=options.torch_roles())
        lock = _hold(folder)
        cleanup.callback(os.close, lock)
        for attempt in (folder / "attempts").glob("*"):
            cut_after_last_lines(attempt)
        return _train(scenario, folder, options, progress, started, interrupts, lock)


def check_free(folder: Path) -> None:
    """Raise RunFailed while another coordinator, or a process that one has left behind, works in a run directory."""
    os.close(_hold(folder))


def _hold(folder: Path) -> int:
    lock = hold(folder, _ORPHANS_S)
    if lock is None:
        raise RunFailed(f"{folder}: another process is training into this directory. Wait for it, or end it.", mistake=True)
    return lock


def _train(
    scenario: Scenario,
    folder: Path,
    options: Options,
    progress: ShowProgress,
    started: Callable[[Attempt], None],
    interrupts: Interrupts,
    lock: int,
) -> Outcome:
    """Make attempts until one comes to the end."""
    began_s = time.perf_counter()
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
            outcome.checkpoint = restore.folder
        outcome.qualities = [quality for quality in outcome.qualities if quality["step"] <= first_step]  # the others come again
        try:
            _attempt(plan, folder, restore, outcome.began_at_s, options, outcome, progress, started, interrupts, lock)
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
    interrupts: Interrupts,
    lock: int,
) -> None:
    """Make a session, run it, leave nothing behind but the run directory."""
    outcome.attempts += 1
    with contextlib.ExitStack() as cleanup:
        session, state, state_lock = cleanup.enter_context(prepared_session(plan, folder, restore, began_at_s, options))
        if options.rendezvous:
            _publish(session, outcome.attempts, plan.scenario.name)
        attempt = Attempt(plan, session, state, options, outcome, progress, interrupts, (lock, state_lock))
        cleanup.callback(attempt.close)
        started(attempt)
        attempt.run_to_end()


@contextlib.contextmanager
def prepared_session(
    plan: Plan, folder: Path, restore: checkpoints_of.Checkpoint | None, began_at_s: float, options: Options
) -> Iterator[tuple[Session, Path, int]]:
    """Give the session of a new attempt in a run directory, the folder of its tables and sockets, which goes with it, and its lock."""
    attempts = folder / "attempts"
    attempts.mkdir(exist_ok=True)
    attempt_folder = attempts / f"{len(list(attempts.iterdir())) + 1:03d}"
    attempt_folder.mkdir()
    state, state_lock = make_state_folder(folder)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(os.close, state_lock)
        cleanup.callback(shutil.rmtree, state, ignore_errors=True)
        store = cleanup.enter_context(_host_store(options.rendezvous)) if options.rendezvous else None
        yield (
            Session(
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
                emulated=options.emulated,
            ),
            state,
            state_lock,
        )


def _host_store(rendezvous: str) -> contextlib.AbstractContextManager[str]:
    from persia.runtime.rendezvous import host_store

    address, _, port = rendezvous.rpartition(":")
    return host_store(address, int(port))


def _publish(session: Session, number: int, name: str) -> None:
    from persia.runtime.rendezvous import publish_session

    assert session.store is not None
    publish_session(session.store, session, number, name)
