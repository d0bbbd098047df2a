"""How much slower a machine is at some times, by what was seen of it at others: the best linear prediction of what is correlated.

Matheron, "Principles of geostatistics", Economic Geology 58 (1963), and Rasmussen and Williams, "Gaussian Processes for Machine
Learning" (2006), section 2.2.  Three things are unknown, each expected to be small beside what one sight errs by: how much slower
the machine has been all the time, how much slower at one time than at another, and how much more work follows what a probe
reads than is known.

Shapes: N sights, T times, R readings of a probe at each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from persia.readings import Readings

# Standard deviations over that of one sight, by the likelihood of what references on two machines said, of no case.
_ALL_THE_TIME = 0.6
_MEANWHILE, _FADES_S = 0.4, 60.0  # and the time after which that is correlated by a factor of e less
_PER_READING = 5.0  # per factor of e by which a reading takes longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Some times, in seconds since the epoch, and how much longer than usual a probe's readings took then (R), as logarithms."""

    at_s: Sequence[float]
    slower: Sequence[Sequence[float]]

    def covariance(self, other: Times) -> Any:
        """Return that of how slow the machine is at these times and at others, as logarithms, over the variance of a sight."""
        meanwhile = np.exp(-np.abs(np.subtract.outer(self.at_s, other.at_s)) / _FADES_S)
        mine, its = (np.reshape(each.slower, (len(each.at_s), len(Readings._fields))) for each in (self, other))
        return _ALL_THE_TIME**2 + _MEANWHILE**2 * meanwhile + _PER_READING**2 * mine @ its.T


class Pace:
    """How much slower the machine is than usual, beside what a probe tells, by `said` (N), logarithms, of the times of the sights.

    `supposed` is the standard deviation by which one of them errs, as far as they do not tell that themselves: it counts as a sight.
    """

    def __init__(self, times: Times, said: Sequence[float], supposed: float) -> None:
        self._times = times
        self._covariance = times.covariance(times) + np.eye(len(said))
        self._weighed = np.linalg.solve(self._covariance, np.array(said))
        self._variance = (supposed**2 + float(np.dot(said, self._weighed))) / (1 + len(said))

    def mean(self, times: Times, weights: Sequence[float]) -> tuple[float, float]:
        """Return the mean over other times (T) of such weights, as a logarithm, and its standard error."""
        shares = np.array(weights) / np.sum(weights)
        between = times.covariance(self._times).T @ shares
        unknown = shares @ times.covariance(times) @ shares - between @ np.linalg.solve(self._covariance, between)
        return float(between @ self._weighed), float(np.sqrt(self._variance * max(0.0, unknown)))
