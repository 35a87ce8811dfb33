"""The linear scan in plain PyTorch, block by block of tokens, for any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .._packing import PackedEnds, sequence_offsets
from .._two_level import scan_
from .arguments import Arguments

# Elements of one block (128 MiB in float32); about three tensors of that size live beside inputs and outputs.
_BUDGET = 1 << 25


def _blocks(arguments: Arguments) -> Iterator[tuple[int, int]]:
    """(begin, end) in scan order."""
    batch, length, dim = arguments.x.shape
    step = max(1, min(length, _BUDGET // (batch * dim)))
    for begin in range(0, length, step):
        end = min(begin + step, length)
        yield (length - end, length - begin) if arguments.reverse else (begin, end)


def _packed(arguments: Arguments) -> PackedEnds | None:
    if arguments.cu_seqlens is None:
        return None
    offsets = sequence_offsets("linear_scan", arguments.cu_seqlens, 1, arguments.x.shape[1])
    return PackedEnds(arguments.cu_seqlens, offsets, arguments.reverse)


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The states and the final states, in working precision."""
    a, x, initial_state, _, reverse = arguments
    dtype, packed = arguments.state_dtype, _packed(arguments)
    first, last = (-1, 0) if reverse else (0, -1)
    batch, _, dim = x.shape
    y = torch.empty(x.shape, dtype=dtype, device=x.device)
    final = x.new_zeros(arguments.sequences, dim, dtype=dtype)
    state = x.new_zeros(batch, dim, dtype=dtype)
    if packed is None and initial_state is not None:
        state = initial_state.to(dtype)
    for begin, end in _blocks(arguments):
        states = y[:, begin:end]
        states.copy_(x[:, begin:end])
        factors = torch.empty(states.shape, dtype=dtype, device=x.device).copy_(a[:, begin:end])
        starts = None if packed is None else packed.first_tokens(begin, end)
        if starts is not None:
            which, positions = starts
            if initial_state is not None:
                entering = factors[0].index_select(0, positions) * initial_state[which].to(dtype)
                states[0].index_add_(0, positions, entering)
            factors[0].index_fill_(0, positions, 0)
        states[:, first].addcmul_(factors[:, first], state)
        scan_(factors, states, reverse, product=factors)
        state = states[:, last]
        ends = None if packed is None else packed.last_tokens(begin, end)
        if ends is not None:
            final[ends[0]] = states[0].index_select(0, ends[1])
    return y, state.clone() if packed is None else final


def backward(
    arguments: Arguments, y: Tensor, grad_y: Tensor, grad_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of a, x and the initial state, in working precision; formulas in ``cpu_kernels.backward``."""
    a, x, initial_state, _, reverse = arguments
    dtype, packed = arguments.state_dtype, _packed(arguments)
    first, last = (-1, 0) if reverse else (0, -1)
    batch, length, dim = x.shape
    grad_a, grad_x = (torch.empty(x.shape, dtype=dtype, device=x.device) for _ in range(2))
    grad_initial = x.new_zeros(arguments.sequences, dim, dtype=dtype)
    initial = torch.zeros_like(grad_initial) if initial_state is None else initial_state.to(dtype)
    carry = x.new_zeros(batch, dim, dtype=dtype)
    if packed is None and grad_final is not None:
        carry = grad_final.to(dtype)
    for begin, end in reversed(list(_blocks(arguments))):
        adjoint = grad_x[:, begin:end]
        adjoint.copy_(grad_y[:, begin:end])
        # The adjoint of a state is carried by the factor of the next one; beyond the block the carry holds it.
        extended = torch.ones(batch, end - begin + 1, dim, dtype=dtype, device=x.device)
        factors, next_factors = (extended[:, 1:], extended[:, :-1]) if reverse else (extended[:, :-1], extended[:, 1:])
        factors.copy_(a[:, begin:end])
        if dtype.is_complex:
            torch.conj_physical_(extended)
        starts = None if packed is None else packed.first_tokens(begin, end)
        ends = None if packed is None else packed.last_tokens(begin, end)
        start_factors = None
        if starts is not None:
            start_factors = factors[0].index_select(0, starts[1])
            factors[0].index_fill_(0, starts[1], 0)
        if ends is not None and grad_final is not None:
            adjoint[0].index_add_(0, ends[1], grad_final[ends[0]].to(dtype))
        adjoint[:, last].add_(carry)
        # The block's own first factor belongs to the block before it: it is no part of next_factors.
        first_factor = factors[:, first].clone()
        scan_(next_factors, adjoint, not reverse, product=next_factors)
        carry = first_factor * adjoint[:, first]

        before = grad_a[:, begin:end]
        rest, previous = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        before[:, rest] = y[:, begin:end][:, previous]
        outside = end if reverse else begin - 1
        before[:, first] = y[:, outside] if 0 <= outside < length else (initial if packed is None else 0)
        if starts is not None and start_factors is not None:
            before[0].index_copy_(0, starts[1], initial[starts[0]])
            grad_initial[starts[0]] = start_factors * adjoint[0].index_select(0, starts[1])
        torch.mul(adjoint, before.conj(), out=before)
    return grad_a, grad_x, carry if packed is None else grad_initial
