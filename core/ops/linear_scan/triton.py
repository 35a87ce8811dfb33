"""The linear scan in Triton, forward and backward, real and complex: every tensor is read and written once.

Where batch and channels give too few programs to fill the device, sequences are cut into chunks: a first pass computes
the product of the factors of each chunk and the state that it ends with from zero, these are scanned in their turn (by
the same kernel), and the main pass then runs every chunk from the state that enters it. Inputs are then read twice.
Nothing is divided, so that factors may vanish; the product of those of a chunk must not overflow.

The backward pass is the same scan the other way round, over the factors of the next tokens:
g_t = dh_t + conj(a_{t+1}) g_{t+1}, dx = g, da_t = g_t conj(h_{t-1}), dh_0 = conj(a_1) g_1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._packing import sequence_offsets
from .._triton import ceil_div, multiprocessors, power_of_two
from .arguments import Arguments
from .triton_kernels import scan

__all__ = ["backward", "forward"]

# Tokens of a row, in registers at once (half as many where each takes more of them: complex or packed, or in the
# backward pass), and channels of a program (twice as many where programs abound).
_TOKENS = 16
_CHANNELS = 32
# Rows of a tile at most: 32 lanes of a warp, or warps.
_TILE = 256
# Rows are added until a multiprocessor has so many warps; chunks where it has less than one program.
_WARPS = 24
_CHUNKED_PROGRAMS = 8
_SHORTEST_CHUNK = 256


class _Marks(NamedTuple):
    """For every token the sequence that begins, and that ends, with it in the direction of the scan, or -1."""

    starts: Tensor
    ends: Tensor


def _marks(arguments: Arguments) -> _Marks | None:
    if arguments.cu_seqlens is None:
        return None
    length = arguments.x.shape[1]
    sequence_offsets("linear_scan", arguments.cu_seqlens, 1, length)  # checks the values
    offsets = arguments.cu_seqlens.long()
    number = torch.arange(len(offsets) - 1, device=offsets.device, dtype=torch.int32)
    marks = torch.full((2, length), -1, device=offsets.device, dtype=torch.int32)
    marks[0, offsets[:-1]] = number
    marks[1, offsets[1:] - 1] = number
    return _Marks(marks[1], marks[0]) if arguments.reverse else _Marks(marks[0], marks[1])


class _Task(NamedTuple):
    """The tensors of one scan, forward or (with ``states``, those of the forward pass) backward."""

    a: Tensor
    x: Tensor
    initial: Tensor | None
    marks: _Marks | None
    reverse: bool
    states: Tensor | None = None


class _Plan(NamedTuple):
    """How a scan is laid over the device."""

    channels: int
    tokens: int
    rows: int
    chunk: int
    chunks: int
    warps: int


def _plan(task: _Task, complex_valued: bool, whole: bool = False) -> _Plan:
    """Chunks where programs are few (never if ``whole``), rows where they are not many."""
    a, x = task.a, task.x
    batch, length, dim = x.shape
    count = multiprocessors(x.device.index or 0)
    channels = min(_CHANNELS, power_of_two(dim))
    heavy = complex_valued or task.marks is not None or task.states is not None
    tokens = min(_TOKENS // 2 if heavy else _TOKENS, power_of_two(length))
    programs = batch * ceil_div(dim, channels)
    chunk = length
    if not whole and programs < count and length >= 2 * _SHORTEST_CHUNK:
        chunk = max(_SHORTEST_CHUNK, ceil_div(length * programs, _CHUNKED_PROGRAMS * count))
        chunk = ceil_div(chunk, _SHORTEST_CHUNK) * _SHORTEST_CHUNK
    chunks = ceil_div(length, chunk)
    rows = power_of_two(ceil_div(_WARPS * count, 2 * programs * chunks))
    rows = max(1, min(rows, _TILE // channels, power_of_two(ceil_div(chunk, tokens))))
    if rows == 1 and channels == _CHANNELS and dim % (2 * channels) == 0 and _aligned(a) and _aligned(x):
        channels *= 2
    return _Plan(channels, tokens, rows, chunk, chunks, max(1, rows * min(channels, _CHANNELS) // 32))


def _aligned(tensor: Tensor) -> bool:
    """Whether two channels at once can be loaded from every token."""
    return tensor.data_ptr() % 16 == 0 and all(step % 16 == 0 for step in tensor.stride()[:2])


def _run(task: _Task, y: Tensor, leaving: Tensor, grad_a: Tensor | None = None) -> None:
    """Write the states to ``y``, the last ones to ``leaving`` and, backward, the gradient of a."""
    plan = _plan(task, leaving.is_complex())
    carried = None
    if plan.chunks > 1:
        shape = (task.x.shape[0], plan.chunks, task.x.shape[2])
        products, carried = (torch.empty(shape, dtype=leaving.dtype, device=y.device) for _ in range(2))
        _launch(task, plan, None, y, carried, products=products)
        chunks = _Task(products, carried, None if task.marks else task.initial, None, False)
        carried = torch.empty_like(carried)
        above = _plan(chunks, carried.is_complex(), whole=True)
        _launch(chunks, above, None, carried, torch.empty_like(carried[:, 0]), resets=task.marks is not None)
    _launch(task, plan, carried, y, leaving, grad_a)


def _launch(
    task: _Task,
    plan: _Plan,
    carried: Tensor | None,
    y: Tensor,
    leaving: Tensor,
    grad_a: Tensor | None = None,
    products: Tensor | None = None,
    resets: bool = False,
) -> None:
    """One pass of the kernel; with ``products`` it gives the chunks' products and last states."""
    a, x, initial, marks, reverse, states = task
    batch, length, dim = x.shape
    channel_blocks = ceil_div(dim, plan.channels)
    given = (initial, carried, states)
    # A tensor that is not read stands in for those that are not given.
    optional = [_bits(leaving if tensor is None else tensor) for tensor in given]
    starts, ends = marks or (leaving, leaving)
    outputs = (_bits(y if tensor is None else tensor) for tensor in (y, grad_a, leaving, products))
    scan[(batch * plan.chunks * channel_blocks,)](
        _bits(a), _bits(x), *optional, _bits(starts), _bits(ends), *outputs,
        length, dim, plan.chunk, plan.chunks, channel_blocks, *a.stride()[:2], *x.stride()[:2],
        ROWS=plan.rows, CHANNELS=plan.channels, TOKENS=plan.tokens,
        COMPLEX=leaving.is_complex(), A_COMPLEX=a.is_complex(), X_COMPLEX=x.is_complex(), Y_COMPLEX=y.is_complex(),
        ONE_FACTOR=dim > 1 and a.stride(2) == 0,
        HAS_INITIAL=initial is not None, CHUNKED=carried is not None, PACKED=marks is not None,
        RESETS=resets or marks is not None, REVERSE=reverse != (states is not None), ADJOINT=states is not None,
        SUMMARY=products is not None, num_warps=plan.warps,
    )  # fmt: skip


def _bits(tensor: Tensor) -> Tensor:
    """Complex numbers as the integers that the kernel loads."""
    return tensor.view(torch.int64) if tensor.is_complex() else tensor


def _readable(tensor: Tensor, broadcast: bool = False) -> Tensor:
    """The tensor itself where channels lie side by side in memory (or are one number, for ``broadcast``), or a copy."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    return tensor if tensor.stride(-1) == 1 or (broadcast and tensor.stride(-1) == 0) else tensor.contiguous()


def _state(arguments: Arguments, state: Tensor | None) -> Tensor | None:
    """States in the precision of the recurrence."""
    return None if state is None else _readable(state.to(arguments.state_dtype)).contiguous()


def forward(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """The states in the output's dtype, and the final states."""
    a, x, initial_state, _, reverse = arguments
    y = torch.empty(x.shape, dtype=arguments.output_dtype, device=x.device)
    final = torch.empty((arguments.sequences, x.shape[2]), dtype=arguments.state_dtype, device=x.device)
    initial = _state(arguments, initial_state)
    _run(_Task(_readable(a, True), _readable(x), initial, _marks(arguments), reverse), y, final)
    return y, final


def backward(
    arguments: Arguments, y: Tensor, grad_y: Tensor, grad_final: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of a, x (in their dtypes, real parts for real ones) and the initial state."""
    a, x, initial_state, cu_seqlens, reverse = arguments
    a = _readable(a, True)
    grad_a, grad_x = (torch.empty(x.shape, dtype=tensor.dtype, device=x.device) for tensor in (a, x))
    first = torch.empty((arguments.sequences, x.shape[2]), dtype=arguments.state_dtype, device=x.device)
    marks = _marks(arguments)
    swapped = None if marks is None else _Marks(marks.ends, marks.starts)
    grads, states = _readable(grad_y), _readable(y).contiguous()
    _run(_Task(a, grads, _state(arguments, grad_final), swapped, reverse, states), grad_x, first, grad_a)
    if initial_state is None:
        return grad_a, grad_x, None
    # What the kernel leaves out: the first token of every sequence, whose state before is the initial one.
    batch = torch.arange(len(x), device=x.device)
    if cu_seqlens is None:
        token = torch.full_like(batch, x.shape[1] - 1 if reverse else 0)
    else:
        batch, token = batch.new_zeros(()), cu_seqlens[1:].long() - 1 if reverse else cu_seqlens[:-1].long()
    product = first * initial_state.conj()
    grad_a[batch, token] = (product if a.is_complex() or not product.is_complex() else product.real).to(a.dtype)
    return grad_a, grad_x, first * a[batch, token].conj()
