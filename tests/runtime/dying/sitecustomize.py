"""Found by every Python of a run whose PYTHONPATH names this folder: a role's process that kills itself where it is told to.

`DYING` holds JSON: for `role-index` a list of places, one for each life of that process, such as
`persia.runtime.tables:Tables.update after 5` (after the fifth call has returned; `before`: at its beginning).
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from typing import Any


def die_at(place: str) -> None:
    """Let this process kill itself at a place."""
    target, when, number = place.split()
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for attribute in owners:
        owner = getattr(owner, attribute)
    setattr(owner, name, dying(getattr(owner, name), when, int(number)))


def dying(function: Callable[..., Any], when: str, number: int) -> Callable[..., Any]:
    """Return the function, deadly at its call `number`, counted from 1."""
    calls = count(1)

    def call(*args: Any, **kwargs: Any) -> Any:
        last = next(calls) == number
        if last and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def main() -> None:
    """In a forker, whose processes begin with `node.main`."""
    if "persia.runtime.forker" not in sys.orig_argv or "DYING" not in os.environ:
        return
    from persia.runtime import node

    serve = node.main

    def run(arguments: list[str]) -> int:
        _, role, index, life, _ = arguments
        places = json.loads(os.environ["DYING"]).get(f"{role}-{index}", [])
        if int(life) < len(places):
            die_at(places[int(life)])
        return serve(arguments)

    node.main = run


main()
