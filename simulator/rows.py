"""Rows in a parameter server's memory: bytes of a row, and of the fullest machine when rows are spread by hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from persia.scenario import Scenario

SPREAD_SIGMAS = 4.0  # one in 30,000 processes gets more rows than the mean and four standard deviations
STATE_PER_PARAMETER = {"sgd": 0.0, "adagrad": 1.0, "rowwise-adagrad": 0.0, "adam": 2.0}
STATE_BYTES_PER_ROW = {"sgd": 0.0, "adagrad": 0.0, "rowwise-adagrad": 4.0, "adam": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one kind that the servers keep: `rows` of them over all servers, and what each is made of."""

    rows: float
    dim: float
    bytes_per_parameter: float
    optimizer: str

    @property
    def parameter_bytes(self) -> float:
        """Return the bytes of a row's parameters."""
        return self.dim * self.bytes_per_parameter

    @property
    def state_bytes(self) -> float:
        """Return the bytes of a row's optimizer state: as wide as the row per accumulator, or one fp32 value (row-wise)."""
        return STATE_PER_PARAMETER[self.optimizer] * self.parameter_bytes + STATE_BYTES_PER_ROW[self.optimizer]

    def row_bytes(self, overhead: float) -> float:
        """Return the bytes of a row, with `overhead` bytes for its key, links and allocator."""
        return self.parameter_bytes + self.state_bytes + overhead


def kept_rows(scenario: Scenario) -> list[Rows]:
    """Return the rows that the scenario's servers keep, one kind per feature group."""
    return [
        Rows(
            rows=float(feature.count * feature.kept_rows),
            dim=feature.dim,
            bytes_per_parameter=feature.bytes_per_parameter,
            optimizer=feature.optimizer,
        )
        for feature in scenario.model.features
    ]


def imbalance_bytes(kinds: Sequence[Rows], processes: int, overhead: float) -> float:
    """Return how much more than the mean the fullest of `processes` processes holds.

    A process's share of n rows spread by hash is binomial, with variance n / P (1 - 1 / P); four standard deviations.
    """
    variance = sum(kind.rows / processes * (1.0 - 1.0 / processes) * kind.row_bytes(overhead) ** 2 for kind in kinds)
    return SPREAD_SIGMAS * sqrt(variance)


def total_bytes(kinds: Sequence[Rows], overhead: float) -> float:
    """Return the bytes of all rows over all servers."""
    return sum(kind.rows * kind.row_bytes(overhead) for kind in kinds)


def machine_bytes(kinds: Sequence[Rows], machines: int, processes_per_machine: int, overhead: float) -> float:
    """Return the bytes of rows on a machine whose every process is as full as the fullest."""
    processes = machines * processes_per_machine
    return total_bytes(kinds, overhead) / machines + processes_per_machine * imbalance_bytes(kinds, processes, overhead)
