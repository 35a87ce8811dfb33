"""The mixer of LocalVim: windowed and plain scans, weighted by channel (Huang et al. 2024, arXiv:2403.09338)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers.base import State, create_mixer, register_mixer
from ...core.norms import LayerNorm
from ...core.scan_orders import scan_order
from .grid_mixer import GridMixer
from .positions import ClassToken, Grid, class_token_positions
from .vim_mixer import scan_direction

_PER_DIRECTION = ("conv1d", "x_proj", "dt_proj", "A_log", "D")


class ChannelAttention(nn.Module):
    """``x · sigmoid(channel_select(gelu(global_reduce(mean(norm(x))))))``, the mean taken over tokens."""

    def __init__(self, dim: int, reduction: int = 8) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.global_reduce = nn.Linear(dim, dim // reduction)
        self.channel_select = nn.Linear(dim // reduction, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, dim) to the same."""
        hidden = F.gelu(self.global_reduce(self.norm(x).mean(1, keepdim=True)))
        return x * self.channel_select(hidden).sigmoid()


@register_mixer("local_mamba")
class LocalMamba(GridMixer):
    """One Mamba for each direction between shared projections; what they give is weighted by channel and added.

    Each direction reads the patches in its own order, convolution and gate included; windows that the grid does not
    fill read zeros. A class token stands in the middle of each reading. Parameter names are the published ones:
    ``conv1d_{i}``, ``x_proj_{i}``, ``dt_proj_{i}``, ``A_log_{i}``, ``D_{i}`` for direction i, ``attn``.

    Args:
        d_model: width of the input and output.
        directions: scan orders, LocalMamba's ``h``, ``v``, ``w2``, ``w7`` with ``_flip``, or any other.
        grid: rows and columns of patches; a model of images sets :attr:`grid` to that of its images.
        class_token: where class tokens stand among the patches, ``"none"`` or ``"middle"``.
        options: those of :class:`~longscan.core.mixers.Mamba`.
    """

    def __init__(
        self,
        d_model: int,
        directions: Sequence[str] = ("h", "h_flip", "v", "v_flip"),
        grid: Sequence[int] | None = None,
        class_token: ClassToken = "middle",
        **options: Any,
    ) -> None:
        super().__init__()
        if class_token not in ("none", "middle"):
            raise UserError(f"mixer 'local_mamba': class_token is {class_token!r}; expected 'middle' or 'none'")
        for name in directions:
            scan_order(name, 1, 1)  # an unknown name is told now
        self.directions, self.class_token = tuple(directions), class_token
        self.class_tokens = len(class_token_positions(class_token, 1))
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))
        parts: list[Any] = [create_mixer("mamba", d_model, **options) for _ in self.directions]
        first = parts[0]
        self.in_proj, self.out_proj = first.in_proj, first.out_proj
        for i, part in enumerate(parts):
            for name in _PER_DIRECTION:
                setattr(self, f"{name}_{i}", getattr(part, name))
            part.A_log._no_weight_decay = True
        self.attn = ChannelAttention(first.d_inner)

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """(batch, tokens, d_model) to the same.

        Raises:
            UserError: if the number of tokens is not that of the grid, or an option is given that it does not have.
        """
        grid = self.expect_grid(x, state, cu_seqlens, reverse)
        xz = self.in_proj(x)
        total: Tensor | None = None
        for i, name in enumerate(self.directions):
            index, inverse = _reading(name, grid, self.class_token, x.device)
            read = xz.index_select(1, index.clamp(min=0)).masked_fill((index < 0).view(1, -1, 1), 0)
            y = self.attn(self._direction(read, i).index_select(1, inverse))
            total = y if total is None else total + y
        assert total is not None
        return self.out_proj(total)

    def name(self) -> str:
        """See :meth:`GridMixer.name`."""
        return "local_mamba"

    def _direction(self, xz: Tensor, i: int) -> Tensor:
        """Mamba's convolution, scan and gate with the parameters of direction i."""
        conv1d, x_proj, dt_proj, A_log, D = (getattr(self, f"{name}_{i}") for name in _PER_DIRECTION)
        return scan_direction(xz, conv1d, x_proj, dt_proj, A_log, D)


@lru_cache(maxsize=256)
def _reading(name: str, grid: Grid, class_token: ClassToken, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which token is read k-th (-1: padding), and at which place each token is read."""
    order = scan_order(name, *grid, padded=True)
    count = grid[0] * grid[1]
    index = order.index.tolist()
    for position in class_token_positions(class_token, count):
        index = [cell + (cell >= position) for cell in index]
        index.insert(len(index) // 2, position)
    inverse = [0] * (count + len(class_token_positions(class_token, count)))
    for place, token in enumerate(index):
        if token >= 0:
            inverse[token] = place
    with torch.inference_mode(False):
        return torch.tensor(index, device=device), torch.tensor(inverse, device=device)
