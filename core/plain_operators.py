"""Our operators in PyTorch's own operations and without a loop over tokens, for exporters that know no others.

:func:`decompositions` gives the table that ``torch.export.ExportedProgram.run_decompositions`` takes. Scans are done in
two levels by doubling (Hillis and Steele 1986, doi:10.1145/7902.7903): products of factors alone, no quotients, so
nothing overflows. Their states are all in memory at once: (batch, length, dim, state).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops  # noqa: F401  (registers the operators)
from .errors import UserError
from .norms import float32_at_least

#: Tokens of a chunk of the scan.
CHUNK = 16


def scan(factors: Tensor, x: Tensor, chunk: int = CHUNK) -> Tensor:
    """Return every h_t = factors_t h_{t-1} + x_t, h before the first token zero: (batch, length, …)."""
    length = x.shape[1]
    chunk = min(chunk, length)
    rest = (0, 0) * (x.dim() - 2) + (0, -length % chunk)
    factors = F.pad(factors, rest).unflatten(1, (-1, chunk))
    x = F.pad(x, rest).unflatten(1, (-1, chunk))
    factors, x = _double(factors, x, 2)
    if x.shape[1] > 1:
        _, ends = _double(factors[:, :, -1], x[:, :, -1], 1)
        x = x + factors * _shift(ends, 1, 1, 0.0).unsqueeze(2)
    return x.flatten(1, 2)[:, :length]


def _double(factors: Tensor, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Combine each place of ``dim`` with those 1, 2, 4, … before it: the products of the factors, and the states."""
    step = 1
    while step < x.shape[dim]:
        x = x + factors * _shift(x, dim, step, 0.0)
        factors = factors * _shift(factors, dim, step, 1.0)
        step *= 2
    return factors, x


def _shift(x: Tensor, dim: int, step: int, fill: float) -> Tensor:
    padding = (0, 0) * (x.dim() - 1 - dim) + (step, 0)
    return F.pad(x.narrow(dim, 0, x.shape[dim] - step), padding, value=fill)


def _selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    delta_softplus: bool,
    reverse: bool,
    **_: Any,
) -> tuple[Tensor, ...]:
    """See :func:`longscan.core.ops.selective_scan`."""
    _refuse("selective_scan", cu_seqlens, A)
    x, dt = float32_at_least(u), float32_at_least(delta)
    if delta_bias is not None:
        dt = dt + float32_at_least(delta_bias)
    dt = F.softplus(dt) if delta_softplus else dt
    B, C = (_each_channel(float32_at_least(matrix), u.shape[2], reverse) for matrix in (B, C))
    if reverse:
        x, dt = x.flip(1), dt.flip(1)
    factors = (dt.unsqueeze(-1) * float32_at_least(A)).exp()
    added = (dt * x).unsqueeze(-1) * B
    states = scan(factors, _enter(factors, added, initial_state))
    y = (states * C).sum(-1)
    if D is not None:
        y = y + float32_at_least(D) * x
    y = y.flip(1) if reverse else y
    if z is not None:
        y = y * F.silu(float32_at_least(z))
    return y.to(u.dtype), states[:, -1], u.new_zeros(0, u.shape[0], *A.shape)


def _each_channel(matrix: Tensor, dim: int, reverse: bool) -> Tensor:
    """B or C as something that broadcasts with (batch, length, dim, state)."""
    if matrix.ndim == 2:
        return matrix
    matrix = matrix.flip(1) if reverse else matrix
    if matrix.ndim == 3:
        return matrix.unsqueeze(2)
    groups = matrix.shape[2]
    return matrix.unsqueeze(3).expand(-1, -1, -1, dim // groups, -1).flatten(2, 3)


def _enter(factors: Tensor, x: Tensor, initial_state: Tensor | None) -> Tensor:
    if initial_state is None:
        return x
    first = x[:, :1] + factors[:, :1] * initial_state.to(x.dtype).unsqueeze(1)
    return torch.cat([first, x[:, 1:]], dim=1)


def _linear_scan(
    a: Tensor, x: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None, reverse: bool, **_: Any
) -> tuple[Tensor, ...]:
    """See :func:`longscan.core.ops.linear_scan`."""
    _refuse("linear_scan", cu_seqlens, a, x)
    dtype = torch.promote_types(a.dtype, x.dtype)
    a, x = float32_at_least(a), float32_at_least(x)
    if reverse:
        a, x = a.flip(1), x.flip(1)
    states = scan(a, _enter(a, x, initial_state))
    final = states[:, -1]
    return (states.flip(1) if reverse else states).to(dtype), final


def _short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    silu: bool,
    reverse: bool,
    **_: Any,
) -> tuple[Tensor, ...]:
    """See :func:`longscan.core.ops.short_conv`."""
    _refuse("short_conv", cu_seqlens)
    rows = weight.shape[1] - 1
    wide = float32_at_least(x.flip(1) if reverse else x)
    if initial_state is None:
        wide = F.pad(wide, (0, 0, rows, 0))
    else:
        wide = torch.cat([initial_state.to(wide.dtype), wide], dim=1)
    kernel = float32_at_least(weight).unsqueeze(1)
    y = F.conv1d(
        wide.transpose(1, 2), kernel, None if bias is None else float32_at_least(bias), groups=x.shape[2]
    ).transpose(1, 2)
    y = F.silu(y) if silu else y
    return (y.flip(1) if reverse else y).to(x.dtype), wide[:, x.shape[1] :].to(x.dtype)


def _refuse(name: str, cu_seqlens: Tensor | None, *tensors: Tensor) -> None:
    if cu_seqlens is not None:
        raise UserError(f"{name}: packed sequences cannot be exported; export the model on a batch")
    if any(tensor.is_complex() for tensor in tensors):
        raise UserError(f"{name}: complex states cannot be exported; ONNX has no complex numbers")


_PLAIN: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "selective_scan": _selective_scan,
    "linear_scan": _linear_scan,
    "short_conv": _short_conv,
}


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what stands for each of our operators: overload to function."""
    return {getattr(torch.ops.longscan, name).default: _by_name(name, plain) for name, plain in _PLAIN.items()}


def _by_name(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    names = [argument.name for argument in getattr(torch.ops.longscan, name).default._schema.arguments]

    def run(*args: Any, **kwargs: Any) -> Any:
        return plain(**dict(zip(names, args, strict=False)), **kwargs)

    return run
