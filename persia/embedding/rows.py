"""Vector instructions for one row at a time: copying, and the arithmetic of the optimizers.

LLVM does not vectorise these loops by itself, since values, state and gradients might overlap; and a row is too short for
the checks and remainders of what it does vectorise.  Here a row is cut into spans of 16, 4 and 1 columns, the same on any
processor, so results do not depend on the machine: nothing is fused or reordered.

Shapes: D dimensions; `values` holds float32, or fp16 as uint16.  Positions count elements of their array from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from numba import types
from numba.core import cgutils
from numba.np import arrayobj

from persia.embedding.machine import HALF_MAX, intrinsic, ir

WIDTHS: Final = (16, 4, 1)
ADAGRAD_EPSILON: Final = 1e-10
ADAM_EPSILON: Final = 1e-8
ADAM_BETA_1: Final = 0.9
ADAM_BETA_2: Final = 0.999

_untyped: Any = cgutils  # numba's types do not cover what builds instructions
_arrays: Any = arrayobj
_FLOAT: Any = ir.FloatType()
_HALF: Any = ir.HalfType()
_INT64: Any = ir.IntType(64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Array:
    """An array's address and whether it holds fp16."""

    data: Any
    half: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Writes instructions for `width` columns from `column` on."""

    builder: Any
    width: int
    column: Any

    def kind(self, element: Any) -> Any:
        """Return the type of a span of elements; a span of one is no vector."""
        return element if self.width == 1 else ir.VectorType(element, self.width)

    def pointer(self, array: _Array, position: Any) -> Any:
        address = self.builder.gep(array.data, [self.builder.add(position, self.column)])
        return self.builder.bitcast(address, self.kind(_HALF if array.half else _FLOAT).as_pointer())

    def load(self, array: _Array, position: Any) -> Any:
        """Return the span of a row that begins at a position, as float32."""
        loaded = self.builder.load(self.pointer(array, position), align=2 if array.half else 4)
        return self.builder.fpext(loaded, self.kind(_FLOAT)) if array.half else loaded

    def store(self, value: Any, array: _Array, position: Any) -> None:
        """Write the span; what fp16 cannot hold becomes its largest number, and what is no number stays none."""
        if array.half:
            for comparison, bound in ((">", HALF_MAX), ("<", -HALF_MAX)):
                limit = self.constant(bound)
                value = self.builder.select(self.builder.fcmp_ordered(comparison, value, limit), limit, value)
            value = self.builder.fptrunc(value, self.kind(_HALF))
        self.builder.store(value, self.pointer(array, position), align=2 if array.half else 4)

    def constant(self, value: float) -> Any:
        return ir.Constant(self.kind(_FLOAT), value if self.width == 1 else [value] * self.width)

    def spread(self, value: Any) -> Any:
        """Return a float in every column."""
        if self.width == 1:
            return value
        undefined = ir.Constant(self.kind(_FLOAT), ir.Undefined)
        first = self.builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
        nowhere = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, nowhere)

    def sqrt(self, value: Any) -> Any:
        kind = self.kind(_FLOAT)
        name = "llvm.sqrt.f32" if self.width == 1 else f"llvm.sqrt.v{self.width}f32"
        return self.builder.call(_untyped.get_or_insert_function(self.builder.module, ir.FunctionType(kind, [kind]), name), [value])

    def sum(self, value: Any) -> Any:
        """Return the sum over the columns, halves onto halves."""
        width = self.width
        while width > 1:
            width //= 2
            first, second = (ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(k, k + width))) for k in (0, width))
            value = self.builder.fadd(self.builder.shuffle_vector(value, value, first), self.builder.shuffle_vector(value, value, second))
        zero = ir.Constant(ir.IntType(32), 0)
        return value if self.width == 1 else self.builder.extract_element(value, zero)

    def descend(self, values: _Array, start: Any, step: Any) -> None:
        """Subtract a step from the row's values."""
        self.store(self.builder.fsub(self.load(values, start), step), values, start)


def _spans(builder: Any, dim: Any) -> Iterator[_Span]:
    """Yield spans that cover `dim` columns, each in a loop of its own: what is written meanwhile is the loop's body."""
    begin: Any = ir.Constant(_INT64, 0)
    for width in WIDTHS:
        end = builder.and_(dim, ir.Constant(_INT64, -width))
        with cgutils.for_range_slice(builder, begin, end, ir.Constant(_INT64, width), _INT64) as (column, _):
            yield _Span(builder=builder, width=width, column=column)
        begin = end


def _written(kinds: tuple[Any, ...], write: Callable[..., None]) -> tuple[Any, Any]:
    """Return what an intrinsic returns: its type, and `write(builder, *arguments)` with arrays given as `_Array`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = [_array(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)]
        write(builder, *given)
        return context.get_dummy_value()

    return types.void(*kinds), codegen


def _array(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if not isinstance(kind, types.Array):
        return value
    return _Array(data=_arrays.make_array(kind)(context, builder, value).data, half=kind.dtype == types.uint16)


@intrinsic
def copy_row(_: Any, source: Any, start: Any, out: Any, at: Any, dim: Any) -> Any:
    """Copy `source[start : start + dim]` to `out[at : at + dim]`, each of float32 or of fp16 as uint16."""

    def write(builder: Any, source: Any, start: Any, out: Any, at: Any, dim: Any) -> None:
        for span in _spans(builder, dim):
            span.store(span.load(source, start), out, at)

    return _written((source, types.int64, out, types.int64, types.int64), write)


@intrinsic
def sgd_row(_: Any, values: Any, start: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> Any:
    """Take one step of stochastic gradient descent."""

    def write(builder: Any, values: Any, start: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
        for span in _spans(builder, dim):
            span.descend(values, start, builder.fmul(span.spread(rate), span.load(gradients, at)))

    return _written((values, types.int64, gradients, types.int64, types.int64, types.float32), write)


@intrinsic
def adagrad_row(_: Any, values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> Any:
    """Take one step of Adagrad: each element's squares are summed first (Duchi et al. 2011; torch.optim.Adagrad)."""

    def write(builder: Any, values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
        for span in _spans(builder, dim):
            gradient = span.load(gradients, at)
            total = builder.fadd(span.load(state, own), builder.fmul(gradient, gradient))
            span.store(total, state, own)
            size = builder.fadd(span.sqrt(total), span.constant(ADAGRAD_EPSILON))
            span.descend(values, start, builder.fmul(span.spread(rate), builder.fdiv(gradient, size)))

    return _written((values, types.int64, state, types.int64, gradients, types.int64, types.int64, types.float32), write)


@intrinsic
def adam_row(_: Any, values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> Any:
    """Take one step of Adam on this row alone: its moments begin the state, its squares follow (torch.optim.SparseAdam)."""

    def write(builder: Any, values: Any, start: Any, state: Any, own: Any, gradients: Any, at: Any, dim: Any, rate: Any) -> None:
        behind = builder.add(own, dim)
        for span in _spans(builder, dim):
            gradient = span.load(gradients, at)
            moment, square = span.load(state, own), span.load(state, behind)
            change = builder.fmul(builder.fsub(gradient, moment), span.constant(1.0 - ADAM_BETA_1))
            moment = builder.fadd(moment, change)
            change = builder.fmul(builder.fsub(builder.fmul(gradient, gradient), square), span.constant(1.0 - ADAM_BETA_2))
            square = builder.fadd(square, change)
            span.store(moment, state, own)
            span.store(square, state, behind)
            size = builder.fadd(span.sqrt(square), span.constant(ADAM_EPSILON))
            span.descend(values, start, builder.fmul(span.spread(rate), builder.fdiv(moment, size)))

    return _written((values, types.int64, state, types.int64, gradients, types.int64, types.int64, types.float32), write)


@intrinsic
def sum_of_squares(_: Any, gradients: Any, at: Any, dim: Any) -> Any:
    """Return the sum of the squares of `gradients[at : at + dim]`, as float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gradients, at, dim = arguments
        array = _array(context, builder, signature.args[0], gradients)
        total = _untyped.alloca_once_value(builder, ir.Constant(_FLOAT, 0.0))
        for span in _spans(builder, dim):
            value = span.load(array, at)
            builder.store(builder.fadd(builder.load(total), span.sum(builder.fmul(value, value))), total)
        return builder.load(total)

    return types.float32(gradients, types.int64, types.int64), codegen
