"""What kernels take: C-ordered, aligned, native arrays that are read-only in their type.

numba compiles a kernel anew for every combination of layout, alignment and writability, which takes seconds in the middle
of a run; arrays that arrive over the wire differ from local ones in just these.  All inputs pass through `readable` and all
outputs through `writable`, so that one compilation serves them all.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


def readable(name: str, array: Array, dtypes: tuple[npt.DTypeLike, ...], shape: tuple[int | None, ...]) -> Array:
    """Return a read-only view of an input, or of a copy where its layout does not suit.

    Args:
        name: What the array is called in complaints.
        array: The input.
        dtypes: The types it may have.
        shape: Its size along every axis; None where any will do.

    Raises:
        ValueError: Wrong type or shape.
    """
    _check(name, array, dtypes, shape)
    flags = array.flags
    if flags.c_contiguous and flags.aligned:
        if not flags.writeable:
            return array
        view = array.view()
    else:
        view = np.array(array, order="C")
    view.flags.writeable = False
    return view


def writable(name: str, array: Array | None, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Array:
    """Return the output as it was given, or a new one with arbitrary contents.

    Raises:
        ValueError: Wrong type or shape, or a kernel could not write into it.
    """
    if array is None:
        return np.empty(shape, dtype)
    _check(name, array, (dtype,), shape)
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError(f"{name} must be a C-ordered, aligned and writable array")
    return array


def _check(name: str, array: Array, dtypes: tuple[npt.DTypeLike, ...], shape: tuple[int | None, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be an array, not {type(array).__name__}")
    if array.dtype not in dtypes:
        wanted = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise ValueError(f"{name} must be {wanted}, not {array.dtype.name}")
    if array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], not {list(array.shape)}")
