"""How fast the machine is at this moment: the processor time of the calibration's reference batches, alone and crowded."""

from __future__ import annotations

from persia.commands.rigging import measure_point
from persia.runtime.rig import Rig
from simulator.calibration.design import CROWDED_REFERENCE, REFERENCE, Point
from simulator.validation.result import Reference

_SECONDS = 1.8
_FEWEST = 8


class PaceMeter:
    """Measures the reference batches; `last_s` is what they took last; None at first."""

    def __init__(self, rig: Rig, *, known: bool) -> None:
        """Without `known`, whether the profile knows the references, nothing is measured."""
        self._rig = rig
        self._known = known
        self.last_s: Reference | None = None

    def measure(self) -> Reference | None:
        """Return what the batches take now, in processor seconds of all threads; raises RunFailed."""
        if self._known:
            self.last_s = self._one(REFERENCE, crowded=False), self._one(CROWDED_REFERENCE, crowded=True)
        return self.last_s

    def _one(self, point: Point, *, crowded: bool) -> float:
        _, measured = measure_point(self._rig, point, crowded=crowded, batches=_FEWEST, seconds=_SECONDS)
        return sum(measured.thread_s.values())
