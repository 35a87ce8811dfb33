# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""Sums of tiles (channels, states) over their channels, the expensive part of the backward scan.

As a matrix product with ones they take the tensor cores (in float32 as two products of numbers that TF32 holds exactly,
or nearly so).
"""

from __future__ import annotations

import triton
import triton.language as tl

from .._gluon import arange, arrange, mma_v2, operand_layout, slice_of


@triton.jit
def _selector(j: tl.constexpr, TOKENS: tl.constexpr, WARPS: tl.constexpr):
    """(16, 8) that adds the first 8 rows into column j and the other 8 into column TOKENS + j."""
    k = arange(16, slice_of(operand_layout(1, WARPS), 1))[:, None]
    column = arange(2 * TOKENS, slice_of(operand_layout(1, WARPS), 0))[None, :]
    return tl.where(column == j + k // 8 * TOKENS, 1.0, 0.0)


@triton.jit
def _as_left(x_B, x_C, STATES: tl.constexpr, WARPS: tl.constexpr):
    """Two tiles (channels, states) as one matrix of rows (state, eighth channel) and columns (tile, other channels).

    The order is that in which the lanes hold them, so nothing moves.
    """
    x = tl.reshape(tl.join(x_B, x_C), (WARPS, 2, 4, 2, 4, STATES // 8, 2, 2))  # warp, c3, c2 c1, c0, n, n, n0, tile
    x = tl.permute(x, (5, 0, 6, 4, 1, 7, 3, 2))
    return arrange(tl.reshape(x, (2 * STATES * WARPS, 16)), operand_layout(0, WARPS))


@triton.jit
def add_channel_sums(
    sums, x_B, x_C,
    j: tl.constexpr, TOKENS: tl.constexpr, STATES: tl.constexpr, SPLIT: tl.constexpr, WARPS: tl.constexpr,
):  # fmt: skip
    """Add the sums over channels of two tiles into columns j and TOKENS + j."""
    left = _as_left(x_B, x_C, STATES, WARPS)
    right = _selector(j, TOKENS, WARPS)
    if SPLIT:
        head = (left.to(tl.int32, bitcast=True) & -8192).to(tl.float32, bitcast=True)  # the bits that TF32 keeps
        sums = mma_v2(left - head, right, sums, input_precision="tf32")
        left = head
    return mma_v2(left, right, sums, input_precision="tf32")


@triton.jit
def channel_sums(sums, TOKENS: tl.constexpr, STATES: tl.constexpr, WARPS: tl.constexpr):
    """(tokens, 2, states) from the accumulator: add up warps and the eighth channels."""
    x = tl.reshape(sums, (STATES // 8, WARPS, 2, 4, 2, 2, TOKENS))  # n, warp, n0, n, c3, tile, token
    x = tl.sum(tl.sum(x, axis=4), axis=1)  # n, n0, n, tile, token
    return tl.reshape(tl.permute(x, (4, 3, 2, 0, 1)), (TOKENS, 2, STATES))
