"""Torch's optimizers without torch's compiler, which the first call of any of their methods imports: two seconds of a rank's start.

Nothing is compiled here.  Where a torch looks different inside, the compiler is imported as ever and nothing else changes.
"""

from __future__ import annotations

import inspect

import torch


def leave_compiler_out() -> None:
    """Let the methods of torch's optimizers be what they are before torch wraps them to be left out of compiled code."""
    for method in vars(torch.optim.Optimizer).values():
        bare = getattr(method, "__wrapped__", None)
        if bare is not None:
            setattr(bare, "__dynamo_disable", bare)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """Take the optimizer's step; hooks that were registered on it do not run."""
    bare = inspect.unwrap(type(optimizer).step)
    with torch.no_grad():
        bare(optimizer)
