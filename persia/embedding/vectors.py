"""Vector instructions for kernels: sums of a few adjacent columns of rows that stay in registers over a whole bag.

A loop over columns inside a loop over a bag's ids writes its sum to memory after every id; these loops keep WIDTH columns in
registers meanwhile, which is several times as fast for narrow rows.  They are written for any processor: LLVM cuts a
vector to what the target has.

Shapes: rows [U, D], a bag of ids inverse[start:stop], out [..., D]; positions in `rows` and `out` count values, not bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from numba import types
from numba.core import cgutils as _cgutils
from numba.extending import intrinsic
from numba.np import arrayobj as _arrayobj

cgutils: Any = _cgutils  # numba's types do not cover what builds instructions
arrayobj: Any = _arrayobj
ir = cgutils.ir

Kernel: TypeAlias = Callable[..., Any]

# Columns that a loop takes at once: four, one and a quarter of the widest registers there are.
WIDE = 64
NARROW = 16
TINY = 4

_FLOAT = ir.FloatType()
_INT64 = ir.IntType(64)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return arrayobj.make_array(kind)(context, builder, array).data


def _vector_at(builder: Any, data: Any, position: Any, width: int) -> Any:
    """Return a pointer to the `width` floats that begin at a position."""
    return builder.bitcast(builder.gep(data, [position]), ir.VectorType(_FLOAT, width).as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    return builder.load(pointer, align=4)


def _spread(builder: Any, value: Any, width: int) -> Any:
    """Return a vector with the same float in every lane."""
    kind = ir.VectorType(_FLOAT, width)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), mask)


def _row_position(builder: Any, inverse: Any, occurrence: Any, columns: Any, column: Any) -> Any:
    row = builder.sext(builder.load(builder.gep(inverse, [occurrence])), _INT64)
    return builder.add(builder.mul(row, columns), column)


def _summing(width: int) -> Kernel:
    def sum_rows(_: Any, rows: Any, inverse: Any, start: Any, stop: Any, columns: Any, column: Any, scale: Any, out: Any, at: Any) -> Any:
        integer = types.int64
        signature = types.void(rows, inverse, integer, integer, integer, integer, types.float32, out, integer)

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            rows, inverse, start, stop, columns, column, scale, out, at = arguments
            source = _data(context, builder, signature.args[0], rows)
            places = _data(context, builder, signature.args[1], inverse)
            target = _data(context, builder, signature.args[7], out)
            total = cgutils.alloca_once_value(builder, ir.Constant(ir.VectorType(_FLOAT, width), [0.0] * width))
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(_INT64, 1), _INT64) as (occurrence, _):
                position = _row_position(builder, places, occurrence, columns, column)
                row = _load(builder, _vector_at(builder, source, position, width))
                builder.store(builder.fadd(builder.load(total), row), total)
            scaled = builder.fmul(builder.load(total), _spread(builder, scale, width))
            builder.store(scaled, _vector_at(builder, target, at, width), align=4)
            return context.get_dummy_value()

        return signature, build

    return sum_rows


def _adding(width: int) -> Kernel:
    def add_to_rows(
        _: Any, values: Any, at: Any, scale: Any, inverse: Any, start: Any, stop: Any, columns: Any, column: Any, rows: Any
    ) -> Any:
        integer = types.int64
        signature = types.void(values, integer, types.float32, inverse, integer, integer, integer, integer, rows)

        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, at, scale, inverse, start, stop, columns, column, rows = arguments
            source = _data(context, builder, signature.args[0], values)
            places = _data(context, builder, signature.args[3], inverse)
            target = _data(context, builder, signature.args[8], rows)
            value = _load(builder, _vector_at(builder, source, at, width))
            scaled = builder.fmul(value, _spread(builder, scale, width))
            with cgutils.for_range_slice(builder, start, stop, ir.Constant(_INT64, 1), _INT64) as (occurrence, _):
                position = _row_position(builder, places, occurrence, columns, column)
                pointer = _vector_at(builder, target, position, width)
                builder.store(builder.fadd(_load(builder, pointer), scaled), pointer, align=4)
            return context.get_dummy_value()

        return signature, build

    return add_to_rows


sum_wide: Kernel = intrinsic(_summing(WIDE))
sum_narrow: Kernel = intrinsic(_summing(NARROW))
sum_tiny: Kernel = intrinsic(_summing(TINY))
add_wide: Kernel = intrinsic(_adding(WIDE))
add_narrow: Kernel = intrinsic(_adding(NARROW))
add_tiny: Kernel = intrinsic(_adding(TINY))
