"""Every word is frozen, serialises to one line and comes back from it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persia.schedule import messages
from persia.schedule.lines import WORDS, from_line, to_line
from persia.schedule.messages import EVERY_SERVER, Command, Event, Lookup, RowsArrived, Word

NUMBERS = st.integers(min_value=-1, max_value=2**53)
ANY_WORD = st.sampled_from(list(WORDS.values())).flatmap(lambda kind: st.builds(kind, *[NUMBERS for _ in fields(kind)]))


@settings(derandomize=True, deadline=None)
@given(ANY_WORD)
def test_a_word_comes_back_from_its_line(word: Word) -> None:
    line = to_line(word)
    assert "\n" not in line
    assert from_line(line) == word


def test_a_line_is_the_name_and_the_fields() -> None:
    assert to_line(RowsArrived(7, EVERY_SERVER)) == "RowsArrived 7 -1"


def test_every_word_of_the_module_is_in_the_table_and_is_an_event_or_a_command() -> None:
    defined = {name for name, value in vars(messages).items() if isinstance(value, type) and issubclass(value, Word)}
    assert set(WORDS) == defined - {"Word", "Event", "Command"}
    assert all(issubclass(word, Event) != issubclass(word, Command) for word in WORDS.values())


@pytest.mark.parametrize("word", WORDS.values(), ids=list(WORDS))
def test_words_are_frozen_and_slotted_and_say_what_they_mean(word: type[Word]) -> None:
    example = word(*range(len(fields(word))))
    assert not hasattr(example, "__dict__")
    assert word.__doc__
    assert not word.__doc__.startswith(word.__name__ + "(")
    for field in fields(word):
        with pytest.raises(FrozenInstanceError):
            setattr(example, field.name, 5)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Dance 1", "unknown word"),
        ("Lookup", "takes 1 fields, not 0"),
        ("Lookup 1 2", "takes 1 fields, not 2"),
        ("Lookup x", "invalid literal"),
    ],
)
def test_a_line_that_is_no_word_is_refused(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        from_line(line)


def test_words_of_different_kinds_differ() -> None:
    assert Lookup(1) != messages.Push(1)
