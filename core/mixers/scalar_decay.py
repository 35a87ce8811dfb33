"""State spaces in which each head decays by one scalar per token, in chunks, in plain PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops import linear_scan

#: Tokens of a chunk: inside it an explicit matrix, between chunks a state of (heads, head_dim, state).
CHUNK = 64


def read_before(
    x: Tensor, decay: Tensor, B: Tensor, C: Tensor, initial_state: Tensor | None = None, chunk: int = CHUNK
) -> Tensor:
    """Scan, and read the state at each token as the token before it does: zero at the first one.

    With h over heads, p over the channels of a head and n over states (structured state space duality, Dao and Gu
    2024, arXiv:2405.21060, section 6; the reading is that of Hydra, Hwang et al. 2024, arXiv:2407.09941, section 3)::

        s_t = exp(decay_t) s_{t-1} + x_t B_t^T          y_{t+1} = s_t C_t          y_0 = 0

    Memory is linear in the length.

    Args:
        x: inputs, the step size in them, (batch, length, heads, head_dim).
        decay: logarithms of the factors, none positive, (batch, length, heads).
        B, C: (batch, length, groups, state); head h uses group h // (heads / groups).
        initial_state: the state before the first token, (heads, head_dim, state).
        chunk: tokens of a chunk.

    Returns:
        y of the shape of x.
    """
    batch, length, heads, head_dim = x.shape
    groups = B.shape[2]
    chunk = min(chunk, length)
    padding = -length % chunk
    C = F.pad(C, (0, 0, 0, 0, 1, padding))[:, : length + padding]  # what the token before reads with
    # Padding decays by nothing and brings nothing.
    x, decay, B = (F.pad(value, (0, 0) * (value.dim() - 2) + (0, padding)) for value in (x, decay, B))
    # (batch, chunks, groups, heads per group, tokens, …)
    x = x.unflatten(2, (groups, -1)).unflatten(1, (-1, chunk)).permute(0, 1, 3, 4, 2, 5)
    decay = decay.unflatten(2, (groups, -1)).unflatten(1, (-1, chunk)).permute(0, 1, 3, 4, 2)
    B, C = (matrix.unflatten(1, (-1, chunk)).permute(0, 1, 3, 2, 4) for matrix in (B, C))
    until = decay.cumsum(-1)
    before = until - decay

    token = torch.arange(chunk, device=x.device)
    earlier = token[:, None] > token
    # The exponent is filled before exp: where it is positive, exp could overflow, and with it the gradient of zero.
    exponent = (before.unsqueeze(-1) - until.unsqueeze(-2)).masked_fill(~earlier, float("-inf"))
    y = ((C @ B.mT).unsqueeze(3) * exponent.exp()) @ x

    total = until[..., -1:]
    added = (x * (total - until).exp().unsqueeze(-1)).mT @ B.unsqueeze(3)  # (…, head_dim, state)
    first = added.new_zeros(added[:, 0].shape)
    if initial_state is not None:
        first = first + initial_state.to(first.dtype).unflatten(0, (groups, -1))
    entering = _carry(total.exp().unsqueeze(-1), added, first)
    y = y + before.exp().unsqueeze(-1) * (C.unsqueeze(3) @ entering.mT)
    return y.permute(0, 1, 4, 2, 3, 5).reshape(batch, length + padding, heads, head_dim)[:, :length]


def _carry(factors: Tensor, added: Tensor, first: Tensor) -> Tensor:
    """Return the state before each chunk, given what each multiplies it by and adds: (batch, chunks, …)."""
    if added.shape[1] == 1:
        return first.unsqueeze(1)
    leaving = linear_scan(
        factors[:, :-1].expand_as(added[:, :-1]).flatten(2), added[:, :-1].flatten(2), initial_state=first.flatten(1)
    )
    assert isinstance(leaving, Tensor)  # no final state was asked for
    return torch.cat([first.unsqueeze(1), leaving.view_as(added[:, :-1])], dim=1)
