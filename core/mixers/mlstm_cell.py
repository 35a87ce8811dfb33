"""The matrix memory of the xLSTM (Beck et al. 2024, arXiv:2405.04517, equations 19 to 27), whole sequences and steps.

With q̂ = q / √K, f = sigmoid(f̃) and i = exp(ĩ)::

    C_t = f_t C_{t-1} + i_t k_t v_tᵀ        n_t = f_t n_{t-1} + i_t k_t
    h_t = C_tᵀ q̂_t / (max(|n_t · q̂_t|, 1) + eps)

C and n are kept times exp(-m), m_t = max(log f_t + m_{t-1}, ĩ_t), so that no exponential overflows. h does not depend
on m (to eps), which is therefore taken without gradient; everything else is differentiated by autograd, the normaliser
included. (The kernels published with the xLSTM-7B leave the normaliser's gradient out.)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..norms import float32_at_least


class MLSTMState(NamedTuple):
    """The memory after a token, float32 (float64 for float64 layers); the true values are C exp(m) and n exp(m)."""

    C: Tensor
    """(batch, heads, key, value)."""
    n: Tensor
    """(batch, heads, key)."""
    m: Tensor
    """(batch, heads)."""


def mlstm(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState | None = None, chunk: int = 64,
    eps: float = 0.0,
) -> tuple[Tensor, MLSTMState]:  # fmt: skip
    """Run whole sequences, in parallel within chunks; memory is linear in the length.

    Args:
        q, k: (batch, heads, length, key).
        v: (batch, heads, length, value).
        i, f: gates before their exponential and sigmoid, (batch, heads, length).
        state: to start from; None is empty.
        chunk: tokens at once.
        eps: added to the denominator, in units of exp(-m) as published.

    Returns:
        h (batch, heads, length, value), float32 at least, and the state after the last token.
    """
    q, k, v, i, f = (float32_at_least(part) for part in (q, k, v, i, f))
    length = q.shape[2]
    chunk = min(chunk, length)
    padding = -length % chunk
    if padding:
        q, k, v = (F.pad(part, (0, 0, 0, padding)) for part in (q, k, v))
        # Behind the end: nothing enters, nothing is forgotten.
        i, f = F.pad(i, (0, padding), value=float("-inf")), F.pad(f, (0, padding), value=float("inf"))
    q, k, v = (part.unflatten(2, (-1, chunk)) for part in (q * q.shape[-1] ** -0.5, k, v))
    i, log_f = (part.unflatten(2, (-1, chunk)) for part in (i, F.logsigmoid(f)))
    decay = log_f.cumsum(-1)
    entering, after = _carry(k, v, i, decay, state)
    h = _within(q, k, v, i, decay, entering, eps)
    return h.flatten(2, 3)[:, :, :length], after


def mlstm_step(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, state: MLSTMState, eps: float = 0.0
) -> tuple[Tensor, MLSTMState]:
    """Advance by one token: q, k (batch, heads, key), v (batch, heads, value), gates (batch, heads)."""
    q, k, v, i, f = (float32_at_least(part) for part in (q, k, v, i, f))
    forget = F.logsigmoid(f) + state.m
    m = torch.maximum(forget, i).detach()
    kept, entered = torch.exp(forget - m)[..., None], torch.exp(i - m)[..., None]
    n = kept * state.n + entered * k
    C = kept[..., None] * state.C + (entered * k)[..., None] * v[..., None, :]
    q = q * q.shape[-1] ** -0.5
    numerator = (q[..., None, :] @ C).squeeze(-2)
    return numerator / _denominator((n * q).sum(-1), m, eps)[..., None], MLSTMState(C, n, m)


def empty_state(batch: int, heads: int, key: int, value: int, dtype: torch.dtype, device: torch.device) -> MLSTMState:
    """The memory before the first token."""
    shapes = ((batch, heads, key, value), (batch, heads, key), (batch, heads))
    return MLSTMState(*(torch.zeros(shape, dtype=dtype, device=device) for shape in shapes))


def _carry(k: Tensor, v: Tensor, i: Tensor, decay: Tensor, state: MLSTMState | None) -> tuple[MLSTMState, MLSTMState]:
    """Return the states that enter the chunks, stacked along dimension 2, and the state after the last chunk."""
    batch, heads, chunks, _, key = k.shape
    if state is None:
        state = empty_state(batch, heads, key, v.shape[-1], k.dtype, k.device)
    state = MLSTMState(*(part.to(k.dtype) for part in state))
    total = decay[..., -1]
    weights = total[..., None] - decay + i
    largest = weights.amax(-1).detach()
    weighted = k * torch.exp(weights - _finite(largest)[..., None])[..., None]
    added = weighted.transpose(-1, -2) @ v
    added_n = weighted.sum(-2)
    states = [state]
    for c in range(chunks):
        C, n, m = states[-1]
        forget = total[:, :, c] + m
        m = torch.maximum(forget, largest[:, :, c]).detach()
        kept, entered = torch.exp(forget - m)[..., None], torch.exp(largest[:, :, c] - m)[..., None]
        states.append(
            MLSTMState(
                kept[..., None] * C + entered[..., None] * added[:, :, c], kept * n + entered * added_n[:, :, c], m
            )
        )
    return MLSTMState(*(torch.stack(parts, 2) for parts in zip(*states[:-1], strict=True))), states[-1]


def _within(q: Tensor, k: Tensor, v: Tensor, i: Tensor, decay: Tensor, entering: MLSTMState, eps: float) -> Tensor:
    """Return h of all chunks, (batch, heads, chunks, chunk, value)."""
    size = q.shape[-2]
    future = torch.ones(size, size, dtype=torch.bool, device=q.device).triu(1)
    weights = (decay[..., :, None] - decay[..., None, :] + i[..., None, :]).masked_fill(future, float("-inf"))
    before = decay + entering.m[..., None]
    m = torch.maximum(weights.amax(-1), before).detach()
    scores = (q @ k.transpose(-1, -2)) * torch.exp(weights - m[..., None])
    carried = torch.exp(before - m)
    numerator = scores @ v + carried[..., None] * (q @ entering.C)
    normaliser = scores.sum(-1) + carried * (q @ entering.n[..., None]).squeeze(-1)
    return numerator / _denominator(normaliser, m, eps)[..., None]


def _denominator(normaliser: Tensor, m: Tensor, eps: float) -> Tensor:
    smallest = torch.finfo(normaliser.dtype).tiny  # exp(-m) may vanish where n · q̂ does too
    return torch.maximum(normaliser.abs(), torch.exp(-m).clamp(min=smallest)) + eps


def _finite(x: Tensor) -> Tensor:
    return torch.where(x.isfinite(), x, 0.0)
