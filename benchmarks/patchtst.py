"""PatchTST (Nie et al. 2023, arXiv:2211.14730), supervised, channel-independent, written from the paper: the peer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EncoderLayer(nn.Module):
    """Attention over patches, then an MLP, each added and followed by batch norm over features."""

    def __init__(self, d_model: int, heads: int, d_inner: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, d_inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(d_inner, d_model)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(d_model) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(sequences, patches, d_model) to the same shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self._add(x, self.out(mixed), 0)
        return self._add(x, self.mlp(x), 1)

    def _add(self, x: Tensor, branch: Tensor, norm: int) -> Tensor:
        total = x + F.dropout(branch, self.dropout, self.training)
        return self.norms[norm](total.transpose(1, 2)).transpose(1, 2)


class PatchTST(nn.Module):
    """RevIN, patches with learned positions, an encoder, and one linear map of all tokens to all steps.

    Args:
        lookback, horizon: steps read and predicted.
        patch, stride: of the patches; the end is padded by one stride with its last value, as published.
        d_model, layers, heads, d_inner, dropout: of the encoder.
    """

    def __init__(
        self,
        lookback: int = 512,
        horizon: int = 96,
        patch: int = 16,
        stride: int = 8,
        d_model: int = 128,
        layers: int = 3,
        heads: int = 16,
        d_inner: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.patch, self.stride, self.dropout = patch, stride, dropout
        tokens = (lookback - patch) // stride + 2
        self.embed = nn.Linear(patch, d_model)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, d_model))
        self.layers = nn.ModuleList(EncoderLayer(d_model, heads, d_inner, dropout) for _ in range(layers))
        self.head = nn.Linear(tokens * d_model, horizon)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, lookback, channels) to (batch, horizon, channels)."""
        channels = x.shape[2]
        mean, deviation = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        rows = ((x - mean) / deviation).transpose(1, 2).flatten(0, 1)
        rows = F.pad(rows.unsqueeze(1), (0, self.stride), mode="replicate").squeeze(1)
        tokens = self.embed(rows.unfold(1, self.patch, self.stride)) + self.position
        tokens = F.dropout(tokens, self.dropout, self.training)
        for layer in self.layers:
            tokens = layer(tokens)
        y = self.head(F.dropout(tokens.flatten(1), self.dropout, self.training))
        return y.unflatten(0, (-1, channels)).transpose(1, 2) * deviation + mean
