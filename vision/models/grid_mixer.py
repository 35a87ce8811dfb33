"""Mixers that see patches as a grid: what they are told of it, and what they refuse."""

from __future__ import annotations

from torch import Tensor

from ...core.errors import UserError
from ...core.mixers.base import SequenceMixer, State
from .positions import Grid


class GridMixer(SequenceMixer):
    """Base of mixers of images.

    Attributes:
        grid: rows and columns of patches; a model of images sets it to that of its images.
        class_tokens: tokens beside the patches.
    """

    causal = False
    grid: Grid | None
    class_tokens: int = 0

    def expect_grid(self, x: Tensor, state: State | None, cu_seqlens: Tensor | None, reverse: bool) -> Grid:
        """Return the grid of (batch, tokens, channels).

        Raises:
            UserError: if the number of tokens is not that of the grid, or an option is given that it does not have.
        """
        name = self.name()
        if state is not None or cu_seqlens is not None or reverse:
            raise UserError(f"mixer {name!r} reads a grid in its own orders: no state, cu_seqlens or reverse")
        if self.grid is None:
            raise UserError(f"mixer {name!r} needs the grid of patches; give grid=[rows, columns]")
        expected = self.grid[0] * self.grid[1] + self.class_tokens
        if x.shape[1] != expected:
            raise UserError(f"mixer {name!r} got {x.shape[1]} tokens, a grid of {self.grid} has {expected}")
        return self.grid

    def name(self) -> str:
        """Return its name in configurations."""
        raise NotImplementedError
