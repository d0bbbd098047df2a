"""The back-off of lost requests."""

from __future__ import annotations

from persia.schedule.retries import Retries


def test_the_back_off_doubles_with_every_loss_up_to_64_times() -> None:
    retries: Retries[str] = Retries(0.5)
    waits = []
    for _ in range(9):
        retries.lost("a", 100.0)
        due_s = retries.next_due_s()
        assert due_s is not None
        waits.append(due_s - 100.0)
        assert retries.take_due(due_s) == "a"
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 32.0, 32.0]


def test_the_first_due_goes_first_and_ties_go_in_the_order_of_loss() -> None:
    retries: Retries[str] = Retries(1.0)
    retries.lost("late", 5.0)
    retries.lost("b", 1.0)
    retries.lost("a", 1.0)
    assert retries.next_due_s() == 2.0
    assert retries.take_due(1.9) is None
    assert [retries.take_due(9.0) for _ in range(4)] == ["b", "a", "late", None]


def test_an_answer_ends_the_waiting_and_the_memory_of_losses() -> None:
    retries: Retries[str] = Retries(1.0)
    retries.lost("a", 0.0)
    retries.lost("b", 0.0)
    assert retries.take_due(1.0) == "a"
    assert (len(retries), "b" in retries, retries.remembered) == (1, True, 2)
    retries.forget("a")
    retries.forget("b")
    retries.forget("never lost")
    assert (len(retries), "b" in retries, retries.remembered) == (0, False, 0)
    retries.lost("a", 0.0)
    assert retries.next_due_s() == 1.0
