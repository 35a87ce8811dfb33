"""Two-dimensional rotary positions for tokens on a grid (Vim's ``if_rope``; after EVA-02, arXiv:2303.11331)."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import UserError
from .positions import ClassToken, Grid, class_token_positions


@lru_cache(maxsize=64)
def rotary_tables(
    dim: int,
    grid: Grid,
    class_token: ClassToken,
    reference: int,
    placement: Literal["patches", "vim"],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each float32 (tokens, dim).

    Half of the channels turn with the row, half with the column, in adjacent pairs with frequencies
    ``10000^(-2k / (dim / 2))`` at the position ``index / size · reference``, so that any grid covers the same range.

    Args:
        dim: of the tokens, a multiple of 4.
        grid: rows and columns.
        class_token: class tokens are not turned.
        reference: the grid size to which positions are scaled (14 at 224 pixels).
        placement: ``"patches"`` turns each patch by its own place; ``"vim"`` is the original code, which leaves the
            first token alone if the number of tokens is odd, wherever the class token stands.
        device: of the tables.
    """
    frequencies = 10000.0 ** (-torch.arange(0, dim // 2, 2, dtype=torch.float64) / (dim // 2))
    angles = []
    for size in grid:
        place = torch.arange(size, dtype=torch.float64) / size * reference
        angles.append((place[:, None] * frequencies).repeat_interleave(2, dim=1))
    rows, columns = angles
    count = grid[0] * grid[1]
    turned = torch.cat([rows.repeat_interleave(grid[1], 0), columns.repeat(grid[0], 1)], dim=1)
    classes = class_token_positions(class_token, count)
    total = count + len(classes)
    if placement == "vim":
        classes = (0,) if total % 2 and class_token != "none" else ()
    with torch.inference_mode(False):
        table = torch.zeros(total, dim, dtype=torch.float64)
        patches = torch.ones(total, dtype=torch.bool)
        patches[list(classes)] = False
        if int(patches.sum()) != count:
            raise UserError(
                f"rope placement 'vim' cannot place {grid[0]} × {grid[1]} patches among {total} tokens; use 'patches'"
            )
        table[patches] = turned
        return table.cos().float().to(device), table.sin().float().to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of adjacent channels: (a, b) becomes (a cos - b sin, b cos + a sin); (batch, tokens, dim)."""
    pairs = x.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return (x * cos + turned * sin).to(x.dtype)
