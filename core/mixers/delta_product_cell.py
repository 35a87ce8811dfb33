"""The gated delta product, whole sequences and steps (Siems et al. 2025, arXiv:2502.10297; n = 1: Yang et al. 2025,
"Gated Delta Networks", arXiv:2412.06464).

Each token forgets once and then takes ``n`` steps of the delta rule, each the product with a generalised Householder
matrix: it reads what the memory holds for a key, and moves it towards a value::

    S ← exp(g_t) S_{t-1}
    S ← S + β_{tj} k_{tj} (v_{tj} - Sᵀ k_{tj})ᵀ          j = 1 … n
    o_t = scale · Sᵀ q_t

With |k| = 1, β in (0, 2) keeps every product's eigenvalues in (-1, 1].

A chunk of C tokens is C n such steps (rows). Its rows' writes, were they all read from the state S that enters the
chunk, are the solution of a triangular system (the WY form of a product of Householder matrices, Yang et al. 2024,
arXiv:2406.06484): with s_r the sum of g within the chunk up to row r ::

    A = strictly lower (β_r k_r · k_j exp(s_r - s_j))          T = (I + A)⁻¹
    writes = T (β v) - T (β exp(s) k) S

so that only the states at the ends of chunks follow one another, and everything else is matrix products.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norms import float32_at_least

#: Blocks up to this size are inverted by their power series, which ends; larger ones from their halves.
_BASE = 4


def delta_product(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    state: Tensor | None = None,
    chunk: int = 32,
    scale: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Run whole sequences, in parallel within chunks; memory is linear in the length.

    Args:
        q: (batch, heads, length, key).
        k: (batch, heads, length, n, key), of length 1 for the eigenvalues named above.
        v: (batch, heads, length, n, value).
        beta: (batch, heads, length, n).
        g: logarithm of the decay, 0 or below, (batch, heads, length).
        state: (batch, heads, key, value) to start from; None is empty.
        chunk: tokens at once.
        scale: of the output; 1 / sqrt(key) where None.

    Returns:
        o (batch, heads, length, value), float32 at least, and the state after the last token.
    """
    q, k, v, beta, g = (float32_at_least(part) for part in (q, k, v, beta, g))
    length, steps = q.shape[2], k.shape[3]
    chunk = min(chunk, length)
    padding = -length % chunk
    if padding:  # behind the end nothing is written and nothing forgotten
        q = F.pad(q, (0, 0, 0, padding))
        k, v = (F.pad(part, (0, 0, 0, 0, 0, padding)) for part in (k, v))
        beta, g = F.pad(beta, (0, 0, 0, padding)), F.pad(g, (0, padding))
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q = (q * scale).unflatten(2, (-1, chunk))
    k, v = (part.flatten(2, 3).unflatten(2, (-1, chunk * steps)) for part in (k, v))
    beta = beta.flatten(2, 3).unflatten(2, (-1, chunk * steps)).unsqueeze(-1)
    decay = g.unflatten(2, (-1, chunk)).cumsum(-1)
    rows = decay.repeat_interleave(steps, -1)

    # What a row reads of the rows before it, and a token of its own rows and those before.
    row = torch.arange(chunk * steps, device=q.device)
    earlier = row[:, None] > row
    token = row[::steps] // steps
    seen = token[:, None] >= row // steps
    between = _decays(rows[..., :, None] - rows[..., None, :], earlier)
    inverse = unit_lower_inverse(beta * (k @ k.transpose(-1, -2)) * between)
    entered = rows.exp().unsqueeze(-1)
    own, read = (inverse @ torch.cat([beta * v, beta * entered * k], -1)).split([v.shape[-1], k.shape[-1]], -1)
    scores = (q @ k.transpose(-1, -2)) * _decays(decay[..., :, None] - rows[..., None, :], seen)

    states, writes = _carry(k, own, read, decay, rows, state)
    o = scores @ writes + (q * decay.exp().unsqueeze(-1)) @ states[0]
    return o.flatten(2, 3)[:, :, :length], states[1]


def delta_product_step(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Advance by one token; shapes as those of :func:`delta_product` without the length.

    Returns o (batch, heads, value) and the new state; the old one is left as it is.
    """
    q, k, v, beta, g = (float32_at_least(part) for part in (q, k, v, beta, g))
    state = g.exp()[..., None, None] * state.to(k.dtype)
    for j in range(k.shape[2]):
        key = k[:, :, j]
        missing = v[:, :, j] - (key.unsqueeze(-2) @ state).squeeze(-2)
        state = state + (beta[:, :, j, None] * key).unsqueeze(-1) * missing.unsqueeze(-2)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return scale * (q.unsqueeze(-2) @ state).squeeze(-2), state


def unit_lower_inverse(a: Tensor) -> Tensor:
    """Return (I + a)⁻¹ of strictly lower triangular (…, size, size), by matrix products alone.

    The inverse of a block of twice the size has those of its halves on the diagonal and -T₂ a₂₁ T₁ below, which is
    exact substitution: no powers of ``a`` that grow and cancel, but within the smallest blocks.
    """
    if torch.is_grad_enabled() and a.requires_grad:
        inverse: Tensor = _UnitLowerInverse.apply(a)  # type: ignore[no-untyped-call]
        return inverse
    return _inverse(a)


class _UnitLowerInverse(torch.autograd.Function):
    """d(T) = -T d(a) T, so nothing of the recursion has to be kept."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        inverse = _inverse(a)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        turned = inverse.transpose(-1, -2)
        return -(turned @ gradient @ turned).tril(-1)


def _inverse(a: Tensor) -> Tensor:
    size = a.shape[-1]
    whole = _BASE
    while whole < size:
        whole *= 2
    if whole != size:
        a = F.pad(a, (0, whole - size, 0, whole - size))
    small = _diagonal_blocks(a, _BASE)
    identity = torch.eye(_BASE, dtype=a.dtype, device=a.device)
    blocks = (identity - small) @ (identity + small @ small)  # the series ends: small⁴ = 0
    half = _BASE
    while half < whole:
        first, second = blocks.unflatten(-3, (-1, 2)).unbind(-3)
        corner = -(second @ _diagonal_blocks(a, 2 * half)[..., half:, :half] @ first)
        upper = torch.cat([first, torch.zeros_like(first)], -1)
        blocks = torch.cat([upper, torch.cat([corner, second], -1)], -2)
        half *= 2
    return blocks.squeeze(-3)[..., :size, :size]


def _diagonal_blocks(a: Tensor, size: int) -> Tensor:
    """Return the blocks on the diagonal, (…, count, size, size), as a view."""
    return a.unflatten(-1, (-1, size)).unflatten(-3, (-1, size)).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def _decays(logarithms: Tensor, kept: Tensor) -> Tensor:
    """exp where ``kept``, 0 elsewhere, without an overflow on the way."""
    return logarithms.masked_fill(~kept, float("-inf")).exp()


def _carry(
    k: Tensor, own: Tensor, read: Tensor, decay: Tensor, rows: Tensor, state: Tensor | None
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the states that enter the chunks (batch, heads, chunks, key, value) with the state after the last one,
    and what the rows write (batch, heads, chunks, rows, value)."""
    batch, heads, chunks, _, key = k.shape
    if state is None:
        state = k.new_zeros(batch, heads, key, own.shape[-1])
    state = state.to(k.dtype)
    total = decay[..., -1:]
    leaving = (k * (total - rows).exp().unsqueeze(-1)).transpose(-1, -2)
    kept = total.exp().unsqueeze(-1)
    entering, writes = [], []
    for c in range(chunks):
        entering.append(state)
        writes.append(own[:, :, c] - read[:, :, c] @ state)
        state = kept[:, :, c] * state + leaving[:, :, c] @ writes[-1]
    return (torch.stack(entering, 2), state), torch.stack(writes, 2)
