# ruff: noqa: RUF005  (kernels know no unpacking)
# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The selective scan in Triton: the forward pass, for real A.

A program walks along one sequence, or one chunk of it, with the states of a block of channels in registers. States lie
along the first axis of a tile and channels along the second, here and in memory, so that a thread holds all states of
its channels, and the sum over states in ``y = C · h`` never leaves it. Inputs of a few tokens are loaded ahead of their
use.

Where batch and channels give too few programs to fill the device, sequences are cut into chunks: a first pass computes
the state that each chunk would end with from zero, a second carries these through the chunks (the decay over a chunk is
exp(A · sum of its steps)), and the main pass then runs every chunk from the state that really enters it.

What a backward pass needs is made by the plain-torch path, which also computes it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._packing import sequence_offsets
from .._triton import LOG2_E, multiprocessors, silu, softplus
from . import chunked
from .arguments import Arguments
from .chunked import backward, entries_shape

__all__ = ["backward", "entries_shape", "forward"]

# Channels of a program, and tokens whose inputs are loaded together; fewer where chunks give many small programs.
# docs/benchmarks.md has what was tried.
_CHANNELS = 32
_AHEAD = 4
_AHEAD_IN_CHUNKS = 2
_SHORTEST_CHUNK = 128


@triton.jit
def _advance(
    h, summed, u, delta, z, B, C, y, rate, bias, skip, B_here, C_here, first, way, start, steps, dim, state,
    channel, n, u_token, delta_token, z_token, B_token, C_token,
    TOKENS: tl.constexpr, EVEN: tl.constexpr, B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, SOFTPLUS: tl.constexpr, SUMMARY: tl.constexpr,
):  # fmt: skip
    """Take ``TOKENS`` steps from the step ``start``: load the inputs of all, then compute one after the other."""
    here, real = channel < dim, n < state
    us, dts, zs, Bs, Cs = (), (), (), (), ()
    for j in tl.static_range(TOKENS):
        t = first + (start + j) * way
        if EVEN:
            us = us + (tl.load(u + t * u_token + channel),)
            dts = dts + (tl.load(delta + t * delta_token + channel),)
            if HAS_Z and not SUMMARY:
                zs = zs + (tl.load(z + t * z_token + channel),)
            if not B_CONSTANT:
                Bs = Bs + (tl.load(B + t * B_token + n),)
            if not C_CONSTANT and not SUMMARY:
                Cs = Cs + (tl.load(C + t * C_token + n),)
        else:
            us = us + (tl.load(u + t * u_token + channel, here, 0.0),)
            dts = dts + (tl.load(delta + t * delta_token + channel, here, 0.0),)
            if HAS_Z and not SUMMARY:
                zs = zs + (tl.load(z + t * z_token + channel, here, 0.0),)
            if not B_CONSTANT:
                Bs = Bs + (tl.load(B + t * B_token + n, real, 0.0),)
            if not C_CONSTANT and not SUMMARY:
                Cs = Cs + (tl.load(C + t * C_token + n, real, 0.0),)
    for j in tl.static_range(TOKENS):
        u_t = us[j].to(tl.float32)
        dt = dts[j].to(tl.float32) + bias
        if SOFTPLUS:
            dt = softplus(dt)
        B_t, C_t = B_here, C_here
        if not B_CONSTANT:
            B_t = Bs[j].to(tl.float32)[:, None]
        h = tl.exp2(dt[None, :] * rate) * h + (dt * u_t)[None, :] * B_t
        if SUMMARY:
            summed += dt
        else:
            if not C_CONSTANT:
                C_t = Cs[j].to(tl.float32)[:, None]
            out = tl.sum(h * C_t, axis=0)
            if HAS_D:
                out += skip * u_t
            if HAS_Z:
                out *= silu(zs[j].to(tl.float32))
            place = y + (first + (start + j) * way) * dim + channel
            if EVEN:
                tl.store(place, out.to(y.dtype.element_ty))
            else:
                tl.store(place, out.to(y.dtype.element_ty), here)
    return h, summed


@triton.jit
def _walk(
    u, delta, A, B, C, D, z, delta_bias, entering, cu_seqlens, y, leaving, total_dt,
    length, dim, state, chunk, chunks, channel_blocks, group_size,
    u_batch, u_token, delta_batch, delta_token, z_batch, z_token,
    B_batch, B_token, B_group, C_batch, C_token, C_group,
    STATES: tl.constexpr, CHANNELS: tl.constexpr, AHEAD: tl.constexpr, EVEN: tl.constexpr,
    B_CONSTANT: tl.constexpr, C_CONSTANT: tl.constexpr,
    HAS_D: tl.constexpr, HAS_Z: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_ENTERING: tl.constexpr,
    SOFTPLUS: tl.constexpr, PACKED: tl.constexpr, REVERSE: tl.constexpr, SUMMARY: tl.constexpr,
):  # fmt: skip
    """One chunk of one sequence and a block of channels; with ``SUMMARY`` its last state and sum of steps alone."""
    program = tl.program_id(0).to(tl.int64)
    block, row = program % channel_blocks, program // channel_blocks
    sequence, part = row // chunks, row % chunks
    if PACKED:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        tokens = tl.load(cu_seqlens + sequence + 1).to(tl.int64) - begin
        batch = tl.zeros_like(sequence)
    else:
        begin, tokens, batch = tl.zeros_like(sequence), length.to(tl.int64), sequence
    # The scan's order: step s is token first + s * way.
    first = begin + part * chunk
    way = 1
    if REVERSE:
        first = begin + tokens - 1 - part * chunk
        way = -1
    steps = tl.minimum(chunk, tokens - part * chunk)

    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    here = channel < dim
    n = tl.arange(0, STATES)
    tile = n[:, None] * dim + channel[None, :]
    inside = (n < state)[:, None] & here[None, :]
    rate = tl.load(A + tile, inside, 0.0).to(tl.float32) * LOG2_E
    h = tl.zeros((STATES, CHANNELS), tl.float32)
    if HAS_ENTERING:
        h = tl.load(entering + row * dim * state + tile, inside, 0.0).to(tl.float32)
    bias = tl.zeros((CHANNELS,), tl.float32)
    if HAS_BIAS:
        bias = tl.load(delta_bias + channel, here, 0.0).to(tl.float32)
    skip = bias
    if HAS_D:
        skip = tl.load(D + channel, here, 0.0).to(tl.float32)
    group = (block * CHANNELS) // group_size
    B_here = rate
    C_here = rate
    if B_CONSTANT:
        B_here = tl.load(B + tile, inside, 0.0).to(tl.float32)
    if C_CONSTANT:
        C_here = tl.load(C + tile, inside, 0.0).to(tl.float32)
    B += batch * B_batch + group * B_group
    C += batch * C_batch + group * C_group
    u += batch * u_batch
    delta += batch * delta_batch
    z += batch * z_batch
    y += batch * length * dim
    summed = tl.zeros((CHANNELS,), tl.float32)

    whole = steps // AHEAD * AHEAD
    for start in range(0, whole, AHEAD):
        h, summed = _advance(
            h, summed, u, delta, z, B, C, y, rate, bias, skip, B_here, C_here, first, way, start, steps, dim, state,
            channel, n, u_token, delta_token, z_token, B_token, C_token, AHEAD, EVEN, B_CONSTANT, C_CONSTANT,
            HAS_D, HAS_Z, SOFTPLUS, SUMMARY,
        )  # fmt: skip
    for start in range(whole, steps):
        h, summed = _advance(
            h, summed, u, delta, z, B, C, y, rate, bias, skip, B_here, C_here, first, way, start, steps, dim, state,
            channel, n, u_token, delta_token, z_token, B_token, C_token, 1, EVEN, B_CONSTANT, C_CONSTANT,
            HAS_D, HAS_Z, SOFTPLUS, SUMMARY,
        )  # fmt: skip

    if SUMMARY:
        tl.store(leaving + row * dim * state + tile, h, inside)
        tl.store(total_dt + row * dim + channel, summed, here)
    elif part == chunks - 1:
        tl.store(leaving + sequence * dim * state + tile, h, inside)


@triton.jit
def _carry(A, initial, total_dt, states, dim, state, chunks, channel_blocks,
           STATES: tl.constexpr, CHANNELS: tl.constexpr, HAS_INITIAL: tl.constexpr):  # fmt: skip
    """Turn the states that chunks end with from zero into the states that really enter them, in place."""
    program = tl.program_id(0).to(tl.int64)
    block, sequence = program % channel_blocks, program // channel_blocks
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    here = channel < dim
    n = tl.arange(0, STATES)
    tile = n[:, None] * dim + channel[None, :]
    inside = (n < state)[:, None] & here[None, :]
    rate = tl.load(A + tile, inside, 0.0).to(tl.float32) * LOG2_E
    h = tl.zeros((STATES, CHANNELS), tl.float32)
    if HAS_INITIAL:
        h = tl.load(initial + sequence * dim * state + tile, inside, 0.0).to(tl.float32)
    for part in range(chunks):
        row = sequence * chunks + part
        own = tl.load(states + row * dim * state + tile, inside, 0.0)
        dt = tl.load(total_dt + row * dim + channel, here, 0.0)
        tl.store(states + row * dim * state + tile, h, inside)
        h = tl.exp2(dt[None, :] * rate) * h + own


def forward(arguments: Arguments, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and (where ``save``) the states before each block of the plain-torch path."""
    if save:
        return chunked.forward(arguments, save)
    u, cu_seqlens = arguments.u, arguments.cu_seqlens
    batch, length, dim = u.shape
    state = arguments.A.shape[1]
    sequences = arguments.sequences
    if cu_seqlens is not None:
        sequence_offsets("selective_scan", cu_seqlens, batch, length)  # checks the values
    group_size = dim // arguments.groups
    states = triton.next_power_of_2(state)
    channels = _channels(dim, group_size)
    channel_blocks = triton.cdiv(dim, channels)
    chunk, chunks = _chunks(length, sequences * channel_blocks, cu_seqlens is not None, u.device)
    ahead = _AHEAD if chunks == 1 else _AHEAD_IN_CHUNKS

    u, delta, z = (_rows(tensor) for tensor in (u, arguments.delta, arguments.z))
    A = _channels_last(arguments.A)
    # In float32 at once: they are small, and every program would have to convert them again.
    B, C = (_channels_last(m) if m.ndim == 2 else _rows(m.float()) for m in (arguments.B, arguments.C))
    vectors = [None if v is None else v.contiguous() for v in (arguments.D, arguments.delta_bias)]
    initial = None if arguments.initial_state is None else _channels_last(arguments.initial_state)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    final = u.new_empty((sequences, state, dim), dtype=torch.float32)
    nothing = u.new_empty((0,))
    entering, total_dt = initial, nothing
    if not length or not sequences:
        final = final.zero_() if initial is None else initial
        return y, final.mT.contiguous(), final.new_empty((0, *entries_shape(arguments)[1:]))

    def walk(entering: Tensor | None, leaving: Tensor, total_dt: Tensor, summary: bool) -> None:
        _walk[(sequences * chunks * channel_blocks,)](
            u, delta, A, B, C, _or(vectors[0], u), _or(z, u), _or(vectors[1], u), _or(entering, u),
            _or(cu_seqlens, u), y, leaving, total_dt,
            length, dim, state, chunk, chunks, channel_blocks, group_size,
            *u.stride()[:2], *delta.stride()[:2], *_or(z, u).stride()[:2], *_strides(B), *_strides(C),
            STATES=states, CHANNELS=channels, AHEAD=ahead, EVEN=dim % channels == 0 and states == state,
            B_CONSTANT=B.ndim == 2, C_CONSTANT=C.ndim == 2,
            HAS_D=vectors[0] is not None, HAS_Z=z is not None, HAS_BIAS=vectors[1] is not None,
            HAS_ENTERING=entering is not None, SOFTPLUS=arguments.delta_softplus,
            PACKED=cu_seqlens is not None, REVERSE=arguments.reverse, SUMMARY=summary,
            num_warps=_warps(states, channels),
        )  # fmt: skip

    if chunks > 1:
        entering = u.new_empty((sequences * chunks, state, dim), dtype=torch.float32)
        total_dt = u.new_empty((sequences * chunks, dim), dtype=torch.float32)
        walk(None, entering, total_dt, summary=True)
        _carry[(sequences * channel_blocks,)](
            A, _or(initial, u), total_dt, entering, dim, state, chunks, channel_blocks,
            STATES=states, CHANNELS=channels, HAS_INITIAL=initial is not None, num_warps=_warps(states, channels),
        )  # fmt: skip
    walk(entering, final, nothing, summary=False)
    return y, final.mT.contiguous(), final.new_empty((0, *entries_shape(arguments)[1:]))


def _channels(dim: int, group_size: int) -> int:
    """Channels of a program, all of one group."""
    channels = min(_CHANNELS, triton.next_power_of_2(dim))
    return channels if group_size == dim else min(channels, group_size & -group_size)  # its largest power of two


def _warps(states: int, channels: int) -> int:
    """So many that a thread holds 32 states at most."""
    return max(1, min(8, states * channels // 1024))


def _chunks(length: int, programs: int, packed: bool, device: torch.device) -> tuple[int, int]:
    """The length and the number of chunks of a sequence; packed sequences are chunks as they are."""
    wanted = 16 * multiprocessors(device.index or 0)
    if packed or 2 * programs > wanted or length < 2 * _SHORTEST_CHUNK:
        return max(length, 1), 1
    chunk = max(_SHORTEST_CHUNK, triton.cdiv(length * programs, wanted))
    return chunk, triton.cdiv(length, chunk)


def _channels_last(tensor: Tensor) -> Tensor:
    """(…, dim, state) as (…, state, dim), float32."""
    return tensor.mT.float().contiguous()


def _rows(tensor: Tensor | None) -> Tensor:
    """The tensor itself where its last axis lies close together in memory, else a copy."""
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()  # type: ignore[return-value]


def _strides(matrix: Tensor) -> tuple[int, int, int]:
    """Strides of batch, token and group of B or C."""
    if matrix.ndim == 2:
        return 0, 0, 0
    if matrix.ndim == 3:
        return matrix.stride(0), matrix.stride(1), 0
    return matrix.stride(0), matrix.stride(1), matrix.stride(2) if matrix.shape[2] > 1 else 0


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for an argument that is not read."""
    return other if tensor is None else tensor
