"""How much slower the machine is while cases are measured than when it was calibrated: points of the calibration, measured again.

A probe tells of the machine during each run.  What else changes on a machine that others share (how soon a core that idles is
given back, say), and how far work follows the probe's readings by now, no probe beside a run has told, but the batches of a rig do:
between the cases points are measured as `persia calibrate` measures them, and what they take over what the profile predicts at the
pace that the probe tells is how much slower the machine is.  No case has a part in that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import cycle
from math import exp, log

from persia.commands.rigging import CROWDS, POINTS, measure_point, rig_scenario
from persia.readings import Readings
from persia.runtime.rig import Rig
from persia.scenario import Profile, Scenario, load_profile
from simulator.calibration.design import crowds, points
from simulator.host_conditions import usual_readings
from simulator.host_costs import ALONE_ERROR, CROWDED_ERROR, is_crowded
from simulator.parallel import parallel_map
from simulator.run import seconds_of_batch
from simulator.validation.pace import Pace, Times
from simulator.validation.predict import Slower, at_pace
from simulator.validation.result import CaseResult, Reference

_BATCHES, _SECONDS = {False: 4, True: 30}, {False: 0.9, True: 1.5}  # of a reference, at least, by whether it is crowded
_EVERY_S = 8.0
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
            Reference(settings=point.overrides, crowded=crowded, at_s=at_s, step_s=measured.step_s, readings=measured.readings)
        )


class Drift:
    """What references say of the runs of a case: each the logarithm of what it took over what a calibrated profile predicts."""

    def __init__(self, said: Sequence[tuple[Reference, float]], profile: Profile) -> None:
        self.said = said
        self._profile = profile
        times = self._times([(each.at_s, each.readings, each.crowded) for each, _ in said])
        self._pace = Pace(times, [each for _, each in said], max(profile[ALONE_ERROR], profile[CROWDED_ERROR]))

    @classmethod
    def of(cls, references: Sequence[Reference], profile: str) -> Drift | None:
        """Return what references say beside the predictions from a profile; None where that was not calibrated."""
        constants = load_profile(profile)
        if constants.machine is None:
            return None
        scenarios = [
            at_pace(rig_scenario([*each.settings, f"simulation.profile={profile}", f"simulation.steps={_STEPS}"]), each.readings)
            for each in references
        ]
        steps_s = parallel_map(seconds_of_batch, scenarios)
        return cls([(each, log(each.step_s / step_s)) for each, step_s in zip(references, steps_s, strict=True)], constants)

    def slower(self, case: CaseResult, scenario: Scenario) -> Slower:
        """Return how many times longer work took than at the calibration, beside what the probe tells, in the runs that count."""
        crowded = is_crowded(scenario)
        runs = [
            (each.seconds, (each.at_s, each.readings, crowded))
            for each in case.repeats
            if each.used and each.at_s is not None and each.readings is not None
        ]
        if not runs:
            return Slower()
        mean, error = self._pace.mean(self._times([each for _, each in runs]), [seconds for seconds, _ in runs])
        return Slower(exp(mean), error)

    def _times(self, read: Sequence[tuple[float, Readings, bool]]) -> Times:
        """Return when the probe looked, what it read and whether the machine was crowded, as the pace has it."""
        slower = [readings.slower_than(usual_readings(self._profile, crowded=crowded)) for _, readings, crowded in read]
        return Times(at_s=[at_s for at_s, _, _ in read], slower=slower)
