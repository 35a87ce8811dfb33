"""The selective scan on a CPU: compiled kernels on several threads, one task per part of the batch and channels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype
from .._packing import sequence_offsets
from .._sequences import Sequences, chunk_count, split
from .._threads import run_tasks
from .arguments import Arguments, Gradients

# cpu_kernels.CHUNK, without importing numba; cpu_kernels asserts that they agree.
CHUNK = 64


def entries_shape(arguments: Arguments) -> tuple[int, ...]:
    """The state before every chunk of ``CHUNK`` tokens is kept for the backward pass."""
    sequences, (_, length, dim) = arguments.sequences, arguments.u.shape
    chunks = chunk_count(arguments.cu_seqlens is not None, sequences, length, CHUNK)
    return (chunks, arguments.A.shape[1], dim)


def entries_dtype(arguments: Arguments) -> torch.dtype:
    """That of the states."""
    return accumulation_dtype(arguments.u.dtype)


class _Prepared(NamedTuple):
    """The arguments as the kernels take them: arrays of one dtype, tokens in one axis, channels last."""

    sequences: Sequences
    blocks: list[tuple[int, int, int]]
    u: np.ndarray
    dt: np.ndarray
    A: np.ndarray
    B: np.ndarray
    C: np.ndarray
    B_constant: np.ndarray | None
    C_constant: np.ndarray | None
    skip: np.ndarray
    z: np.ndarray


def _prepare(arguments: Arguments) -> _Prepared:
    from .._numba_math import exponent_scale
    from .cpu_kernels import WIDTH

    u, A, z = arguments.u, arguments.A, arguments.z
    batch, length, dim = u.shape
    real = accumulation_dtype(u.dtype)
    rows = (batch * length, dim)

    dt = _raw_step(arguments)
    if arguments.delta_softplus:
        dt = F.softplus(dt)
    u_array = _array(u.to(real).reshape(rows))
    B, B_constant = _matrix(arguments.B, batch * length, arguments.groups, real)
    C, C_constant = _matrix(arguments.C, batch * length, arguments.groups, real)
    skip = u.new_zeros(dim, dtype=real) if arguments.D is None else arguments.D.to(real)

    groups = arguments.groups
    per_group = dim // groups
    blocks = [
        (group * per_group + start, min(WIDTH, per_group - start), group)
        for group in range(groups)
        for start in range(0, per_group, WIDTH)
    ]
    offsets = sequence_offsets("selective_scan", arguments.cu_seqlens, batch, length)
    return _Prepared(
        split(offsets, CHUNK),
        blocks,
        u_array,
        _array(dt.reshape(rows)),
        _array(A.to(real).T * exponent_scale(u_array.dtype)),
        B,
        C,
        B_constant,
        C_constant,
        _array(skip),
        u_array[:0] if z is None else _array(z.to(real).reshape(rows)),
    )


def _raw_step(arguments: Arguments) -> Tensor:
    """delta + delta_bias, before the softplus."""
    dt = arguments.delta.to(accumulation_dtype(arguments.u.dtype))
    return dt if arguments.delta_bias is None else dt + arguments.delta_bias.to(dt.dtype)


def _matrix(matrix: Tensor, tokens: int, groups: int, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray | None]:
    """B or C: as (tokens, groups, state) and None, or as nothing and (state, dim) where constant in time."""
    if matrix.ndim == 2:
        return _array(matrix.new_empty(0, 0, 0, dtype=dtype)), _array(matrix.to(dtype).T)
    return _array(matrix.to(dtype).reshape(tokens, -1, matrix.shape[-1]).expand(-1, groups, -1)), None


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def forward(arguments: Arguments, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and (where ``save``) the states before each chunk."""
    from .cpu_kernels import forward as kernel

    prepared = _prepare(arguments)
    u = arguments.u
    real = accumulation_dtype(u.dtype)
    dim, state = arguments.A.shape
    y = torch.empty(u.shape, dtype=real)
    final = torch.empty(arguments.sequences, state, dim, dtype=real)
    entries = torch.empty(entries_shape(arguments) if save else (0, state, dim), dtype=real)
    initial = torch.zeros_like(final) if arguments.initial_state is None else arguments.initial_state.mT.to(real)
    initial_array, y_array, final_array, entries_array = map(_array, (initial, y.view(-1, dim), final, entries))
    offsets, chunk_offsets, parts = prepared.sequences
    if save:
        entries[chunk_offsets[-1] :].zero_()

    def run(task: int) -> None:
        part, block = divmod(task, len(prepared.blocks))
        channel, width, group = prepared.blocks[block]
        kernel(
            parts[part],
            parts[part + 1],
            channel,
            width,
            group,
            offsets,
            chunk_offsets,
            arguments.reverse,
            prepared.u,
            prepared.dt,
            prepared.A,
            prepared.B,
            prepared.C,
            prepared.B_constant,
            prepared.C_constant,
            prepared.skip,
            prepared.z,
            arguments.z is not None,
            initial_array,
            y_array,
            final_array,
            entries_array,
            save,
        )

    run_tasks(run, (len(parts) - 1) * len(prepared.blocks))
    return y.to(u.dtype), final.mT.contiguous(), entries


def backward(arguments: Arguments, entries: Tensor, grad_y: Tensor, grad_final: Tensor | None) -> Gradients:
    """The gradients of all inputs, in the accumulation dtype; None for inputs that are absent."""
    from .cpu_kernels import backward as kernel

    prepared = _prepare(arguments)
    u, z = arguments.u, arguments.z
    batch, length, dim = u.shape
    real = accumulation_dtype(u.dtype)
    state = arguments.A.shape[1]
    groups = arguments.groups
    offsets, chunk_offsets, parts = prepared.sequences
    slots = len(prepared.blocks) // groups

    def empty(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=real)

    def partial(matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Room for the gradient of B or C: varying in time per slot, constant per part."""
        if matrix.ndim == 2:
            return empty(0, 0, 0, 0), empty(len(parts) - 1, state, dim)
        return empty(slots, batch * length, groups, state), empty(0, 0, 0)

    grad_u, grad_dt = empty(batch, length, dim), empty(batch, length, dim)
    grad_z = empty(0, length, dim) if z is None else empty(batch, length, dim)
    grad_A, grad_skip = empty(len(parts) - 1, state, dim), empty(len(parts) - 1, dim)
    grad_initial = empty(arguments.sequences, state, dim)
    (grad_B, grad_B_constant), (grad_C, grad_C_constant) = partial(arguments.B), partial(arguments.C)
    final = torch.zeros_like(grad_initial) if grad_final is None else grad_final.mT.to(real)
    given = [_array(tensor) for tensor in (entries, grad_y.to(real).reshape(-1, dim), final)]
    results = [
        _array(tensor)
        for tensor in (
            grad_u.view(-1, dim),
            grad_dt.view(-1, dim),
            grad_z.view(-1, dim),
            grad_A,
            grad_B,
            grad_C,
            grad_B_constant,
            grad_C_constant,
            grad_skip,
            grad_initial,
        )
    ]
    unscale = prepared.u.dtype.type(1.0 / _scale(prepared.u.dtype))

    def run(task: int) -> None:
        part, block = divmod(task, len(prepared.blocks))
        channel, width, group = prepared.blocks[block]
        kernel(
            parts[part],
            parts[part + 1],
            part,
            block % slots,
            channel,
            width,
            group,
            offsets,
            chunk_offsets,
            arguments.reverse,
            unscale,
            prepared.u,
            prepared.dt,
            prepared.A,
            prepared.B,
            prepared.C,
            prepared.B_constant,
            prepared.C_constant,
            prepared.skip,
            prepared.z,
            z is not None,
            *given,
            *results,
        )

    run_tasks(run, (len(parts) - 1) * len(prepared.blocks))

    if arguments.delta_softplus:
        grad_dt = torch.ops.aten.softplus_backward(grad_dt, _raw_step(arguments), 1.0, 20.0)

    def total(matrix: Tensor, varying: Tensor, constant: Tensor) -> Tensor:
        if matrix.ndim == 2:
            return constant.sum(0).T
        summed = varying.sum(0)
        if groups > 1 and matrix.shape[2:-1] in ((), (1,)):
            summed = summed.sum(1)
        return summed.view(matrix.shape)

    return Gradients(
        u=grad_u,
        delta=grad_dt,
        A=grad_A.sum(0).T,
        B=total(arguments.B, grad_B, grad_B_constant),
        C=total(arguments.C, grad_C, grad_C_constant),
        D=None if arguments.D is None else grad_skip.sum(0),
        z=None if z is None else grad_z,
        delta_bias=None if arguments.delta_bias is None else grad_dt.sum((0, 1)),
        initial_state=None if arguments.initial_state is None else grad_initial.mT,
    )


def _scale(dtype: np.dtype) -> float:
    from .._numba_math import exponent_scale

    return exponent_scale(dtype)
