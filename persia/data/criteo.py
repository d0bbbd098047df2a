"""Criteo's click log in its public layout, streamed from a file or a folder of files, plain or compressed by gzip.

A row is a label, 13 whole numbers and 26 hexadecimal categories, separated by tabs; fields may be empty. A number x
becomes log(1 + max(x, 0)), an empty one 0; a category becomes its value, an empty one EMPTY_ID. Every 20th line of a file
(its lines 20, 40, ...) is held out: never trained, and the first `held_out_samples` of them evaluated.

Reading from the beginning or onwards is quick: pieces that a loader does not need are decompressed, their lines are
counted, and nothing is parsed (but where bad rows are skipped, all must be parsed, as they decide what a batch holds).
Places on the way are remembered, so that going back does not start again from the beginning.

Shapes: R rows of a piece, B samples of a batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from persia.data.batch import Batch, DataError, FeatureGroup, OnBadRow, one_id_bags
from persia.data.criteo_rows import DENSE_FEATURES, ID_FEATURES, Rows, parse_rows
from persia.data.lines import Piece, Place, pieces, text_files

HELD_OUT_EVERY = 20
MOST_KEPT_SAMPLES = 100_000  # held-out samples that stay in memory, 264 bytes each; more are read anew each time
_REMEMBER_EVERY_ROWS = 1 << 14

__all__ = ["DENSE_FEATURES", "ID_FEATURES", "CriteoTsv"]


@dataclass(slots=True, kw_only=True)
class _Stretch:
    """A piece with its training rows: the number of the first of them in the pass, how many, and themselves when parsed."""

    piece: Piece
    first: int
    count: int
    rows: Rows | None

    @property
    def end(self) -> int:
        """The number of the row after the last."""
        return self.first + self.count


class CriteoTsv:
    """Batches of a log that may be much larger than memory."""

    def __init__(self, *, path: Path, batch_size: int, groups: Sequence[FeatureGroup], held_out_samples: int, on_bad_row: OnBadRow) -> None:
        self._files = text_files(path)
        self._batch_size = batch_size
        self._groups = tuple(groups)
        self._held_out_samples = held_out_samples
        self._skip = on_bad_row == "skip"
        # Places that a walk has passed, and the number of the first row there; all rows before them were counted.
        self._known_rows = [0]
        self._known_places = [Place()]
        self._walk: Iterator[_Stretch] = iter(())
        self._here: _Stretch | None = None
        self._batches: int | None = None
        self._kept: list[Rows] | None = None
        # How far bad rows have been counted, in the training split and in the other: (file, line).
        self._counted = {False: (0, 0), True: (0, 0)}
        self.bad_rows = 0

    @property
    def samples(self) -> int:
        """Samples that one pass trains; where no pass has been made, the files are read through to count them."""
        return self._pass_batches() * self._batch_size

    def batch(self, number: int) -> Batch:
        """Return a batch; raises DataError for a row of it that cannot be read, or for too few samples."""
        if self._batches is None:
            rows = self._rows(number * self._batch_size)
            if rows is not None:
                return self._as_batch(number, rows)
        rows = self._rows(number % self._pass_batches() * self._batch_size)
        assert rows is not None  # a whole batch lies before the end of the pass
        return self._as_batch(number, rows)

    def held_out(self, batch_size: int) -> Iterator[Batch]:
        """Give the first held-out lines; they are kept in memory where they are not too many."""
        waiting: list[Rows] = []
        number = 0
        for rows in self._held_out_rows():
            waiting.append(rows)
            while sum(len(each.labels) for each in waiting) >= batch_size:
                joined = _joined(waiting)
                yield self._as_batch(number, _cut(joined, 0, batch_size))
                number += 1
                waiting = [_cut(joined, batch_size, len(joined.labels))]
        joined = _joined(waiting)
        if len(joined.labels):
            yield self._as_batch(number, joined)

    def best_auc(self) -> None:
        """Nobody knows it."""
        return

    def _pass_batches(self) -> int:
        """Return the batches of one pass, at least one; walks to the end of the files where that was not done before."""
        if self._batches is None:
            end = self._known_rows[-1]
            for stretch in self._stretches(self._known_places[-1], end):
                end = stretch.end
            self._batches = end // self._batch_size
        if self._batches == 0:
            raise DataError(
                f"{self._files[0].path}: fewer than the {self._batch_size:,} samples of a batch to train. Lower workload.batch_size."
            )
        return self._batches

    def _as_batch(self, number: int, rows: Rows) -> Batch:
        """Return rows as a batch."""
        return Batch(number=number, labels=rows.labels, dense=rows.dense, groups=one_id_bags(rows.ids, self._groups))

    def _rows(self, first: int) -> Rows | None:
        """Return a batch's training rows, or None where the pass ends before the last of them."""
        self._go_to(first)
        found: list[Rows] = []
        end = first + self._batch_size
        while self._here is not None:
            here = self._here
            if first < here.end:
                last = min(end, here.end)
                found.append(self._parsed(here, first, last))
                first = last
            if first == end:
                return _joined(found)
            self._step()
        return None

    def _step(self) -> None:
        """Walk on to the next stretch; after an error nowhere, so that the next batch looks for its place anew."""
        self._here = None
        self._here = next(self._walk, None)

    def _go_to(self, first: int) -> None:
        """Place the walk at or before a row: where it is, if that is not too far, else at the nearest place known."""
        index = bisect_right(self._known_rows, first) - 1
        row, place = self._known_rows[index], self._known_places[index]
        here = self._here
        if here is not None and here.first <= first:
            # Compressed files are read from their beginning anyway, so that walking on is as good as jumping.
            same_stream = place.file == here.piece.place.file and self._files[place.file].compressed
            if row <= here.end or same_stream:
                return
        self._walk = self._stretches(place, row)
        self._step()

    def _stretches(self, place: Place, row: int) -> Iterator[_Stretch]:
        """Walk on from a place, counting the training rows and remembering places."""
        for piece in pieces(self._files, place):
            if row >= self._known_rows[-1] + _REMEMBER_EVERY_ROWS:
                self._known_rows.append(row)
                self._known_places.append(piece.place)
            if self._skip:
                rows = self._good_rows(piece, held_out=False)
                stretch = _Stretch(piece=piece, first=row, count=len(rows.labels), rows=rows)
            else:
                stretch = _Stretch(piece=piece, first=row, count=int((~self._is_held_out(piece)).sum()), rows=None)
            yield stretch
            row = stretch.end

    def _is_held_out(self, piece: Piece) -> NDArray[np.bool_]:
        """Return which lines are never trained; bool[lines]."""
        if self._held_out_samples == 0:
            return np.zeros(piece.lines, dtype=np.bool_)
        numbers = np.arange(piece.place.line, piece.place.line + piece.lines)
        held_out: NDArray[np.bool_] = numbers % HELD_OUT_EVERY == 0
        return held_out

    def _parsed(self, stretch: _Stretch, first: int, last: int) -> Rows:
        """Return training rows first..last-1 of a stretch; raises DataError for the first bad one of them."""
        if stretch.rows is None:
            stretch.rows = parse_rows(stretch.piece.data, ~self._is_held_out(stretch.piece))
        start, end = first - stretch.first, last - stretch.first
        for row, reason in stretch.rows.bad.items():
            if start <= row < end:
                self._refuse(stretch.piece, held_out=False, row=row, reason=reason)
        return _cut(stretch.rows, start, end)

    def _good_rows(self, piece: Piece, *, held_out: bool) -> Rows:
        """Return the good rows of a split in a piece; counts the bad ones, or raises DataError where none are allowed."""
        lines = np.flatnonzero(self._is_held_out(piece) == held_out) + piece.place.line
        rows = parse_rows(piece.data, self._is_held_out(piece) == held_out)
        for row, reason in rows.bad.items():
            if not self._skip:
                self._refuse(piece, held_out=held_out, row=row, reason=reason)
            self.bad_rows += (piece.place.file, int(lines[row])) > self._counted[held_out]
        self._counted[held_out] = max(self._counted[held_out], (piece.place.file, piece.place.line + piece.lines - 1))
        if not rows.bad:
            return rows
        good = np.ones(len(rows.labels), dtype=np.bool_)
        good[list(rows.bad)] = False
        return Rows(labels=rows.labels[good], dense=rows.dense[good], ids=rows.ids[:, good], bad={})

    def _refuse(self, piece: Piece, *, held_out: bool, row: int, reason: str) -> None:
        """Raise the error about a bad row."""
        line = piece.place.line + int(np.flatnonzero(self._is_held_out(piece) == held_out)[row])
        path = self._files[piece.place.file].path
        raise DataError(f"{path}:{line}: {reason}. Mend the row, or set workload.data.on_bad_row to skip.")

    def _held_out_rows(self) -> Iterator[Rows]:
        """Give the held-out rows, from memory where they are there."""
        if self._kept is not None:
            yield from self._kept
            return
        found: list[Rows] = []
        missing = self._held_out_samples
        for piece in pieces(self._files, Place()) if missing else ():
            rows = self._good_rows(piece, held_out=True)
            rows = _cut(rows, 0, min(missing, len(rows.labels)))
            if self._held_out_samples <= MOST_KEPT_SAMPLES:
                found.append(rows)
            missing -= len(rows.labels)
            yield rows
            if missing == 0:
                break
        if self._held_out_samples <= MOST_KEPT_SAMPLES:
            self._kept = found


def _cut(rows: Rows, start: int, end: int) -> Rows:
    """Return rows start..end-1 of good rows."""
    return Rows(labels=rows.labels[start:end], dense=rows.dense[start:end], ids=rows.ids[:, start:end], bad={})


def _joined(parts: Sequence[Rows]) -> Rows:
    """Return all good rows of the parts."""
    if len(parts) == 1:
        return parts[0]
    empty = parse_rows(b"\n", np.zeros(1, dtype=np.bool_))
    parts = [empty, *parts]
    return Rows(
        labels=np.concatenate([part.labels for part in parts]),
        dense=np.concatenate([part.dense for part in parts]),
        ids=np.concatenate([part.ids for part in parts], axis=1),
        bad={},
    )
