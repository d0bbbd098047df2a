"""What processes remember of the batches they are done with."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from persia.schedule.memory import Done, Recent


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 4), st.integers(0, 3), st.permutations(range(24)), st.integers(0, 24))
def test_done_is_exactly_what_was_added(world_size: int, first_step: int, order: list[int], count: int) -> None:
    done = Done(world_size, first_step)
    first = first_step * world_size
    added = [first + batch for batch in order[:count]]
    for batch in added:
        assert batch not in done
        done.add(batch)
    assert [batch for batch in range(first + 24) if batch in done] == [*range(first), *sorted(added)]
    assert done.held <= count


def test_done_holds_gaps_only() -> None:
    done = Done(2)
    for batch in range(2, 100_000):
        done.add(batch)
    assert done.held == 99_998
    done.add(1)
    assert done.held == 49_999
    done.add(0)
    assert done.held == 0


def test_recent_forgets_the_oldest() -> None:
    recent = Recent(2)
    for batch in (5, 3, 9):
        recent.add(batch)
    assert [batch in recent for batch in (5, 3, 9)] == [False, True, True]
    assert len(recent) == 2
