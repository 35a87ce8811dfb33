"""The selective scan in plain PyTorch, block by block: for any device, and for complex A.

A block holds as many tokens as fit a fixed amount of memory; the states inside it are recomputed in the backward pass
from the state that entered it. Tensors inside a block are (batch, tokens, groups, channels per group, state).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .._dtypes import accumulation_dtype, complex_dtype
from .._packing import PackedEnds, sequence_offsets
from .._two_level import scan_
from .arguments import Arguments, Gradients

# Elements of one tensor of states inside a block (128 MiB in float32); about five such tensors live at once.
_BUDGET = 1 << 25
_MAX_BLOCK = 4096


def entries_shape(arguments: Arguments) -> tuple[int, ...]:
    """The state before every block is kept for the backward pass, with room for one or two blocks more.

    So the size is never 1, which a graph being compiled would hold to be a broadcast axis and fix for good.
    """
    batch, length, dim = arguments.u.shape
    return (length // _block_length(arguments) + 2, batch, dim, arguments.A.shape[1])


def entries_dtype(arguments: Arguments) -> torch.dtype:
    """That of the states."""
    real = accumulation_dtype(arguments.u.dtype)
    return complex_dtype(real) if arguments.A.is_complex() else real


def _block_length(arguments: Arguments) -> int:
    batch, _, dim = arguments.u.shape
    per_token = batch * dim * arguments.A.shape[1] * (2 if arguments.A.is_complex() else 1)
    # These, unlike min and max, also take the symbolic sizes of a graph being compiled.
    return torch.sym_max(1, torch.sym_min(_MAX_BLOCK, _BUDGET // per_token))


class _Scan:
    """What the forward and the backward pass share: the arguments in working precision, cut into blocks."""

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        u, A = arguments.u, arguments.A
        self.real = accumulation_dtype(u.dtype)
        self.dtype = entries_dtype(arguments)
        self.batch, self.length, self.dim = u.shape
        self.groups = arguments.groups
        self.state = A.shape[1]
        self.reverse = arguments.reverse
        self.A = self.grouped(A.to(self.dtype), 0)
        self.packed = None
        if arguments.cu_seqlens is not None:
            offsets = sequence_offsets("selective_scan", arguments.cu_seqlens, self.batch, self.length)
            self.packed = PackedEnds(arguments.cu_seqlens, offsets, self.reverse)

    def grouped(self, tensor: Tensor, axis: int) -> Tensor:
        """Split the channel axis into (groups, channels per group)."""
        return tensor.unflatten(axis, (self.groups, self.dim // self.groups))

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(begin, end) in scan order."""
        step = _block_length(self.arguments)
        for begin in range(0, self.length, step):
            end = min(begin + step, self.length)
            yield (self.length - end, self.length - begin) if self.reverse else (begin, end)

    def tokens(self, tensor: Tensor, begin: int, end: int) -> Tensor:
        """(batch, length, dim) cut to the block, as (batch, tokens, groups, channels)."""
        return self.grouped(tensor[:, begin:end].to(self.real), 2)

    def raw_step(self, begin: int, end: int) -> Tensor:
        """delta + delta_bias, before the softplus."""
        raw = self.tokens(self.arguments.delta, begin, end)
        bias = self.arguments.delta_bias
        return raw if bias is None else raw + self.grouped(bias.to(self.real), 0)

    def step(self, begin: int, end: int) -> Tensor:
        raw = self.raw_step(begin, end)
        return F.softplus(raw) if self.arguments.delta_softplus else raw

    def matrix(self, matrix: Tensor, begin: int, end: int) -> Tensor:
        """B or C as (batch, tokens, groups or 1, 1, state), or (groups, channels, state) where constant in time."""
        matrix = matrix.to(self.dtype)
        if matrix.ndim == 2:
            return self.grouped(matrix, 0)
        part = matrix[:, begin:end]
        return part[:, :, None, None] if matrix.ndim == 3 else part[:, :, :, None]

    def first_tokens(self, begin: int, end: int) -> tuple[slice, Tensor] | None:
        return None if self.packed is None else self.packed.first_tokens(begin, end)

    def last_tokens(self, begin: int, end: int) -> tuple[slice, Tensor] | None:
        return None if self.packed is None else self.packed.last_tokens(begin, end)

    def initial(self, which: slice = slice(None)) -> Tensor | None:
        state = self.arguments.initial_state
        return None if state is None else self.grouped(state[which].to(self.dtype), 1)

    def states(self, factors: Tensor, x: Tensor, before: Tensor, begin: int, end: int, product: Tensor | None) -> None:
        """Turn ``x``, the inputs of the block, into its states, and drop what packed sequences must not carry over.

        ``factors`` is set to 0 at their first tokens. ``before`` is the state that enters the block.
        """
        marked = self.first_tokens(begin, end)
        if marked is not None:
            which, positions = marked
            initial = self.initial(which)
            if initial is not None:
                x[0].index_add_(0, positions, factors[0].index_select(0, positions) * initial)
            factors[0].index_fill_(0, positions, 0)
        first = -1 if self.reverse else 0
        x[:, first].addcmul_(factors[:, first], before)
        scan_(factors, x, self.reverse, product)

    def read(self, states: Tensor, C: Tensor) -> Tensor:
        """sum_n C h, doubled and real where complex: (batch, tokens, groups, channels)."""
        y = (states * C).sum(-1) if C.ndim == 3 else (states @ C.mT).squeeze(-1)
        return 2 * y.real if y.is_complex() else y


def forward(arguments: Arguments, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y, the final states, and (where ``save``) the states before each block."""
    scan = _Scan(arguments)
    u, z, reverse = arguments.u, arguments.z, arguments.reverse
    shape = (scan.batch, scan.groups, scan.dim // scan.groups, scan.state)
    state = u.new_zeros(shape, dtype=scan.dtype)
    initial = scan.initial()
    if scan.packed is None and initial is not None:
        state = initial
    final = u.new_zeros((arguments.sequences, *shape[1:]), dtype=scan.dtype)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    entries = u.new_empty(entries_shape(arguments) if save else (0, scan.batch, *arguments.A.shape), dtype=scan.dtype)
    for index, (begin, end) in enumerate(scan.blocks()):
        if save:
            entries[index] = state.flatten(1, 2)
        dt = scan.step(begin, end)
        u_t = scan.tokens(u, begin, end)
        factors = (dt[..., None] * scan.A).exp_()
        states = (dt * u_t)[..., None] * scan.matrix(arguments.B, begin, end)
        scan.states(factors, states, state, begin, end, product=factors)
        state = states[:, 0 if reverse else -1].clone()
        marked = scan.last_tokens(begin, end)
        if marked is not None:
            final[marked[0]] = states[0].index_select(0, marked[1])
        out = scan.read(states, scan.matrix(arguments.C, begin, end))
        if arguments.D is not None:
            out = out + scan.grouped(arguments.D.to(scan.real), 0) * u_t
        if z is not None:
            out = out * F.silu(scan.tokens(z, begin, end))
        y[:, begin:end] = out.flatten(2)
    if save:
        entries[index + 1 :].zero_()
    if scan.packed is None:
        final = state
    return y, final.flatten(1, 2), entries


def backward(arguments: Arguments, entries: Tensor, grad_y: Tensor, grad_final: Tensor | None) -> Gradients:
    """The gradients of all inputs, in working precision; the formulas are those of ``cpu_kernels.backward``.

    For a complex z, torch's gradient is dL/dRe z + i dL/dIm z: every factor that a product rule brings is conjugated.
    """
    scan = _Scan(arguments)
    u, z, D, B, C = arguments.u, arguments.z, arguments.D, arguments.B, arguments.C
    real, reverse = scan.real, arguments.reverse
    first, last = (-1, 0) if reverse else (0, -1)
    grad_final = None if grad_final is None else scan.grouped(grad_final.to(scan.dtype), 1)
    carry = u.new_zeros((scan.batch, *scan.A.shape), dtype=scan.dtype)
    if scan.packed is None and grad_final is not None:
        carry = grad_final

    grad_u, grad_delta = (u.new_empty(u.shape, dtype=real) for _ in range(2))
    grad_z = None if z is None else u.new_empty(u.shape, dtype=real)
    grad_A = torch.zeros_like(scan.A)
    grad_B, grad_C = (_Sum(scan, matrix) for matrix in (B, C))
    grad_D = None if D is None else scan.A.new_zeros(scan.A.shape[:2], dtype=real)
    grad_initial = None
    if arguments.initial_state is not None:
        grad_initial = scan.A.new_zeros((arguments.sequences, *scan.A.shape))

    for index, (begin, end) in reversed(list(enumerate(scan.blocks()))):
        tokens = end - begin
        before = scan.grouped(entries[index], 1)
        raw = scan.raw_step(begin, end)
        dt = F.softplus(raw) if arguments.delta_softplus else raw
        u_t = scan.tokens(u, begin, end)
        input_t = dt * u_t
        B_t, C_t = scan.matrix(B, begin, end), scan.matrix(C, begin, end)

        # One token more than the block: the adjoint of a state is carried by the factor of the next one, and beyond
        # the block the carry already holds it.
        extended = torch.ones((scan.batch, tokens + 1, *scan.A.shape), dtype=scan.dtype, device=u.device)
        factors, next_factors = (extended[:, 1:], extended[:, :-1]) if reverse else (extended[:, :-1], extended[:, 1:])
        torch.mul(dt[..., None], scan.A, out=factors).exp_()
        starts = scan.first_tokens(begin, end)
        start_factors = None if starts is None else factors[0].index_select(0, starts[1])
        states = input_t[..., None] * B_t
        scratch = torch.empty_like(states)
        scan.states(factors, states, before, begin, end, product=scratch)

        dy = scan.tokens(grad_y, begin, end)
        if z is not None and grad_z is not None:
            gate = scan.tokens(z, begin, end)
            y = scan.read(states, C_t)
            if D is not None:
                y = y + scan.grouped(D.to(real), 0) * u_t
            grad_z[:, begin:end] = torch.ops.aten.silu_backward(dy * y, gate).flatten(2)
            dy = dy * F.silu(gate)
        doubled = 2 * dy if arguments.A.is_complex() else dy

        adjoint = doubled[..., None] * C_t.conj()
        ends = scan.last_tokens(begin, end)
        if ends is not None and grad_final is not None:
            adjoint[0].index_add_(0, ends[1], grad_final[ends[0]])
        adjoint[:, last].add_(carry)
        scan_(next_factors.conj(), adjoint, not reverse, scratch)
        carry = factors[:, first].conj() * adjoint[:, first]

        grad_C.add(doubled, states.conj(), begin, end)
        grad_B.add(input_t, adjoint, begin, end)
        by_input = _real((adjoint * B_t.conj()).sum(-1) if B_t.ndim == 3 else (adjoint @ B_t.mH).squeeze(-1))

        # The decayed state, in the place of the factors.
        rest, previous = (slice(None, -1), slice(1, None)) if reverse else (slice(1, None), slice(None, -1))
        factors[:, rest].mul_(states[:, previous])
        factors[:, first].mul_(before)
        initial = None if starts is None else scan.initial(starts[0])
        if starts is not None and start_factors is not None and initial is not None and grad_initial is not None:
            which, positions = starts
            grad_initial[which] = start_factors.conj() * adjoint[0].index_select(0, positions)
            factors[0].index_copy_(0, positions, start_factors * initial)
        weighted = torch.mul(adjoint, factors.conj(), out=scratch)
        by_rate = _real((weighted * scan.A.conj()).sum(-1))
        grad_A += torch.mul(weighted, dt[..., None], out=scratch).sum((0, 1))

        d_dt = by_rate + u_t * by_input
        if arguments.delta_softplus:
            d_dt = torch.ops.aten.softplus_backward(d_dt, raw, 1.0, 20.0)
        grad_delta[:, begin:end] = d_dt.flatten(2)
        du = dt * by_input
        if D is not None and grad_D is not None:
            du = du + scan.grouped(D.to(real), 0) * dy
            grad_D += (dy * u_t).sum((0, 1))
        grad_u[:, begin:end] = du.flatten(2)

    if scan.packed is None and grad_initial is not None:
        grad_initial = carry
    return Gradients(
        u=grad_u,
        delta=grad_delta,
        A=grad_A.flatten(0, 1),
        B=grad_B.result(),
        C=grad_C.result(),
        D=None if grad_D is None else grad_D.flatten(),
        z=grad_z,
        delta_bias=None if arguments.delta_bias is None else grad_delta.sum((0, 1)),
        initial_state=None if grad_initial is None else grad_initial.flatten(1, 2),
    )


class _Sum:
    """The gradient of B or C, gathered block by block."""

    def __init__(self, scan: _Scan, matrix: Tensor) -> None:
        self.scan, self.matrix = scan, matrix
        self.total = torch.zeros(matrix.shape, dtype=scan.dtype, device=matrix.device)

    def add(self, per_channel: Tensor, per_state: Tensor, begin: int, end: int) -> None:
        """Add sum over channels (varying in time) or over tokens (constant) of the product of the two.

        ``per_channel`` is (batch, tokens, groups, channels), ``per_state`` has the states in a further axis.
        """
        if self.matrix.ndim == 2:
            self.total += (per_channel[..., None] * per_state).sum((0, 1)).flatten(0, 1)
            return
        summed = (per_channel[..., None, :].to(per_state.dtype) @ per_state).squeeze(-2)
        if self.matrix.ndim == 3:
            self.total[:, begin:end] = summed.sum(2)
        elif self.matrix.shape[2] == 1:
            self.total[:, begin:end] = summed.sum(2, keepdim=True)
        else:
            self.total[:, begin:end] = summed

    def result(self) -> Tensor:
        return self.total if self.matrix.is_complex() else _real(self.total)


def _real(tensor: Tensor) -> Tensor:
    return tensor.real if tensor.is_complex() else tensor
