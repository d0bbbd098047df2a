"""Published throughputs beside predicted ones, as reports see them."""

from __future__ import annotations

from typing import Protocol


class PublishedRow(Protocol):
    """One published throughput (samples/s) beside the simulated one; `error_pct` is signed."""

    @property
    def dataset(self) -> str:
        """Return the data set's name."""
        ...

    @property
    def mode(self) -> str:
        """Return the training mode."""
        ...

    @property
    def accelerators(self) -> int:
        """Return the number of accelerators."""
        ...

    @property
    def params_trillion(self) -> float:
        """Return the number of parameters, in trillions."""
        ...

    @property
    def published(self) -> float:
        """Return the published samples/s."""
        ...

    @property
    def predicted(self) -> float:
        """Return the simulated samples/s."""
        ...

    @property
    def error_pct(self) -> float:
        """Return 100 * (predicted / published - 1)."""
        ...

    @property
    def fitted(self) -> bool:
        """Return whether a constant was fitted to this row."""
        ...
