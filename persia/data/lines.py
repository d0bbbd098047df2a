"""Reads text files, plain or compressed by gzip, in pieces of whole lines; never a whole file at once."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from persia.data.batch import DataError

PIECE_BYTES = 1 << 18  # about a thousand lines: their numbers stay in the processor's cache
LONGEST_LINE_BYTES = 1 << 20
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line's beginning: file by its index, offset in the (decompressed) file, and the line's number, from 1."""

    file: int = 0
    offset_bytes: int = 0
    line: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole lines of one file, each ended by a line feed."""

    place: Place
    data: bytes
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file to read, and whether it is compressed, in which case no place in it can be jumped to."""

    path: Path
    compressed: bool

    def open(self) -> BinaryIO:
        """Open it for reading, decompressed."""
        return cast(BinaryIO, gzip.open(self.path, "rb")) if self.compressed else self.path.open("rb")


def text_files(path: Path) -> list[TextFile]:
    """Return a file, or the files of a folder (not of its folders, nor hidden ones) by name, `day_9` before `day_10`.

    Whether a file is compressed is seen from its first bytes.

    Raises:
        DataError: nothing there, or it cannot be read.
    """
    try:
        paths = sorted(filter(_is_visible_file, path.iterdir()), key=_by_name_and_number) if path.is_dir() else [path]
        files = []
        for each in paths:
            with each.open("rb") as file:
                files.append(TextFile(path=each, compressed=file.read(2) == _GZIP_MAGIC))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{path}: {reason}. Point workload.data.path at a file or a folder of files.") from error
    if not files:
        raise DataError(f"{path}: a folder without files. Point workload.data.path at a file or a folder of files.")
    return files


def pieces(files: Sequence[TextFile], place: Place) -> Iterator[Piece]:
    """Give all lines from a place to the end of the last file.

    Raises:
        DataError: a file cannot be read or decompressed, or a line is so long that this is no text.
    """
    for index in range(place.file, len(files)):
        start = place if index == place.file else Place(file=index)
        try:
            yield from _pieces_of_file(files[index], start)
        except (OSError, EOFError, zlib.error) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise DataError(f"{files[index].path}: {reason}. Is the file complete? Fetch it again.") from error


def _pieces_of_file(source: TextFile, start: Place) -> Iterator[Piece]:
    """Give all lines from a place to the end of its file."""
    place = start
    with source.open() as file:
        file.seek(start.offset_bytes)
        rest = b""
        while more := file.read(PIECE_BYTES):
            data = rest + more
            end = data.rfind(b"\n") + 1
            body, rest = data[:end], data[end:]
            if len(rest) > LONGEST_LINE_BYTES:
                line = place.line + body.count(b"\n")
                message = f"a line of more than {LONGEST_LINE_BYTES:,} bytes; expected text in lines"
                raise DataError(f"{source.path}:{line}: {message}. Point workload.data.path at another file.")
            if body:
                piece = Piece(place=place, data=body, lines=body.count(b"\n"))
                yield piece
                place = Place(file=start.file, offset_bytes=place.offset_bytes + end, line=place.line + piece.lines)
        if rest:
            yield Piece(place=place, data=rest + b"\n", lines=1)


def _is_visible_file(path: Path) -> bool:
    """Whether a folder's entry is one of its data files."""
    return path.is_file() and not path.name.startswith(".")


def _by_name_and_number(path: Path) -> list[str | int]:
    """Return a key that sorts names as people do: text and numbers take turns."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", path.name))]
