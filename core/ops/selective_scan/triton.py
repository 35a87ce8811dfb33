"""The selective scan on a GPU, in one direction or in both at once.

Where batch and channels give too few programs to fill the device, sequences are cut into chunks: one pass computes what
every chunk ends with, another carries that from chunk to chunk, and the main pass runs all chunks at once. The backward
pass does the same from the other end. docs/benchmarks.md has what else was tried.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from . import triton_plan
from .arguments import Arguments, Gradients
from .triton_backward import scan_backward
from .triton_forward import scan
from .triton_plan import MOST_STATES_BACKWARD, TOKENS_BACKWARD, Operands, or_, segment_of


def entries_shape(arguments: Arguments) -> tuple[int, ...]:
    """(segments of all sequences, dim, state): the states that a forward pass keeps for the backward pass."""
    batch, length, dim = arguments.u.shape
    segment = segment_of(arguments.A.shape[1])
    if arguments.cu_seqlens is None:
        return (batch * ((length + segment - 1) // segment), dim, arguments.A.shape[1])
    return (length // segment + arguments.sequences, dim, arguments.A.shape[1])


def entries_dtype(arguments: Arguments) -> torch.dtype:
    """Kept states have the range of float32, and no more digits than the inputs need."""
    return torch.float32 if arguments.u.dtype == torch.float32 else torch.bfloat16


def forward(arguments: Arguments, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and (where ``save``) the states before each segment."""
    y, (final,), (entries,) = run_forward((arguments,), save)
    return y, final, entries


def backward(arguments: Arguments, entries: Tensor, grad_y: Tensor, grad_final: Tensor | None) -> Gradients:
    """Gradients of all differentiable arguments; the same bits in every run."""
    (gradients,) = run_backward((arguments,), (entries,), grad_y, grad_final)
    return gradients


def run_forward(scans: tuple[Arguments, ...], save: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """One scan, or one from each end whose results are added; both then have the same options, and z."""
    first = scans[0]
    u, z, cu_seqlens = first.u, triton_plan.rows(first.z), first.cu_seqlens
    operands = [Operands.of(s) for s in scans]
    segment = segment_of(first.A.shape[1])
    plan = triton_plan.find(scans, operands, z, False, save, segment)
    y = torch.empty(u.shape, dtype=u.dtype, device=u.device)
    state_shape = (plan.sequences, plan.dim, plan.state)
    final = [torch.empty(state_shape, dtype=torch.float32, device=u.device) for _ in scans]
    shape = entries_shape(first) if save else (0, *state_shape[1:])
    entries = [torch.empty(shape, dtype=entries_dtype(first), device=u.device) for _ in scans]
    entering: list[Any] = [None if s.initial_state is None else s.initial_state.contiguous() for s in scans]
    if plan.chunks > 1:
        entering = plan.entering([o.u for o in operands], operands, z, entering, gradient=False)
    plan.launch(
        scan,
        (plan.grid, 1),
        (
            tuple(
                (o.u, o.delta, o.A, o.B, o.C, or_(o.D, u), or_(o.delta_bias, u), or_(before, u), after, kept)
                for o, before, after, kept in zip(operands, entering, final, entries, strict=True)
            ),
            or_(z, u), y, or_(cu_seqlens, u), plan.length, plan.dim, plan.chunk, plan.chunks, plan.pad,
            plan.columns, plan.group_size, plan.group_blocks, plan.segments, plan.strides, plan.z_strides[0],
        ),
        lambda: {
            "STRIDES": plan.token_strides, "Z": plan.z_strides[1], "Y": plan.dim,
            "B_CONSTANT": plan.constant[0], "C_CONSTANT": plan.constant[1],
            "HAS_D": operands[0].D is not None, "HAS_ENTERING": entering[0] is not None,
            "PACKED": cu_seqlens is not None, "SAVE": save, "SEGMENT": segment, **plan.options,
        },
    )  # fmt: skip
    return y, final, entries


def run_backward(
    scans: tuple[Arguments, ...], entries: tuple[Tensor, ...], grad_y: Tensor, grad_final: Tensor | None = None
) -> list[Gradients]:
    """Gradients for each direction; that of z, which they share, is with the first. Final states are of one scan."""
    state = scans[0].A.shape[1]
    segment = segment_of(state)
    if state <= MOST_STATES_BACKWARD:
        return _backward(scans, entries, grad_y, grad_final, segment, None)
    size = triton.cdiv(state, triton.cdiv(state, MOST_STATES_BACKWARD))
    groups = [slice(begin, begin + size) for begin in range(0, state, size)]
    found = [
        _backward(
            tuple(_some_states(scan, states) for scan in scans),
            tuple(e[..., states].contiguous() for e in entries),
            grad_y,
            None if grad_final is None else grad_final[..., states],
            segment,
            torch.float32,
        )
        for states in groups
    ]
    return [_all_states([of_group[index] for of_group in found]) for index in range(len(scans))]


def _some_states(scan: Arguments, states: slice) -> Arguments:
    """The scan of some of its states. The sum of all is the whole, if one of them has D."""
    initial = None if scan.initial_state is None else scan.initial_state[..., states]
    return scan._replace(
        A=scan.A[:, states],
        B=scan.B[..., states],
        C=scan.C[..., states],
        D=scan.D if states.start == 0 else None,
        initial_state=initial,
    )


def _all_states(groups: list[Gradients]) -> Gradients:
    """The gradients of a whole scan from those of its groups of states."""

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(group, name) for group in groups], dim=-1)

    def summed(name: str) -> Any:
        total = getattr(groups[0], name)
        for group in groups[1:]:
            total = total if total is None else total.add_(getattr(group, name))
        return total

    return Gradients(
        u=summed("u"),
        delta=summed("delta"),
        A=joined("A"),
        B=joined("B"),
        C=joined("C"),
        D=groups[0].D,
        z=summed("z"),
        delta_bias=summed("delta_bias"),
        initial_state=None if groups[0].initial_state is None else joined("initial_state"),
    )


def _backward(
    scans: tuple[Arguments, ...],
    entries: tuple[Tensor, ...],
    grad_y: Tensor,
    grad_final: Tensor | None,
    segment: int,
    dtype: torch.dtype | None,
) -> list[Gradients]:
    """Gradients, those of u, delta and z in ``dtype`` if it is given."""
    first = scans[0]
    u, z, cu_seqlens, grad_y = first.u, triton_plan.rows(first.z), first.cu_seqlens, triton_plan.rows(grad_y)
    operands = [Operands.of(s) for s in scans]
    plan = triton_plan.find(scans, operands, z, True, False, segment, (grad_y, grad_final, dtype))
    dim, state, constant = plan.dim, plan.state, plan.constant
    all_tokens = u.shape[0] * u.shape[1]

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=u.device)

    def like(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=u.device)

    grad_z = u if z is None else like(z)
    grad_u, grad_delta = [like(s.u) for s in scans], [like(s.delta) for s in scans]
    # Shares of the programs in the dtype of the inputs: there are many, and their rounding averages out.
    grad_BC = [empty(0 if all(constant) else plan.columns, all_tokens, 2, state, dtype=u.dtype) for _ in scans]
    # Of D, the bias, A, and constant B and C.
    rows = (3 if any(constant) else 1) * state + 2
    shares = [empty(plan.sequences * plan.chunks, rows, dim) for _ in scans]
    has_initial = first.initial_state is not None
    leaving = [empty(plan.sequences if has_initial else 0, dim, state) for _ in scans]
    kept = segment // TOKENS_BACKWARD * plan.channels * plan.padded
    scratch = empty(0 if plan.use_gluon else plan.grid * kept)
    entering: list[Any] = [grad_final if grad_final is None else grad_final.contiguous()] * len(scans)
    if plan.chunks > 1:
        entering = plan.entering([grad_y] * len(scans), operands, z, entering, gradient=True)
    plan.launch(
        scan_backward,
        (plan.grid, 1),
        (
            tuple(
                (o.u, o.delta, o.A, o.B, o.C, or_(o.D, u), or_(o.delta_bias, u), e, or_(before, u), *rest)
                for o, e, before, *rest in zip(
                    operands, entries, entering, grad_u, grad_delta, grad_BC, shares, leaving, strict=True
                )
            ),
            plan.strides, or_(z, u), grad_y, grad_z, or_(cu_seqlens, u), scratch,
            plan.length, dim, rows * dim, plan.chunk, plan.chunks, plan.pad, plan.columns, plan.group_size,
            plan.group_blocks, plan.group_columns, plan.turns, plan.segments, all_tokens, plan.z_strides[0],
            grad_y.stride(0),
        ),
        lambda: {
            "STRIDES": plan.token_strides, "Z": plan.z_strides[1], "GRAD_Y": grad_y.stride(1), "ROW": dim,
            "B_CONSTANT": constant[0], "C_CONSTANT": constant[1], "HAS_D": operands[0].D is not None,
            "HAS_ENTERING": entering[0] is not None, "HAS_LEAVING": has_initial,
            "PACKED": cu_seqlens is not None, "SEGMENT": segment, "SPLIT": u.dtype == torch.float32, **plan.options,
        },
    )  # fmt: skip
    gradients = []
    for index, one in enumerate(scans):
        grad_D, grad_bias, of_states = shares[index].sum(0).split((1, 1, rows - 2))
        of_A, *of_constants = of_states.view(-1, dim, state)
        gradients.append(
            Gradients(
                u=grad_u[index],
                delta=grad_delta[index],
                A=of_A,
                B=of_constants[0] if constant[0] else _add_shares(grad_BC[index][:, :, 0], one.B, one.groups),
                C=of_constants[1] if constant[1] else _add_shares(grad_BC[index][:, :, 1], one.C, one.groups),
                D=None if one.D is None else grad_D.view(dim),
                z=None if z is None or index > 0 else grad_z,
                delta_bias=None if one.delta_bias is None else grad_bias.view(dim),
                initial_state=leaving[index] if has_initial else None,
            )
        )
    return gradients


def _add_shares(shares: Tensor, matrix: Tensor, groups: int) -> Tensor:
    """The gradient of B or C, which may share what others have per group, from (columns, all tokens, state)."""
    if groups == 1:
        return shares.sum(0, dtype=matrix.dtype).view(matrix.shape)
    of_groups = shares.view(groups, -1, *shares.shape[1:]).sum(1, dtype=torch.float32)
    if matrix.ndim == 3 or matrix.shape[2] == 1:
        return of_groups.sum(0).view(matrix.shape)
    return of_groups.movedim(0, 1).reshape(matrix.shape)
