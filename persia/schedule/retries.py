"""Back-off of lost requests: who waits, until when; the first due first, ties in the order of loss."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)

_DOUBLINGS_MAX = 6


class Retries(dict[Key, float]):
    """Lost requests that wait for their next try, with its time; the back-off doubles with every loss of the same request.

    A dictionary, because schedules ask at every event whether it is empty, and hardly ever anything else.
    """

    __slots__ = ("_losses", "_retry_s")

    def __init__(self, retry_s: float) -> None:
        super().__init__()
        self._retry_s = retry_s
        self._losses: dict[Key, int] = {}

    @property
    def remembered(self) -> int:
        """Return how many requests have been lost and not answered since."""
        return len(self._losses)

    def lost(self, key: Key, now_s: float) -> None:
        """Let `key` wait for its next try."""
        losses = self._losses.get(key, 0)
        self._losses[key] = losses + 1
        self[key] = now_s + self._retry_s * 2 ** min(losses, _DOUBLINGS_MAX)

    def forget(self, key: Key) -> None:
        """Drop `key`: it was answered after all."""
        if self._losses:
            self.pop(key, None)
            self._losses.pop(key, None)

    def take_due(self, now_s: float) -> Key | None:
        """Return the request that has waited longest past its time, or None; its count of losses is kept."""
        due = min(self, key=self.__getitem__, default=None)
        if due is None or self[due] > now_s:
            return None
        del self[due]
        return due

    def next_due_s(self) -> float | None:
        """Return the time of the first next try, or None."""
        return min(self.values(), default=None)
