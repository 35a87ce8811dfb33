"""The gated convolution of MambaOut (Yu and Wang 2024, arXiv:2405.07992): a Mamba without its state space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers.base import State, register_mixer
from .grid_mixer import GridMixer


@register_mixer("gated_conv")
class GatedConv(GridMixer):
    """The control without a recurrence: a depthwise convolution over the grid, between two projections, gated::

        [g | i | c] = fc1(x)          widths hidden, hidden - conv_ratio · dim, conv_ratio · dim
        out = fc2(gelu(g) · [i | conv(c)])

    Parameter names and numbers are those of the published block.

    Args:
        d_model: width of the input and output, dim.
        expand: hidden / dim.
        kernel_size: of the convolution, odd.
        conv_ratio: channels that are convolved / dim.
        grid: rows and columns of patches; a model of images sets :attr:`grid` to that of its images.

    Raises:
        UserError: for an even kernel, or more channels to convolve than there are.
    """

    def __init__(
        self,
        d_model: int,
        expand: float = 8 / 3,
        kernel_size: int = 7,
        conv_ratio: float = 1.0,
        grid: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        hidden, convolved = int(expand * d_model), int(conv_ratio * d_model)
        if kernel_size % 2 == 0:
            raise UserError(f"mixer 'gated_conv': kernel_size is {kernel_size}; expected an odd number")
        if not 0 < convolved <= hidden:
            raise UserError(
                f"mixer 'gated_conv': {convolved} of {hidden} channels are to be convolved; expected 1 to all"
            )
        self.grid = None if grid is None else (int(grid[0]), int(grid[1]))
        self.widths = (hidden, hidden - convolved, convolved)
        self.fc1 = nn.Linear(d_model, 2 * hidden)
        self.conv = nn.Conv2d(convolved, convolved, kernel_size, padding=kernel_size // 2, groups=convolved)
        self.fc2 = nn.Linear(hidden, d_model)

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """(batch, rows · columns, d_model) to the same.

        Raises:
            UserError: see :meth:`GridMixer.expect_grid`.
        """
        grid = self.expect_grid(x, state, cu_seqlens, reverse)
        gate, passed, convolved = self.fc1(x).split(self.widths, dim=-1)
        convolved = self.conv(convolved.transpose(1, 2).unflatten(-1, grid)).flatten(2).transpose(1, 2)
        return self.fc2(F.gelu(gate) * torch.cat([passed, convolved], dim=-1))

    def name(self) -> str:
        """See :meth:`GridMixer.name`."""
        return "gated_conv"
