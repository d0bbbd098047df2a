"""Version staleness as both worlds count it: what a parameter server applied between a batch's lookup and its update."""

from __future__ import annotations


class VersionStaleness:
    """The count of one server: `version` is how often its optimizer has run, of which the batch's own update is not one.

    A lookup that is served again counts anew, for the rows that are trained are those of the last answer.
    """

    __slots__ = ("_looked_up_at",)

    def __init__(self) -> None:
        self._looked_up_at: dict[int, int] = {}  # batch -> version when its lookup was served

    def looked_up(self, batch: int, version: int) -> None:
        """Note that the batch's lookup is served at this version."""
        self._looked_up_at[batch] = version

    def updated(self, batch: int, version: int) -> int | None:
        """Return the batch's staleness when its update is applied to this version; None where its lookup was not seen."""
        looked_up_at = self._looked_up_at.pop(batch, None)
        return None if looked_up_at is None else version - looked_up_at
