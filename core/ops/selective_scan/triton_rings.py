# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""Batches of inputs on their way into shared memory, ahead of the one that is computed.

Asynchronous copies hold no register, and no scoreboard: a load into registers shares one of six with the exponentials,
and a warp that waits for an exponential then waits for memory.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from .._gluon import async_copy, gl


@constexpr_function
def _copy_layout(columns, dtype, width):
    """(tokens, columns): ``width`` bytes of a row in a lane."""
    each = min(columns, width * 8 // dtype.primitive_bitwidth)
    return gl.BlockedLayout([1, each], [32 // min(32, columns // each), min(32, columns // each)], [1, 1], [1, 0])


@constexpr_function
def _ring_layout():
    return gl.SwizzledSharedLayout(1, 1, 1, order=[1, 0])


@triton.jit
def ring(like, STAGES: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr, WANTED: tl.constexpr):
    """Shared memory for ``STAGES`` batches (tokens, columns) of what a pointer points to; without, the pointer."""
    if WANTED:
        return gl.allocate_shared_memory(like.dtype.element_ty, [STAGES, TOKENS, COLUMNS], _ring_layout())
    else:
        return like


@triton.jit
def source(
    origin, STRIDE: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, WANTED: tl.constexpr
):
    """Pointers to a batch, (tokens, columns), and its tokens. Its first row is at ``origin``, and every row at a
    multiple of ``WIDTH`` bytes."""
    if WANTED:
        LAYOUT: tl.constexpr = _copy_layout(COLUMNS, origin.dtype.element_ty, WIDTH)
        token = gl.arange(0, TOKENS, gl.SliceLayout(1, LAYOUT))[:, None]
        column = gl.arange(0, COLUMNS, gl.SliceLayout(0, LAYOUT))[None, :]
        return tl.multiple_of(origin + (STRIDE * token + column), (1, WIDTH)), token
    else:
        return origin, origin


@triton.jit
def send(
    rings, sources, batch, start, steps,
    STAGES: tl.constexpr, STRIDES: tl.constexpr, WIDTHS: tl.constexpr, WANTED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Start copying a batch that begins at the step ``start``; ``STRIDES`` are those from step to step."""
    for i in tl.static_range(len(WANTED)):
        if WANTED[i]:
            pointers = tl.multiple_of(sources[i][0] + tl.cast(start, tl.int64) * STRIDES[i], (1, WIDTHS[i]))
            place = rings[i].index(batch % STAGES)
            if MASKED:
                async_copy.async_copy_global_to_shared(place, pointers, start + sources[i][1] < steps)
            else:
                async_copy.async_copy_global_to_shared(place, pointers)
    async_copy.commit_group()


@triton.jit
def wait(BATCHES: tl.constexpr):
    """Until all copies but those of the last so many batches that were sent are there."""
    async_copy.wait_group(BATCHES)


@triton.jit
def receive(ring, batch, STAGES: tl.constexpr, TOKENS: tl.constexpr, SPREAD: tl.constexpr):
    """A batch of u, delta, z or y, as a tuple of (channels, 4) for every four tokens."""
    found = ()
    for m in tl.static_range(TOKENS // 4):
        found = found + (ring.index(batch % STAGES).slice(4 * m, 4).permute((1, 0)).load(SPREAD),)
    return found


@triton.jit
def receive_rows(
    ring, batch, other,
    STAGES: tl.constexpr, TOKENS: tl.constexpr, STATES: tl.constexpr, WANTED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """A batch of B or C, (tokens, 4, states / 4); ``other`` where it is not on its way."""
    if WANTED:
        return ring.index(batch % STAGES).reshape((TOKENS, 4, STATES // 4)).load(ROWS)
    else:
        return other
