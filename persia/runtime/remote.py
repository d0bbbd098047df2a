"""A role on another host, or in another network namespace: joins a run that a coordinator has published."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from persia.runtime.node import serve
from persia.runtime.rendezvous import fetch_session


def join(*, role: str, index: int, rendezvous: str, bind: str, folder: Path, name: str) -> None:
    """Serve as one role of the run at `rendezvous` (HOST:PORT) until it ends; rejoin when its ranks had to start again.

    Logs and traces go to `folder`; tables too, until the end.  `bind` is the address at which the others reach this process.

    Raises:
        RendezvousError: the run cannot be found or joined, or is not of the scenario `name`.
        DataError, ScenarioError, CheckpointError, OSError: as `serve`.
    """
    logging.basicConfig(level=logging.WARNING, format=f"{role} {index}: %(message)s")
    attempt = 1
    while True:
        session = fetch_session(rendezvous, attempt, folder, bind, name)
        Path(session.state).mkdir(exist_ok=True)
        try:
            again = serve(session, role, index, life=0)
        finally:
            shutil.rmtree(session.state, ignore_errors=True)
        if not again:
            return
        attempt += 1
