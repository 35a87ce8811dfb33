"""Channel mixers: what a block does to each token by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import UserError, nearest

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


def _activation(name: str) -> Callable[[Tensor], Tensor]:
    if name not in _ACTIVATIONS:
        raise UserError(f"activation {name!r} is unknown; {nearest(name, _ACTIVATIONS)}")
    return _ACTIVATIONS[name]


class MLP(nn.Module):
    """``fc2(activation(fc1(x)))`` on (batch, length, d_model) or (batch, d_model).

    Args:
        d_model: width.
        d_inner: hidden width, by default 4 · d_model.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``silu``.
        bias: biases of both layers.
    """

    #: Hidden elements computed at once outside of training: a longer input goes through in pieces.
    inference_elements = 1 << 26

    def __init__(
        self, d_model: int, d_inner: int | None = None, activation: str = "gelu_tanh", bias: bool = True
    ) -> None:
        super().__init__()
        d_inner = d_inner or 4 * d_model
        self.activation = _activation(activation)
        self.fc1 = nn.Linear(d_model, d_inner, bias=bias)
        self.fc2 = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token; without gradients a long sequence is taken in pieces to bound memory."""
        rows = self.inference_elements // self.fc1.out_features
        if torch.is_grad_enabled() or x.shape[:-1].numel() <= rows:
            return self.fc2(self.activation(self.fc1(x)))
        pieces = x.flatten(0, -2).split(rows)
        return torch.cat([self.fc2(self.activation(self.fc1(piece))) for piece in pieces]).view_as(x)


class GatedMLP(nn.Module):
    """``down_proj(activation(gate_proj(x)) · up_proj(x))`` (Shazeer 2020, arXiv:2002.05202); SwiGLU by default.

    Args:
        d_model: width.
        d_inner: hidden width, by default 8/3 · d_model rounded up to a multiple of 64.
        activation: of the gate.
        bias: biases of the three layers.
    """

    def __init__(self, d_model: int, d_inner: int | None = None, activation: str = "silu", bias: bool = False) -> None:
        super().__init__()
        d_inner = d_inner or 64 * -(-8 * d_model // (3 * 64))
        self.activation = _activation(activation)
        self.gate_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.up_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.down_proj = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply to every token."""
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


_CHANNEL_MIXERS: dict[str, type[nn.Module]] = {"mlp": MLP, "gated_mlp": GatedMLP}


def list_channel_mixers() -> list[str]:
    """Return the names of the channel mixers."""
    return sorted(_CHANNEL_MIXERS)


def create_channel_mixer(name: str, d_model: int, **options: Any) -> nn.Module:
    """Build the channel mixer ``name``.

    Raises:
        UserError: for an unknown name or option.
    """
    if name not in _CHANNEL_MIXERS:
        raise UserError(f"channel mixer {name!r} is unknown; {nearest(name, _CHANNEL_MIXERS)}")
    try:
        return _CHANNEL_MIXERS[name](d_model, **options)
    except TypeError as error:
        raise UserError(f"channel mixer {name!r}: {error}") from error
