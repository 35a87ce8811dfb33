# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""Kernels whose data layout in registers is chosen by hand: one source, compiled by Gluon or by plain Triton.

Gluon, which is part of Triton, lays tensors out as a kernel says; where it is missing, and in Triton's interpreter,
layouts are None and Triton chooses. The functions here hide the difference.

The layouts serve scans over (channels, 4, states / 4): a warp holds 8 or 16 channels, and four lanes share the states
of a channel. Four tokens of a batch, (channels, 4), are spread over the same lanes for the elementwise part. Lanes
exchange values by shuffles: on the way through shared memory all of them would wait.
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
    from triton.experimental.gluon.language.nvidia.ampere import async_copy, mma_v2
except ImportError:  # an older Triton
    gluon = gl = async_copy = mma_v2 = None

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
def state_layout(states, channels, use_gluon):
    """(channels, 4, states / 4), the state itself: a thread has one or two channels, and a quarter of their states."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([channels // 8, 1, states // 4], [8, 4, 1], [1, 1, 1], [0, 1, 2])


@constexpr_function
def tile_layout(states, warps, use_gluon):
    """(channels, states), in the same lanes as in :func:`state_layout`."""
    if not use_gluon:
        return None
    return gl.BlockedLayout([channels_of_warp(states) // 8, states // 4], [8, 4], [warps, 1], [0, 1])


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
    """(tokens, 4, states / 4) of B or C as they are loaded: every element is in one lane, neighbours together."""
    if not use_gluon:
        return None
    lanes, each = 32 // tokens, max(1, states * tokens // 32)
    own = min(each, states // 4)
    return gl.BlockedLayout([1, each // own, own], [tokens, min(4, lanes), max(1, lanes // 4)], [1, 1, 1], [2, 1, 0])


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
    return gl.SwizzledSharedLayout(1, 1, 1, order=[2, 1, 0])


@triton.jit
def rows_memory(tokens: tl.constexpr, states: tl.constexpr, other, GLUON: tl.constexpr):
    """Shared memory for B or C of a batch in float32; ``other`` stands for it where layouts cannot be chosen."""
    if GLUON:
        return gl.allocate_shared_memory(tl.float32, [tokens, 4, states // 4], plain_memory_layout())
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
def widened(x, PAIRS: tl.constexpr, LAYOUT: tl.constexpr):
    """x in float32; ``PAIRS`` says that neighbours of a thread lie in one register, so that either takes one
    instruction."""
    if LAYOUT is not None and PAIRS and x.dtype == tl.bfloat16:
        return gl.inline_asm_elementwise(
            "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;", "=r,=r,r", [x], dtype=tl.float32, is_pure=True, pack=2
        )
    else:
        return x.to(tl.float32)


@triton.jit
def from_lane(x, lane, q: tl.constexpr, LAYOUT: tl.constexpr):
    """Column q of (channels, 4), in all four columns; ``lane`` holds 0 … 3 along them."""
    if LAYOUT is None:
        return tl.broadcast_to(tl.sum(tl.where(lane == q, x, 0.0), axis=1)[:, None], x.shape)
    else:
        # Lanes 8 q … 8 q + 7 hold the column: the low three bits of a lane stay as they are.
        return gl.inline_asm_elementwise(
            "shfl.sync.idx.b32 $0, $1, $2, 0x71f, 0xffffffff;",
            "=r,r,n",
            [x, 8 * q],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def four_sums(parts, first: tl.constexpr, lane, LAYOUT: tl.constexpr):
    """(channels, 4) with the sum of ``parts[first + i]``, (channels, 4), over its columns in column i."""
    if LAYOUT is None:
        total = tl.zeros_like(parts[first])
        for i in tl.static_range(4):
            total += tl.where(lane == i, tl.sum(parts[first + i], axis=1)[:, None], 0.0)
        return total
    else:
        odd, high = lane % 2 != 0, lane >= 2
        low = _pair_sums(parts[first], parts[first + 1], odd, "shfl.sync.bfly.b32 $0, $1, 8, 0x1f, 0xffffffff;")
        top = _pair_sums(parts[first + 2], parts[first + 3], odd, "shfl.sync.bfly.b32 $0, $1, 8, 0x1f, 0xffffffff;")
        return _pair_sums(low, top, high, "shfl.sync.bfly.b32 $0, $1, 16, 0x1f, 0xffffffff;")


@triton.jit
def _pair_sums(a, b, second, EXCHANGE: tl.constexpr):
    """Over two lanes that ``EXCHANGE`` values: the sum of a in the first, of b in the ``second``."""
    mine, other = tl.where(second, b, a), tl.where(second, a, b)
    return mine + gl.inline_asm_elementwise(EXCHANGE, "=r,r", [other], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def read(pointer, offsets, mask, MASKED: tl.constexpr):
    """Load, with zeros where the mask is false."""
    if MASKED:
        return tl.load(pointer + offsets, mask, 0.0)
    else:
        return tl.load(pointer + offsets)
