"""Where a table's bytes live: private memory, or one file that outlives the process and is mapped into the next.

A folder holds `table.bin`, the arrays of `layout.sections`, and `table.json`, which is written last: a folder without it
holds no table.  What is written to mapped memory survives the death of the process, not that of the machine.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from persia.embedding.layout import HUGE_PAGE_BYTES, Memory, Section, sections
from persia.embedding.spec import TableSpec

Array = npt.NDArray[Any]

FORMAT_VERSION: Final = 1
DATA_NAME: Final = "table.bin"
MANIFEST_NAME: Final = "table.json"
GROWTH_BYTES: Final = 2**24  # file space for rows is taken in steps of this


class StorageError(RuntimeError):
    """A folder that cannot be used: no table in it, one of another format, one in use; the message says which."""


class Storage:
    """The bytes of one table; `memory` is what kernels work on.

    Mapped file space is taken before rows are written to it, so a full disk is an OSError and not a dead process.
    """

    def __init__(self, spec: TableSpec, descriptor: int | None) -> None:
        self._sections = {section.name: section for section in sections(spec)}
        self._descriptor = descriptor
        self._per_row_bytes = sum(section.per_slot_bytes for section in self._sections.values())
        last = max(self._sections.values(), key=lambda section: section.start)
        self._size_bytes = max(last.start + last.size_bytes, mmap.PAGESIZE)
        self._growth_rows = max(1, GROWTH_BYTES // self._per_row_bytes)
        self._capacity_rows = spec.capacity_rows
        self.reserved_rows = 0
        self._map: mmap.mmap | None = self._mapped()
        self.memory = self._arrays(spec)

    @classmethod
    def create(cls, spec: TableSpec, folder: Path | None) -> Self:
        """Take memory for a new table, all zeros, in private memory or in a folder, which is made.

        Raises:
            StorageError: The folder already holds a table.
            OSError: No space, no right to write.
        """
        if folder is None:
            return cls(spec, None)
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST_NAME).exists():
            raise StorageError(f"{folder} already holds a table: attach to it, or remove it")
        descriptor = _open(folder, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            storage = cls(spec, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return storage

    def publish(self, spec: TableSpec, folder: Path) -> None:
        """Write the manifest, from when on the folder holds a table."""
        new = folder / (MANIFEST_NAME + ".new")
        new.write_text(json.dumps({"format": FORMAT_VERSION, "spec": spec.to_json()}, indent=1) + "\n", encoding="utf-8")
        new.replace(folder / MANIFEST_NAME)

    @classmethod
    def attach(cls, folder: Path) -> tuple[TableSpec, Self]:
        """Map the table in a folder, as it was left.

        Raises:
            StorageError: No table there, one of another format or size, or one that another process has mapped.
        """
        spec = _manifest(folder / MANIFEST_NAME)
        descriptor = _open(folder, os.O_RDWR)
        try:
            storage = cls(spec, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return spec, storage

    @property
    def mapped(self) -> bool:
        """Whether the bytes outlive the process."""
        return self._descriptor is not None

    def reserve(self, rows: int) -> None:
        """See to it that the first `rows` slots can be written; OSError where the file system is full."""
        if rows <= self.reserved_rows:
            return
        target = min(-(-rows // self._growth_rows) * self._growth_rows, self._capacity_rows)
        if self._descriptor is not None:
            for section in self._sections.values():
                if section.per_slot_bytes:
                    start = section.start + self.reserved_rows * section.per_slot_bytes
                    os.posix_fallocate(self._descriptor, start, (target - self.reserved_rows) * section.per_slot_bytes)
        self.reserved_rows = target

    def resident_bytes(self, rows: int) -> int:
        """Return the bytes of memory that the table takes with `rows` slots used: of its file, as the file system counts."""
        if self._descriptor is not None:
            return os.fstat(self._descriptor).st_blocks * 512
        fixed = sum(section.size_bytes for section in self._sections.values() if not section.per_slot_bytes)
        return fixed + rows * self._per_row_bytes

    def close(self) -> None:
        """Give the mapping and the file back; the arrays must not be used any more."""
        if self._map is None:
            return
        del self.memory
        # Somebody may still hold an array: then the mapping goes when that does.
        with suppress(BufferError):
            self._map.close()
        self._map = None
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _mapped(self) -> mmap.mmap:
        if self._descriptor is None:
            mapping = mmap.mmap(-1, self._size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        else:
            self._fit_file(self._descriptor)
            mapping = mmap.mmap(self._descriptor, self._size_bytes)
        # Random rows in 4 KiB pages miss the TLB every time.  Where the file system has no huge pages (a tmpfs mounted
        # without huge=advise), this asks in vain.
        if self._size_bytes >= HUGE_PAGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):
                mapping.madvise(mmap.MADV_HUGEPAGE)
        return mapping

    def _fit_file(self, descriptor: int) -> None:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes not in (0, self._size_bytes):
            raise StorageError(f"the table's file has {size_bytes:,} bytes where its spec asks for {self._size_bytes:,}")
        if size_bytes == 0:
            os.ftruncate(descriptor, self._size_bytes)
            for section in self._sections.values():
                # Of what grows with the rows, only the last slot: the list's sentinel lives in it.
                size_bytes = section.per_slot_bytes or section.size_bytes
                os.posix_fallocate(descriptor, section.start + section.size_bytes - size_bytes, size_bytes)

    def _arrays(self, spec: TableSpec) -> Memory:
        arrays = {name: self._array(section) for name, section in self._sections.items()}
        return Memory(
            links=arrays["slots"].view(np.uint32),
            values=arrays["state"].view(np.uint16) if spec.bytes_per_parameter == 2 else arrays["state"],
            **arrays,
        )

    def _array(self, section: Section) -> Array:
        assert self._map is not None
        return np.frombuffer(self._map, section.dtype, section.count, section.start)


def _open(folder: Path, flags: int) -> int:
    """Open a folder's data file, for this process alone; the lock goes with the process."""
    try:
        descriptor = os.open(folder / DATA_NAME, flags & ~os.O_TRUNC, 0o600)
    except FileNotFoundError:
        raise StorageError(f"{folder} holds no table") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StorageError(f"the table in {folder} is in use by another process") from None
    if flags & os.O_TRUNC:
        os.ftruncate(descriptor, 0)
    return descriptor


def _manifest(path: Path) -> TableSpec:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StorageError(f"{path.parent} holds no table: it has no {MANIFEST_NAME}") from None
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        raise StorageError(f"{path} is not of format {FORMAT_VERSION}, the only one known here")
    try:
        return TableSpec.from_json(manifest["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {error}") from error
