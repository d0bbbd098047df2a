"""Refusals as data: why a scenario cannot run, and what would make it run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Excuse:
    """One reason for a refusal; `missing_gib` is 0 where memory is not what is missing."""

    reason: str
    bottleneck: str
    missing_gib: float = 0.0
    remedies: tuple[str, ...] = ()


class Infeasible(Exception):
    """The scenario cannot run on its cluster; `excuses` say why, one per broken bound."""

    def __init__(self, excuses: Sequence[Excuse]) -> None:
        super().__init__("; ".join(excuse.reason for excuse in excuses))
        self.excuses = tuple(excuses)
