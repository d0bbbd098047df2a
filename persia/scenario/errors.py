"""The one exception of this package, and the positions and suggestions that its messages are made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ERRORS_SHOWN = 20
_SUGGESTION_LENGTH = 64
_PRINTED_BITS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a value was written: a file with line and column (both from 1), or the text of a `--set`, which has neither."""

    file: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        """Return `file:line:column`, or the file alone."""
        return self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"


class ScenarioError(Exception):
    """A scenario cannot be used: what is wrong and what was expected (`message`), where, and what to do (`remedy`).

    `more` holds the further errors of the same scenario, at most ERRORS_SHOWN - 1; `hidden` counts those beyond.
    """

    def __init__(
        self,
        message: str,
        *,
        file: str,
        line: int | None = None,
        column: int | None = None,
        remedy: str,
        more: Sequence[ScenarioError] = (),
        hidden: int = 0,
    ) -> None:
        """Keep the parts; the text is made by `lines`."""
        super().__init__(message)
        self.message = message
        self.file = file
        self.line = line
        self.column = column
        self.remedy = remedy
        self.more = tuple(more)
        self.hidden = hidden

    def __reduce__(self) -> tuple[object, ...]:
        """Let it pass from one process to another."""
        return _made_again, (self.message, {name: value for name, value in vars(self).items() if name != "message"})

    @property
    def position(self) -> Position:
        """Where the value that is refused was written."""
        return Position(file=self.file, line=self.line, column=self.column)

    def lines(self) -> list[str]:
        """Return one line `file:line:column: message. remedy` for each error, the primary one first."""
        own = f"{self.position}: {self.message}. {self.remedy}".rstrip()
        rest = [line for error in self.more for line in error.lines()]
        return [own, *rest, *([f"... and {self.hidden} more"] if self.hidden else [])]

    def __str__(self) -> str:
        """Return all lines."""
        return "\n".join(self.lines())


def _made_again(message: str, parts: dict[str, Any]) -> ScenarioError:
    return ScenarioError(message, **parts)


def error_at(position: Position, message: str, remedy: str) -> ScenarioError:
    """Return the error of one position."""
    return ScenarioError(message, file=position.file, line=position.line, column=position.column, remedy=remedy)


def gather(errors: Sequence[ScenarioError]) -> ScenarioError:
    """Return the first error, carrying the others; `errors` must not be empty."""
    first, *rest = errors
    return ScenarioError(
        first.message,
        file=first.file,
        line=first.line,
        column=first.column,
        remedy=first.remedy,
        more=rest[: ERRORS_SHOWN - 1],
        hidden=max(0, len(rest) - (ERRORS_SHOWN - 1)),
    )


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `Did you mean 'x'?`, or, where nothing is near, `Choose among ...` with every choice."""
    known = sorted(choices)
    near = [choice for choice in known if choice.lower() == word.lower()]
    if not near and len(word) <= _SUGGESTION_LENGTH:
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return f"Choose among: {shown}." if known else "Remove it."


def shown(value: object) -> str:
    """Return the value as it may stand in a message: escaped, and cut at 60 characters."""
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:
        # Python refuses to print integers of more than 4,300 digits.
        return "a number of more than 300 digits"
    text = value if isinstance(value, str) else repr(value)
    cut = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(cut) if isinstance(value, str) else cut
