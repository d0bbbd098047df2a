"""What numba's Python has no words for: cache prefetch, compiler fences, and fp16 in memory.

Each is an intrinsic that writes LLVM's own instruction into the calling kernel.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic as typed_intrinsic

# numba's own door to the instruction builder's types: one package less to depend on.
ir: Any = vars(cgutils)["ir"]

# A kernel calls an intrinsic without its first parameter, which type checkers do not know.
intrinsic: Any = typed_intrinsic

HALF_MAX = 65504.0  # larger values would become infinite in fp16, so they are stored as this


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of element `index` of a one-dimensional array; nothing is checked."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [index])


@intrinsic
def prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Ask for the cache line of `array[index]`; an address that is not there is harmless."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _pointer(context, builder, signature.args[0], *arguments)
        address = builder.bitcast(address, cgutils.voidptr_t)
        word = cgutils.int32_t
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [address.type], ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        )
        to_read, keep_near, data = word(0), word(3), word(1)
        builder.call(function, [address, to_read, keep_near, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), codegen


@intrinsic
def fence(typing_context: Any) -> Any:
    """Let no load or store cross this point in the compiled code.

    A killed process has carried out its instructions up to one of them and none after it, and what it has stored stays
    in the page cache; so the order of instructions is the order of what a successor can see, on any processor.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("acq_rel")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def store_value(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """Write float32 `value` to `array[index]`, rounded to the nearest fp16 where `array` holds fp16 as uint16."""
    is_half = array.dtype == types.uint16

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_value, index_value, value = arguments
        address = _pointer(context, builder, signature.args[0], array_value, index_value)
        if is_half:
            # Ordered comparisons: a value that is no number stays none, so that a diverged row can be seen.
            for comparison, bound in ((">", HALF_MAX), ("<", -HALF_MAX)):
                limit = ir.FloatType()(bound)
                value = builder.select(builder.fcmp_ordered(comparison, value, limit), limit, value)
            value = builder.bitcast(builder.fptrunc(value, ir.HalfType()), ir.IntType(16))
        builder.store(value, address)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.float32), codegen
