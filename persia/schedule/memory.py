"""What a process remembers of the batches it is done with: exactly and for ever, or the recent ones."""

from __future__ import annotations

from collections import deque


class Done:
    """The batches that are done, exactly: per rank, all before a mark and a few ahead of it.

    However late a request is repeated it is known, and the memory grows with the gaps only, not with the run.
    """

    __slots__ = ("_ahead", "_marks")

    def __init__(self, world_size: int, first_step: int = 0) -> None:
        """Start with every batch before step `first_step` done."""
        self._marks = [first_step * world_size + rank for rank in range(world_size)]  # rank -> its first batch that is not done
        self._ahead: set[int] = set()

    def __contains__(self, batch: int) -> bool:
        return batch < self._marks[batch % len(self._marks)] or batch in self._ahead

    def add(self, batch: int) -> None:
        """Remember that `batch` is done."""
        world_size = len(self._marks)
        rank = batch % world_size
        if batch != self._marks[rank]:
            self._ahead.add(batch)
            return
        batch += world_size
        while batch in self._ahead:
            self._ahead.remove(batch)
            batch += world_size
        self._marks[rank] = batch

    @property
    def held(self) -> int:
        """Return how many batches are remembered one by one."""
        return len(self._ahead)


class Recent:
    """The last `remember_max` batches that were added."""

    __slots__ = ("_batches", "_order", "_remember_max")

    def __init__(self, remember_max: int) -> None:
        self._remember_max = remember_max
        self._batches: set[int] = set()
        self._order: deque[int] = deque()  # the oldest first

    def __contains__(self, batch: int) -> bool:
        return batch in self._batches

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: int) -> None:
        """Remember `batch`, which is not remembered yet, and forget the oldest where there are too many."""
        self._batches.add(batch)
        self._order.append(batch)
        if len(self._order) > self._remember_max:
            self._batches.remove(self._order.popleft())
