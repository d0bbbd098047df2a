"""How much slower the machine is while cases are measured than when it was calibrated: points of the calibration, measured again.

The memory probe tells of the memory during each run.  What else changes on a machine that others share (the clock of its cores,
what runs on their other threads, how soon a core that idles is given back) no probe beside a run has told, but the batches of a
rig do: between the cases points are measured as `persia calibrate` measures them, and what they take over what the profile
predicts at the memory's pace is how much slower the machine is by then.  No case has a part in that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import exp, log

from persia.commands.rigging import CROWDS, POINTS, measure_point, rig_scenario
from persia.runtime.rig import Rig
from simulator.calibration.design import crowds, points
from simulator.parallel import parallel_map
from simulator.run import seconds_of_batch
from simulator.validation.predict import at_pace
from simulator.validation.result import CaseResult, Reference

_BATCHES, _SECONDS = {False: 4, True: 30}, {False: 0.9, True: 1.5}  # of a reference, at least, by whether it is crowded
_EVERY_S = 20.0
_FADES_S = 60.0  # a reference so long before or after a run counts by a factor of e less: as references tell one another best
_NOTHING_CHANGED = 1.0  # counts as much as one reference at the time of the run
_STEPS = 40


class References:
    """Measures one reference after another; `found` are those so far."""

    def __init__(self, rig: Rig) -> None:
        self.found: list[Reference] = []
        self._rig = rig
        self._points = {False: cycle(points(POINTS)), True: cycle(crowds(CROWDS))}

    def renew(self, *, crowded: bool) -> None:
        """Measure a reference of a kind if the last one was some runs ago; raises Failure where that cannot be run."""
        if not any(each.crowded == crowded and time.time() - each.at_s < _EVERY_S for each in self.found):
            self._measure(crowded=crowded)

    def close(self) -> None:
        """Measure one of each kind behind all runs."""
        for crowded in sorted({each.crowded for each in self.found}):
            self._measure(crowded=crowded)

    def _measure(self, *, crowded: bool) -> None:
        point = next(self._points[crowded])
        _, measured = measure_point(self._rig, point, crowded=crowded, batches=_BATCHES[crowded], seconds=_SECONDS[crowded])
        at_s = time.time() - 0.5 * measured.batches * measured.step_s
        self.found.append(
            Reference(settings=point.overrides, crowded=crowded, at_s=at_s, step_s=measured.step_s, memory_s=measured.memory_s)
        )


@dataclass(frozen=True, slots=True)
class Drift:
    """What references say: each with the logarithm of what it took over what was predicted."""

    said: Sequence[tuple[Reference, float]] = ()

    @classmethod
    def of(cls, references: Sequence[Reference], profile: str) -> Drift:
        """Return what references say beside the predictions from a calibrated profile."""
        scenarios = [
            at_pace(rig_scenario([*each.settings, f"simulation.profile={profile}", f"simulation.steps={_STEPS}"]), each.memory_s)
            for each in references
        ]
        steps_s = parallel_map(seconds_of_batch, scenarios)
        return cls([(each, log(each.step_s / step_s)) for each, step_s in zip(references, steps_s, strict=True)])

    def slower(self, case: CaseResult) -> float:
        """Return how many times longer work took than at the calibration, beside what the memory tells, in the runs that count."""
        runs = [(repeat.at_s, repeat.seconds) for repeat in case.repeats if repeat.used and repeat.at_s is not None]
        total_s = sum(seconds for _, seconds in runs)
        return exp(sum(self._at(at_s) * seconds for at_s, seconds in runs) / total_s) if total_s else 1.0

    def _at(self, at_s: float) -> float:
        weights = [(exp(-abs(at_s - each.at_s) / _FADES_S), said) for each, said in self.said]
        return sum(weight * said for weight, said in weights) / (_NOTHING_CHANGED + sum(weight for weight, _ in weights))
