"""The selective scan on a GPU: what the kernels are launched with.

Where batch and channels give too few programs to fill the device, sequences are cut into chunks: one pass computes what
every chunk ends with, another carries that from chunk to chunk, and the main pass runs all chunks at once. The backward
pass does the same from the other end. docs/benchmarks.md has what else was tried.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
from torch import Tensor

from .._gluon import channels_of_warp, compile_kernel, has_gluon
from .._packing import sequence_offsets
from .._triton import multiprocessors
from . import chunked
from .arguments import Arguments, Gradients
from .triton_backward import scan_backward
from .triton_chunks import carry, summarize
from .triton_forward import scan

# Tokens whose elementwise part is computed together.
_TOKENS, _TOKENS_BACKWARD = 8, 4
# Sequences are cut into chunks below so many warps a multiprocessor, and then to give about so many.
_CHUNKING, _CHUNKING_BACKWARD = (3, 24), (6, 16)
# With more states the backward pass does not fit into registers, and the plain-torch path does it all.
_MOST_STATES_BACKWARD = 64


@functools.cache
def _kernel(function: Any, use_gluon: bool) -> Any:
    return compile_kernel(function, use_gluon)


def entries_shape(arguments: Arguments) -> tuple[int, ...]:
    """(segments of all sequences, dim, state): the states that a forward pass keeps for the backward pass."""
    if arguments.A.shape[1] > _MOST_STATES_BACKWARD:
        return chunked.entries_shape(arguments)
    batch, length, dim = arguments.u.shape
    segment = _segment(_padded(arguments.A.shape[1]))
    if arguments.cu_seqlens is None:
        return (batch * ((length + segment - 1) // segment), dim, arguments.A.shape[1])
    return (length // segment + arguments.sequences, dim, arguments.A.shape[1])


def forward(arguments: Arguments, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and (where ``save``) the states before each segment."""
    if save and arguments.A.shape[1] > _MOST_STATES_BACKWARD:
        return chunked.forward(arguments, save)
    plan = _Plan(arguments, _TOKENS, 1, _CHUNKING)
    u = arguments.u
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    final = torch.empty((arguments.sequences, plan.dim, plan.state), dtype=torch.float32, device=u.device)
    shape = entries_shape(arguments)
    entries = torch.empty(shape if save else (0, *shape[1:]), dtype=torch.float32, device=u.device)
    entering = arguments.initial_state
    if plan.chunks > 1:
        entering = plan.entering(plan.u, plan.B, entering, gradient=False)
    _kernel(scan, plan.use_gluon)[plan.grid](
        plan.u, plan.delta, plan.A, plan.B, plan.C, _or(plan.D, u), _or(plan.z, u), _or(plan.delta_bias, u),
        u if entering is None else entering.contiguous(), _or(arguments.cu_seqlens, u), y, final, entries,
        plan.length, plan.dim, plan.chunk, plan.chunks, *plan.blocks, plan.segments,
        plan.u.stride(0), plan.delta.stride(0), _or(plan.z, u).stride(0), *_strides(plan.B)[::2],
        *_strides(plan.C)[::2],
        U=plan.u.stride(1), DELTA=plan.delta.stride(1), Z=_or(plan.z, u).stride(1),
        B_TOKEN=_strides(plan.B)[1], C_TOKEN=_strides(plan.C)[1], Y=plan.dim,
        B_CONSTANT=plan.B.ndim == 2, C_CONSTANT=plan.C.ndim == 2,
        HAS_D=plan.D is not None, HAS_Z=plan.z is not None, HAS_ENTERING=entering is not None,
        PACKED=arguments.cu_seqlens is not None, SAVE=save, SEGMENT=_segment(plan.padded), **plan.options,
    )  # fmt: skip
    return y, final, entries


def backward(arguments: Arguments, entries: Tensor, grad_y: Tensor, grad_final: Tensor | None) -> Gradients:
    """Gradients of all differentiable arguments; the same bits in every run."""
    if arguments.A.shape[1] > _MOST_STATES_BACKWARD:
        return chunked.backward(arguments, entries, grad_y, grad_final)
    plan = _Plan(arguments, _TOKENS_BACKWARD, 1, _CHUNKING_BACKWARD)
    u, grad_y = arguments.u, _rows(grad_y)
    dim, state, use_gluon = plan.dim, plan.state, plan.use_gluon
    grad_u, grad_delta, grad_z = (
        u if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (u, arguments.delta, plan.z)
    )
    rows = arguments.sequences * plan.chunks
    constant = plan.B.ndim == 2, plan.C.ndim == 2
    all_tokens = u.shape[0] * u.shape[1]

    def partial(shape: Any, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=u.device)

    # Shares of the programs in the dtype of the inputs: there are many, and their rounding averages out.
    grad_BC = partial((0 if all(constant) else plan.blocks[0], all_tokens, 2, state), dtype=u.dtype)
    shares = partial((rows, (3 if any(constant) else 1) * state + 2, dim))  # of A, D, bias, and constant B and C
    leaving = partial((arguments.sequences, dim, state))
    segment = _segment(plan.padded)
    batches = segment // _TOKENS_BACKWARD
    scratch = partial(0 if use_gluon else plan.grid[0] * batches * plan.options["CHANNELS"] * plan.padded)
    entering = grad_final
    if plan.chunks > 1:
        entering = plan.entering(grad_y, plan.C, grad_final, gradient=True)
    _kernel(scan_backward, use_gluon)[plan.grid](
        plan.u, plan.delta, plan.A, plan.B, plan.C, _or(plan.D, u), _or(plan.z, u), _or(plan.delta_bias, u),
        entries, grad_y, u if entering is None else entering.contiguous(), _or(arguments.cu_seqlens, u), scratch,
        grad_u, grad_delta, grad_z, grad_BC, shares, leaving,
        plan.length, dim, shares.stride(0), plan.chunk, plan.chunks, *plan.blocks, plan.segments, all_tokens,
        plan.u.stride(0), plan.delta.stride(0), _or(plan.z, u).stride(0), *_strides(plan.B)[::2],
        *_strides(plan.C)[::2], grad_y.stride(0),
        U=plan.u.stride(1), DELTA=plan.delta.stride(1), Z=_or(plan.z, u).stride(1),
        B_TOKEN=_strides(plan.B)[1], C_TOKEN=_strides(plan.C)[1], GRAD_Y=grad_y.stride(1), ROW=dim,
        B_CONSTANT=constant[0], C_CONSTANT=constant[1],
        HAS_D=plan.D is not None, HAS_Z=plan.z is not None, HAS_ENTERING=entering is not None,
        PACKED=arguments.cu_seqlens is not None, SEGMENT=segment, SPLIT=u.dtype == torch.float32,
        **plan.options,
    )  # fmt: skip
    if not all(constant):
        grad_BC = grad_BC.view(arguments.groups, -1, *u.shape[:2], 2, state).sum(1, dtype=torch.float32).movedim(0, 2)
    grad_D, grad_bias, of_states = shares.sum(0).split((1, 1, shares.shape[1] - 2))
    of_A, *of_constants = of_states.view(-1, dim, state)
    return Gradients(
        u=grad_u,
        delta=grad_delta,
        A=of_A,
        B=of_constants[0] if constant[0] else _grouped(grad_BC[..., 0, :], arguments.B),
        C=of_constants[1] if constant[1] else _grouped(grad_BC[..., 1, :], arguments.C),
        D=None if plan.D is None else grad_D.view(dim),
        z=None if plan.z is None else grad_z,
        delta_bias=None if plan.delta_bias is None else grad_bias.view(dim),
        initial_state=None if arguments.initial_state is None else leaving,
    )


class _Plan:
    """The tensors as the kernels take them, and how the work is divided among programs."""

    def __init__(self, arguments: Arguments, tokens: int, warps: int, chunking: tuple[int, int]) -> None:
        u, cu_seqlens = arguments.u, arguments.cu_seqlens
        batch, self.length, self.dim = u.shape
        self.arguments, self.sequences = arguments, arguments.sequences
        if cu_seqlens is not None:
            sequence_offsets("selective_scan", cu_seqlens, batch, self.length)  # checks the values
        self.use_gluon = has_gluon(u.device.type)
        self.state = arguments.A.shape[1]
        self.padded = _padded(self.state)
        self.u, self.delta, self.z = _rows(u), _rows(arguments.delta), _rows(arguments.z)
        self.A = arguments.A.float().contiguous()
        self.B, self.C = (m.contiguous() if m.ndim == 2 else _rows(m) for m in (arguments.B, arguments.C))
        self.D, self.delta_bias = (None if v is None else v.contiguous() for v in (arguments.D, arguments.delta_bias))
        while warps > 1 and warps * channels_of_warp(self.padded) > self.dim // arguments.groups:
            warps //= 2
        channels = warps * channels_of_warp(self.padded)
        group_size = self.dim // arguments.groups
        group_blocks = triton.cdiv(group_size, channels)
        self.blocks = group_blocks * arguments.groups, group_size, group_blocks
        self.chunk, self.chunks = (
            (max(self.length, 1), 1)
            if cu_seqlens is not None
            else _chunks(
                self.length,
                self.sequences * self.blocks[0] * warps,
                _segment(self.padded),
                *chunking,
                u.device.index or 0,
            )
        )
        self.segments = triton.cdiv(self.length, _segment(self.padded))
        self.grid = (self.sequences * self.chunks * self.blocks[0],)
        self.options: dict[str, Any] = {
            "STATE": self.state,
            "STATES": self.padded,
            "CHANNELS": channels,
            "TOKENS": tokens,
            "EVEN": group_size % channels == 0 and self.state == self.padded,
            "HAS_BIAS": self.delta_bias is not None,
            "SOFTPLUS": arguments.delta_softplus,
            "REVERSE": arguments.reverse,
            "WARPS": warps,
            "GLUON": self.use_gluon,
            "num_warps": warps,
        }

    def entering(self, x: Tensor, rows: Tensor, first: Tensor | None, gradient: bool) -> Tensor:
        """What enters every chunk, (sequences * chunks, dim, state): states, or gradients from the other end."""
        u, others = self.arguments.u, self.chunks - 1
        ends = torch.empty((self.sequences * self.chunks, self.dim, self.state), dtype=torch.float32, device=u.device)
        total_dt = torch.empty((self.sequences * self.chunks, self.dim), dtype=torch.float32, device=u.device)
        _kernel(summarize, self.use_gluon)[(self.sequences * others * self.blocks[0],)](
            x, self.delta, self.A, rows, _or(self.z, u), _or(self.delta_bias, u), u, ends, total_dt,
            self.length, self.dim, self.chunk, others, int(gradient), *self.blocks,
            x.stride(0), self.delta.stride(0), _or(self.z, u).stride(0), *_strides(rows)[::2],
            X=x.stride(1), DELTA=self.delta.stride(1), Z=_or(self.z, u).stride(1), ROWS=_strides(rows)[1],
            CONSTANT=rows.ndim == 2, HAS_Z=self.z is not None, GRADIENT=gradient, **self.options,
        )  # fmt: skip
        elements = self.dim * self.state
        carry[(self.sequences * triton.cdiv(elements, 128),)](
            self.A, u if first is None else first.contiguous(), total_dt, ends,
            elements, self.dim, self.state, self.chunks,
            ELEMENTS=128, HAS_INITIAL=first is not None, BACKWARDS=gradient, num_warps=4,
        )  # fmt: skip
        return ends


def _chunks(length: int, warps: int, segment: int, least: int, wanted: int, device: int) -> tuple[int, int]:
    """The length and the number of chunks of a sequence, for so many warps without chunks."""
    processors = multiprocessors(device)
    if warps >= least * processors or length < 8 * segment:
        return max(length, 1), 1
    chunk = max(4 * segment, triton.cdiv(triton.cdiv(length * warps, wanted * processors), segment) * segment)
    return chunk, triton.cdiv(length, chunk)


def _padded(state: int) -> int:
    """Tiles have four lanes of at least two states."""
    return max(8, triton.next_power_of_2(state))


def _segment(states: int) -> int:
    """Tokens between two saved states; what the backward pass keeps of them fits into shared memory."""
    return max(16, min(64, 1024 // states))


def _rows(tensor: Any) -> Any:
    """The tensor itself where its last axis lies close together in memory, else a copy."""
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()


def _strides(matrix: Tensor) -> tuple[int, int, int]:
    """Strides of batch, token and group of B or C."""
    if matrix.ndim == 2:
        return 0, 0, 0
    if matrix.ndim == 3:
        return matrix.stride(0), matrix.stride(1), 0
    return matrix.stride(0), matrix.stride(1), matrix.stride(2) if matrix.shape[2] > 1 else 0


def _grouped(gradient: Tensor, matrix: Tensor) -> Tensor:
    """(batch, length, groups, state) in the shape of B or C, which may share what others have per group."""
    if matrix.ndim == 3 or matrix.shape[2] == 1:
        gradient = gradient.sum(2, keepdim=True)
    return gradient.reshape(matrix.shape)


def _or(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for an argument that is not read."""
    return other if tensor is None else tensor
