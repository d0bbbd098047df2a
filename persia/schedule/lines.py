"""Words as lines of text, and the table of all words."""

from __future__ import annotations

from dataclasses import fields

from persia.schedule import messages
from persia.schedule.messages import Command, Event, Word

# A word's place in this table, which is its place in messages.py, is its code in the event log's digest: where it changes,
# so does `log.LOG_VERSION`.
WORDS: dict[str, type[Word]] = {
    name: word
    for name, word in vars(messages).items()
    if isinstance(word, type) and issubclass(word, Word) and word not in (Word, Event, Command)
}


def to_line(word: Word) -> str:
    """Return `Name field field`, the word as one line."""
    return " ".join([type(word).__name__, *(str(getattr(word, f.name)) for f in fields(word))])


def from_line(line: str) -> Word:
    """Return the word that `to_line` wrote.

    Raises:
        ValueError: the name is unknown, or the fields are not that word's integers.
    """
    name, *values = line.split()
    if name not in WORDS:
        raise ValueError(f"unknown word {name!r}")
    kind = WORDS[name]
    if len(values) != len(fields(kind)):
        raise ValueError(f"{name} takes {len(fields(kind))} fields, not {len(values)}")
    return kind(*map(int, values))
