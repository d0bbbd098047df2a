"""The tests are tested: every fault seeded into the core is caught by one of them."""

from __future__ import annotations

import pytest

from tests.seeded_faults import FAULTS, Fault, judge_all


@pytest.mark.slow
def test_every_seeded_fault_is_caught(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = list(judge_all(FAULTS))
    with capsys.disabled():
        print()
        for verdict in verdicts:
            print(f"{verdict.fault.name} -> {verdict.caught_by or 'SURVIVED'}")
    survivors = [verdict for verdict in verdicts if verdict.caught_by is None]
    assert not survivors, "\n".join(f"{verdict.fault.name}\n{verdict.output}" for verdict in survivors)
    assert len(verdicts) >= 10


def test_a_harmless_change_survives() -> None:
    """What the script calls caught is caught: a change that breaks nothing is not."""
    harmless = Fault(
        name="nothing",
        path="persia/schedule/retries.py",
        good="_DOUBLINGS_MAX = 6",
        bad="_DOUBLINGS_MAX = 3 + 3",
        tests=("tests/schedule/test_retries.py",),
    )
    (verdict,) = judge_all([harmless])
    assert verdict.caught_by is None
    assert "3 passed" in verdict.output


def test_a_fault_that_matches_nowhere_is_refused() -> None:
    nowhere = Fault(name="nowhere", path="persia/schedule/rank.py", good="no such line", bad="", tests=("tests/schedule/test_rank.py",))
    with pytest.raises(ValueError, match="found 0 times"):
        list(judge_all([nowhere]))
