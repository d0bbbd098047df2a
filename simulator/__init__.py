"""The simulator: physics under the core's schedules.

`simulate(scenario)` returns a typed `SimulationResult`; `check(scenario)` says in milliseconds whether the model fits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulator.check import FitReport, check
from simulator.excuse import Excuse, Infeasible
from simulator.result import SimulationResult

if TYPE_CHECKING:
    from simulator.run import simulate

__all__ = ["Excuse", "FitReport", "Infeasible", "SimulationResult", "check", "simulate"]


def __getattr__(name: str) -> Any:
    """Import the engine only when a simulation is asked for: a check should not wait for it."""
    if name == "simulate":
        from simulator.run import simulate

        return simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
