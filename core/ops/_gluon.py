# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""Kernels whose data layout in registers is chosen by hand: one source, compiled by Gluon or by plain Triton.

Gluon, which is part of Triton, lays tensors out as a kernel says; where it is missing, and in Triton's interpreter,
layouts are None and Triton chooses. The functions here hide the difference.

The layouts serve scans over a tile of (channels, states): a warp holds 8 or 16 channels, each channel's states lie in
four lanes, and a batch of tokens is spread over the same lanes for the elementwise part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from ._triton import LOG2_E

try:
    from triton.experimental import gluon
    from triton.experimental.gluon import language as gl
    from triton.experimental.gluon.language.nvidia.ampere import mma_v2
except ImportError:  # an older Triton
    gluon = gl = mma_v2 = None

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def compile_kernel(function: Callable[..., Any], gluon_too: bool, any_value: Sequence[str] = ()) -> Any:
    """The kernel of a Python function: for Gluon, which needs layouts, or for plain Triton, which needs None.

    It is compiled once for all values of the integers named in ``any_value``, and for others anew where they are 1 or
    multiples of 16.
    """
    compiler = gluon.jit if gluon_too else triton.jit
    return compiler(function, do_not_specialize=list(any_value))


def has_gluon(device_type: str) -> bool:
    """Whether layouts can be chosen: on an NVIDIA GPU of compute capability 8 or newer, not in the interpreter."""
    if gluon is None or INTERPRETED or device_type != "cuda":
        return False
    import torch

    return torch.version.hip is None and torch.cuda.get_device_capability()[0] >= 8


@constexpr_function
def channels_of_warp(states):
    """Channels whose states a warp holds: two of a thread, or one where a channel has many states."""
    return 16 if states <= 64 else 8


@constexpr_function
def tile_layout(states, warps, use_gluon):
    """(channels, states), the state itself: a thread has one or two channels, and a quarter of their states."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([channels_of_warp(states) // 8, states // 4], [8, 4], [warps, 1], [0, 1])


@constexpr_function
def spread_layout(states, tokens, warps, use_gluon):
    """(channels, tokens), the inputs of a batch of tokens: every element is in one thread."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([channels_of_warp(states) // 8, tokens // 4], [8, 4], [warps, 1], [0, 1])


@constexpr_function
def whole_layout(states, tokens, warps, use_gluon):
    """(channels, tokens): every thread has all tokens of the channels whose states it holds."""
    if not use_gluon:
        return None
    own = channels_of_warp(states) // 8
    return gl.DistributedLinearLayout(
        reg_bases=[[1, 0]] * (own - 1) + [[0, 1 << i] for i in range(tokens.bit_length() - 1)],
        lane_bases=[[own, 0], [2 * own, 0], [4 * own, 0], [0, 0], [0, 0]],
        warp_bases=[[8 * own << i, 0] for i in range(warps.bit_length() - 1)],
        block_bases=[],
        shape=[8 * own * warps, tokens],
    )


@constexpr_function
def slice_of(layout, axis):
    """The layout of what is broadcast along ``axis``."""
    return None if layout is None else gl.SliceLayout(axis, layout)


@constexpr_function
def product_layout(warps):
    """A matrix product's result."""
    return gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[warps, 1], instr_shape=[16, 8])


@constexpr_function
def operand_layout(index, warps):
    """Operand 0 or 1 of a matrix product in TF32."""
    product = gl.NVMMADistributedLayout(version=[2, 0], warps_per_cta=[warps, 1], instr_shape=[16, 8])
    return gl.DotOperandLayout(index, product, 1)


@constexpr_function
def rows_layout(states, tokens, use_gluon):
    """(tokens, states) of one warp, as they are loaded: every element is in one lane, neighbours together."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([1, max(1, states * tokens // 32)], [tokens, 32 // tokens], [1, 1], [1, 0])


@constexpr_function
def flat_layout(warps):
    """One axis, neighbours in neighbouring threads."""
    return gl.BlockedLayout([1], [32], [warps], [0])


@constexpr_function
def memory_layout():
    """Tiles in shared memory."""
    return gl.SwizzledSharedLayout(4, 1, 4, order=[1, 0])


@constexpr_function
def plain_memory_layout():
    """Rows in shared memory, to be taken one at a time."""
    return gl.SwizzledSharedLayout(1, 1, 1, order=[1, 0])


@triton.jit
def rows_memory(tokens: tl.constexpr, states: tl.constexpr, other, GLUON: tl.constexpr):
    """Shared memory for (tokens, states) in float32; ``other`` stands for it where layouts cannot be chosen."""
    if GLUON:
        return gl.allocate_shared_memory(tl.float32, [tokens, states], plain_memory_layout())
    else:
        return other


@triton.jit
def arange(size: tl.constexpr, LAYOUT: tl.constexpr):
    """0 … size - 1."""
    if LAYOUT is None:
        return tl.arange(0, size)
    else:
        return gl.arange(0, size, LAYOUT)


@triton.jit
def zeros(rows: tl.constexpr, columns: tl.constexpr, LAYOUT: tl.constexpr):
    """(rows, columns) zeros in float32."""
    if LAYOUT is None:
        return tl.zeros((rows, columns), tl.float32)
    else:
        return gl.full((rows, columns), 0.0, tl.float32, LAYOUT)


@triton.jit
def arrange(x, LAYOUT: tl.constexpr):
    """The same tensor in another layout."""
    if LAYOUT is None:
        return x
    else:
        return gl.convert_layout(x, LAYOUT)


@triton.jit
def reciprocal(x, LAYOUT: tl.constexpr):
    """1 / x to one unit in the last place."""
    if LAYOUT is None:
        return 1.0 / x
    else:
        return gl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def sigmoid(x, LAYOUT: tl.constexpr):
    """1 / (1 + exp(-x)); exp overflows to infinity for very negative x, which gives the right 0."""
    return reciprocal(1.0 + tl.exp2(x * -LOG2_E), LAYOUT)


@triton.jit
def columns(x, rows: tl.constexpr, count: tl.constexpr, LAYOUT: tl.constexpr):
    """The columns of (rows, count), each (rows,), as a tuple."""
    if count == 1:
        return (arrange(tl.reshape(x, (rows,)), LAYOUT),)
    else:
        left, right = tl.split(tl.permute(tl.reshape(x, (rows, 2, count // 2)), (0, 2, 1)))
        return columns(left, rows, count // 2, LAYOUT) + columns(right, rows, count // 2, LAYOUT)


@triton.jit
def columns_of_two(a, b, rows: tl.constexpr, count: tl.constexpr, WHOLE: tl.constexpr, LAYOUT: tl.constexpr):
    """:func:`columns` of two tensors that are spread, which are handed to the lanes of ``WHOLE`` together."""
    both = columns(arrange(tl.reshape(tl.join(a, b), (rows, 2 * count)), WHOLE), rows, 2 * count, LAYOUT)
    first, second = (), ()
    for j in tl.static_range(count):
        first, second = first + (both[2 * j],), second + (both[2 * j + 1],)
    return first, second


@triton.jit
def own_sum(x, rows: tl.constexpr, states: tl.constexpr):
    """Sum a tile (rows, states) over the states of each thread: (rows, 4), one column for each of four lanes."""
    return tl.sum(tl.reshape(x, (rows, 4, states // 4)), axis=2)


@triton.jit
def sum_lanes(parts, first: tl.constexpr, count: tl.constexpr, rows: tl.constexpr, LAYOUT: tl.constexpr):
    """Finish the sums of a tuple of :func:`own_sum`, all at once, as the columns of (rows, count)."""
    return arrange(tl.sum(_stack(parts, first, count, rows), axis=1), LAYOUT)


@triton.jit
def sum_lanes_of_two(a, b, count: tl.constexpr, rows: tl.constexpr, LAYOUT_OF_TWO: tl.constexpr, LAYOUT: tl.constexpr):
    """:func:`sum_lanes` of two tuples, through shared memory together."""
    parts = ()
    for j in tl.static_range(count):
        parts = parts + (a[j], b[j])
    both = tl.reshape(sum_lanes(parts, 0, 2 * count, rows, LAYOUT_OF_TWO), (rows, count, 2))
    first, second = tl.split(both)
    return arrange(first, LAYOUT), arrange(second, LAYOUT)


@triton.jit
def _stack(parts, first: tl.constexpr, count: tl.constexpr, rows: tl.constexpr):
    if count == 1:
        return tl.reshape(parts[first], (rows, 4, 1))
    else:
        left = _stack(parts, first, count // 2, rows)
        right = _stack(parts, first + count // 2, count // 2, rows)
        return tl.reshape(tl.permute(tl.join(left, right), (0, 1, 3, 2)), (rows, 4, count))


@triton.jit
def read(pointer, offsets, mask, MASKED: tl.constexpr):
    """Load, with zeros where the mask is false."""
    if MASKED:
        return tl.load(pointer + offsets, mask, 0.0)
    else:
        return tl.load(pointer + offsets)
