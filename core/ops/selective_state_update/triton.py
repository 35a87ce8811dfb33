# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""One step of the selective scan in Triton: every number of the state is read and written once.

Nothing but the output is allocated and nothing is asked of the host, so a CUDA graph can hold the call. A program
holds the states of a few channels of one sequence. Sizes and strides, but those of the batch, are compiled in: with
few programs, computing addresses from them would take a good part of the time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import LOG2_E, ceil_div, power_of_two, silu, softplus
from .arguments import Arguments

# Of the state: in a program, for one sequence and for several, and in a thread.
_ELEMENTS = (256, 512)
_EACH = 4


@triton.jit
def _matrix(
    pointer, batch, channel, state, here, batch_stride, row_stride, channels_per_row,
    states, SHARED: tl.constexpr,
):  # fmt: skip
    """B or C for every channel and state: one row for all channels (SHARED), or one for each few of them."""
    if SHARED:
        place = batch * batch_stride + state[None, :]
        values = tl.load(pointer + place, (state < states)[None, :], 0.0)
    else:
        row = (channel // channels_per_row).to(tl.int64)[:, None]
        values = tl.load(pointer + batch * batch_stride + row * row_stride + state[None, :], here, 0.0)
    return values.to(tl.float32)


@triton.jit
def _step(
    state, u, delta, A, B, C, D, z, bias, y,
    state_batch, u_batch, delta_batch, z_batch, B_batch, C_batch,
    dim: tl.constexpr, states: tl.constexpr, state_channel: tl.constexpr, state_state: tl.constexpr,
    A_channel: tl.constexpr, A_state: tl.constexpr, B_row: tl.constexpr, B_channels: tl.constexpr,
    C_row: tl.constexpr, C_channels: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr, B_SHARED: tl.constexpr, C_SHARED: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, ALONE: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    if ALONE:
        batch = batch * 0  # known to the compiler, which then knows the addresses
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    number = tl.arange(0, STATES)
    known = channel < dim
    here = known[:, None] & (number < states)[None, :]
    place = state + batch * state_batch + channel.to(tl.int64)[:, None] * state_channel + number[None, :] * state_state
    before = tl.load(place, here, 0.0).to(tl.float32)
    rates = tl.load(A + channel.to(tl.int64)[:, None] * A_channel + number[None, :] * A_state, here, 0.0).to(tl.float32)
    x = tl.load(u + batch * u_batch + channel, known, 0.0).to(tl.float32)
    dt = tl.load(delta + batch * delta_batch + channel, known, 0.0).to(tl.float32)
    if HAS_BIAS:
        offset = tl.load(bias + channel, known, 0.0).to(tl.float32)
    entering = _matrix(B, batch, channel, number, here, B_batch, B_row, B_channels, states, B_SHARED)
    leaving = _matrix(C, batch, channel, number, here, C_batch, C_row, C_channels, states, C_SHARED)
    if HAS_D:
        skip = tl.load(D + channel, known, 0.0).to(tl.float32)
    if HAS_Z:
        gate = tl.load(z + batch * z_batch + channel, known, 0.0).to(tl.float32)
    if HAS_BIAS:
        dt += offset
    if SOFTPLUS:
        dt = softplus(dt)
    after = tl.exp2((dt * LOG2_E)[:, None] * rates) * before + (dt * x)[:, None] * entering
    after = after.to(state.dtype.element_ty)
    tl.store(place, after, here)
    total = tl.sum(tl.where(here, after.to(tl.float32) * leaving, 0.0), 1)
    if HAS_D:
        total += skip * x
    if HAS_Z:
        total *= silu(gate)
    tl.store(y + batch * dim + channel, total.to(y.dtype.element_ty), known)


def _adjacent(tensor: Tensor | None, like: Tensor) -> Tensor:
    """With neighbours of the last axis adjacent in memory; ``like`` stands in for what is None."""
    tensor = like if tensor is None else tensor
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _layout(matrix: Tensor, batch: int, dim: int) -> tuple[Tensor, int, int, int, bool]:
    """B or C, its strides along batch and rows, the channels that share a row, and whether all of them do."""
    matrix = _adjacent(matrix, matrix)
    if matrix.ndim == 3:
        groups = matrix.shape[1]
        return matrix, matrix.stride(0), matrix.stride(1), dim // groups, groups == 1
    if matrix.shape[0] == batch:
        return matrix, matrix.stride(0), 0, 1, True
    return matrix, 0, matrix.stride(0), 1, False


def run(arguments: Arguments) -> Tensor:
    """Advance the state in place and return y."""
    state, u, delta, A, B, C, D, z, bias, delta_softplus = arguments
    batch, dim = u.shape
    states = A.shape[1]
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    u, delta = _adjacent(u, u), _adjacent(delta, u)
    D, gate, offsets = (_adjacent(tensor, u) for tensor in (D, z, bias))
    B, B_batch, B_row, B_channels, B_shared = _layout(B, batch, dim)
    C, C_batch, C_row, C_channels, C_shared = _layout(C, batch, dim)
    width = power_of_two(states)
    channels = max(1, min(_ELEMENTS[batch > 1] // width, power_of_two(dim)))
    _step[(batch, ceil_div(dim, channels))](
        state, u, delta, A, B, C, D, gate, offsets, y,
        state.stride(0), u.stride(0), delta.stride(0), gate.stride(0), B_batch, C_batch,
        dim, states, *state.stride()[1:], *A.stride(), B_row, B_channels, C_row, C_channels,
        CHANNELS=channels, STATES=width, B_SHARED=B_shared, C_SHARED=C_shared,
        HAS_D=arguments.D is not None, HAS_Z=z is not None, HAS_BIAS=bias is not None, SOFTPLUS=delta_softplus,
        ALONE=batch == 1, num_warps=max(1, min(8, channels * width // (32 * _EACH))),
    )  # fmt: skip
    return y
