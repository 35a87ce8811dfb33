"""Where class tokens stand among the patches, and learned positions at another resolution."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UserError
from ...core.scan_orders import scan_order

ClassToken = Literal["middle", "first", "double", "none"]
Grid = tuple[int, int]


def class_token_positions(class_token: ClassToken, patches: int) -> tuple[int, ...]:
    """Return the indices of the class tokens in a sequence of ``patches`` patches and them.

    ``middle`` is index patches // 2 (Vim's released models), ``double`` one at each end.
    """
    return {"middle": (patches // 2,), "first": (0,), "double": (0, patches + 1), "none": ()}[class_token]


def insert_tokens(patches: Tensor, tokens: list[Tensor], positions: tuple[int, ...]) -> Tensor:
    """Insert class tokens, each (1, 1, dim), into (batch, patches, dim) so that they stand at ``positions``."""
    for token, position in zip(tokens, positions, strict=True):
        token = token.to(patches.dtype).expand(patches.shape[0], -1, -1)
        patches = torch.cat([patches[:, :position], token, patches[:, position:]], dim=1)
    return patches


def split_tokens(tokens: Tensor, positions: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Split (batch, length, dim) into the class tokens and the patches, in their orders."""
    pieces, start = [], 0
    for position in positions:
        pieces.append(tokens[:, start:position])
        start = position + 1
    pieces.append(tokens[:, start:])
    chosen = [tokens[:, p : p + 1] for p in positions]
    classes = torch.cat(chosen, dim=1) if chosen else tokens[:, :0]
    return classes, torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]


def resize_positions(
    positions: Tensor,
    old: Grid,
    new: Grid,
    class_token: ClassToken,
    rule: Literal["exact", "vim-row0"] = "exact",
) -> Tensor:
    """Resize learned positions of a grid of patches, by bicubic interpolation as Vim does (no antialiasing).

    Args:
        positions: (1, class tokens + rows · columns, dim).
        old, new: grids (rows, columns).
        class_token: where the class tokens stand; their rows are kept and stand at their new places.
        rule: ``"exact"``, or ``"vim-row0"``, which takes row 0 for that of the class token even where it stands in the
            middle, as the original code does: half of the grid is then shifted by one patch.

    Returns:
        (1, class tokens + new rows · new columns, dim), in the dtype of ``positions``.

    Raises:
        UserError: if the number of rows is not that of the old grid.
    """
    place: ClassToken = "first" if rule == "vim-row0" and class_token == "middle" else class_token
    before = class_token_positions(place, old[0] * old[1])
    if positions.shape[1] != old[0] * old[1] + len(before):
        raise UserError(
            f"pos_embed has {positions.shape[1]} rows, expected {old[0] * old[1] + len(before)} for a grid of "
            f"{old[0]} × {old[1]} patches and {len(before)} class tokens"
        )
    if tuple(old) == tuple(new):
        return positions
    classes, patches = split_tokens(positions, before)
    picture = patches.float().view(1, old[0], old[1], -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=new, mode="bicubic", align_corners=False)
    patches = picture.permute(0, 2, 3, 1).flatten(1, 2).to(positions.dtype)
    return insert_tokens(
        patches, [classes[:, i : i + 1] for i in range(len(before))], class_token_positions(place, new[0] * new[1])
    )


@lru_cache(maxsize=256)
def token_order(
    name: str, grid: tuple[int, ...], class_token: ClassToken, device: torch.device, current: str = "raster"
) -> tuple[Tensor, Tensor]:
    """Return what brings tokens from the scan order ``current`` into the order ``name``, and the inverse: (tokens,).

    Class tokens are left where they stand. ``grid`` is (rows, columns), or (steps, rows, columns), of which each step
    is read before the next.
    """
    steps = grid[0] if len(grid) == 3 else None
    wanted, given = (scan_order(order, grid[-2], grid[-1], steps, device=device) for order in (name, current))
    count = math.prod(grid)
    classes = class_token_positions(class_token, count)
    with torch.inference_mode(False):
        index = torch.arange(count + len(classes), device=device)
        keep = torch.ones_like(index, dtype=torch.bool)
        keep[list(classes)] = False
        places = index[keep]
        index[places] = places[given.inverse[wanted.index]]
        return index, index.argsort()
