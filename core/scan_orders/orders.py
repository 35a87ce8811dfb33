"""One scan order by name: an index and its inverse."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, nearest
from . import paths
from .permutation import permute_tokens

TimeOrder = Literal["spatial_first", "temporal_first"]

_PATHS: dict[str, Callable[[paths.Grid], paths.Grid]] = {
    "raster": paths.raster,
    "column": paths.column,
    **{f"rotation{i}": partial(paths.rotation, quarter_turns=i) for i in range(4)},
    **{f"zigzag{i}": partial(paths.zigzag, number=i) for i in range(8)},
    **{f"hilbert{i}": partial(paths.hilbert, number=i) for i in range(8)},
}
#: Shorter names, LocalMamba's included.
_ALIASES = {
    "reverse": "raster_reverse",
    "hilbert": "hilbert0",
    "h": "raster",
    "h_flip": "raster_reverse",
    "v": "column",
    "v_flip": "column_reverse",
}


@dataclass(frozen=True, eq=False)
class ScanOrder:
    """A permutation of the cells of a grid, flattened row by row (time slowest).

    Attributes:
        name: as it was asked for.
        grid: (time, height, width).
        index: int64 (tokens,): ``index[k]`` is the cell that is read k-th, -1 for padding.
        inverse: int64 (time · height · width,): ``inverse[c]`` is the place at which cell ``c`` is read.
    """

    name: str
    grid: tuple[int, int, int]
    index: Tensor
    inverse: Tensor

    @property
    def padded(self) -> bool:
        """Whether the order reads padding."""
        return len(self.index) != len(self.inverse)

    def scan(self, x: Tensor, dim: int = 1) -> Tensor:
        """Bring the cells of dimension ``dim`` into this order; padding is zero."""
        if not self.padded:
            return permute_tokens(x, self.index, self.inverse, dim)
        taken = x.index_select(dim, self.index.clamp(min=0))
        shape = [1] * x.dim()
        shape[dim] = -1
        return taken.masked_fill((self.index < 0).view(shape), 0)

    def unscan(self, y: Tensor, dim: int = 1) -> Tensor:
        """Bring dimension ``dim`` back from this order to that of the grid; padding is dropped."""
        if self.padded:
            return y.index_select(dim, self.inverse)
        return permute_tokens(y, self.inverse, self.index, dim)


def list_scan_orders() -> list[str]:
    """Return the names of orders; ``w`` stands for any window size, and each has a ``_reverse``."""
    return [*_PATHS, "window{w}", "window{w}_column", *_ALIASES]


def scan_order(
    name: str,
    height: int,
    width: int,
    time: int | None = None,
    *,
    time_order: TimeOrder = "spatial_first",
    padded: bool = False,
    device: torch.device | str | None = None,
) -> ScanOrder:
    """Return a scan order of a grid; asked for again, it is not made again.

    Args:
        name: ``raster``, ``column``, ``rotation0…3``, ``zigzag0…7``, ``hilbert0…7``, ``window{w}`` or
            ``window{w}_column`` with a window size, each also with ``_reverse`` (the whole sequence backwards);
            ``reverse``, ``hilbert`` and LocalMamba's ``h``, ``v``, ``w{w}`` with ``_flip`` are short forms.
        height, width: of the grid, not necessarily equal.
        time: number of frames; ``None`` is a single image.
        time_order: ``spatial_first`` reads each frame in this order, one after the other; ``temporal_first`` reads
            each place through all frames before the next place.
        padded: let windows that the grid does not fill read zeros in their empty cells, as LocalMamba does; otherwise
            these are left out.
        device: of the index.

    Raises:
        UserError: for an unknown name or an empty grid.
    """
    for label, value in (("height", height), ("width", width), ("time", 1 if time is None else time)):
        if value < 1:
            raise UserError(f"scan order {name!r}: {label} is {value}, expected at least 1")
    if time_order not in ("spatial_first", "temporal_first"):
        raise UserError(f"time_order is {time_order!r}; expected 'spatial_first' or 'temporal_first'")
    if padded and time is not None:
        raise UserError(f"scan order {name!r}: padded windows are for images; leave time or padded out")
    return _make(name, (time or 1, height, width), time_order, padded, torch.device(device or "cpu"))


@lru_cache(maxsize=1024)
def _make(name: str, grid: tuple[int, int, int], time_order: str, padded: bool, device: torch.device) -> ScanOrder:
    path, backwards = _path(name)
    time, height, width = grid
    frame = path(np.arange(height * width).reshape(height, width))
    if not padded:
        frame = frame[frame >= 0]
    index = frame
    if time > 1:
        starts = np.arange(time) * height * width
        cells = starts[:, None] + frame
        index = (cells if time_order == "spatial_first" else cells.T).reshape(-1)
    if backwards:
        index = index[::-1]
    inverse = np.empty(time * height * width, dtype=np.int64)
    inverse[index[index >= 0]] = np.flatnonzero(index >= 0)
    with torch.inference_mode(False):  # remembered, and used in training later
        return ScanOrder(
            name, grid, torch.from_numpy(index.copy()).to(device), torch.from_numpy(inverse.copy()).to(device)
        )


def _path(name: str) -> tuple[Callable[[paths.Grid], paths.Grid], bool]:
    """Return the path of a name, and whether it is read backwards."""
    full = re.sub(r"^w(\d+)(_flip)?$", lambda m: f"window{m[1]}" + ("_reverse" if m[2] else ""), name)
    full = "hilbert0_reverse" if full == "hilbert_reverse" else _ALIASES.get(full, full)
    base = full.removesuffix("_reverse")
    if match := re.fullmatch(r"window([1-9]\d*)(_column)?", base):
        return partial(paths.window, size=int(match[1]), by_column=match[2] is not None), base != full
    if base not in _PATHS:
        raise UserError(f"scan order {name!r} is unknown; {nearest(name, list_scan_orders())}")
    return _PATHS[base], base != full
