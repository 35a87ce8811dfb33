"""Paths through a grid: each function takes an array of cells (height, width) and lists them in its order."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]


def raster(grid: Grid) -> Grid:
    """Row by row, each from the left."""
    return grid.reshape(-1)


def column(grid: Grid) -> Grid:
    """Column by column, each from the top."""
    return grid.T.reshape(-1)


def rotation(grid: Grid, quarter_turns: int) -> Grid:
    """Row by row in the grid turned counter-clockwise (VMamba's "rot90")."""
    return np.rot90(grid, quarter_turns).reshape(-1)


def zigzag(grid: Grid, number: int) -> Grid:
    """One of ZigMa's eight continuous paths (Hu et al. 2024, arXiv:2403.13802, section 3.3).

    ``number // 2`` is the corner of departure: top left, top right, bottom left, bottom right. Even numbers go there
    and back along rows, odd ones along columns.
    """
    corner, along_columns = divmod(number, 2)
    if corner % 2:
        grid = grid[:, ::-1]
    if corner >= 2:
        grid = grid[::-1]
    lines = (grid.T if along_columns else grid).copy()
    lines[1::2] = lines[1::2, ::-1]
    return lines.reshape(-1)


def window(grid: Grid, size: int, by_column: bool = False) -> Grid:
    """LocalMamba's windows of ``size`` × ``size`` cells one after the other (Huang et al. 2024, arXiv:2403.09338).

    Windows and the cells in each follow row by row, or column by column. A grid that windows do not fill is continued
    at the bottom and the right by padding, listed as -1.
    """
    if by_column:
        grid = grid.T
    height, width = grid.shape
    padded = np.pad(grid, ((0, -height % size), (0, -width % size)), constant_values=-1)
    blocks = padded.reshape(padded.shape[0] // size, size, padded.shape[1] // size, size)
    return blocks.swapaxes(1, 2).reshape(-1)


def hilbert(grid: Grid, number: int = 0) -> Grid:
    """A Hilbert-like curve that fills any rectangle: each cell is next to the one before it.

    The recursion is that of the generalised Hilbert curve of J. Červený (2018): a long rectangle is halved along its
    longer side, any other one is crossed in three parts, of which the first and the last are turned. Where a side is
    odd, single steps may be diagonal. ``number`` 0 … 7 are the turned (even) and the transposed and turned (odd)
    curves; on a square grid these are the eight symmetric ones.
    """
    quarter_turns, transposed = divmod(number, 2)
    grid = np.rot90(grid, quarter_turns).T if transposed else np.rot90(grid, -quarter_turns)
    height, width = grid.shape
    down, right = (height, 0), (0, width)
    cells = _fill((0, 0), down, right) if height >= width else _fill((0, 0), right, down)
    rows, columns = np.array(list(cells)).T
    return grid[rows, columns]


_Vector = tuple[int, int]


def _fill(start: _Vector, along: _Vector, across: _Vector) -> Iterator[_Vector]:
    """Visit the rectangle that both sides span, from ``start`` to the other end of the side ``along``."""
    length, breadth = abs(sum(along)), abs(sum(across))
    step, side_step = _sign(along), _sign(across)
    if breadth == 1 or length == 1:
        direction, count = (step, length) if breadth == 1 else (side_step, breadth)
        for i in range(count):
            yield start[0] + i * direction[0], start[1] + i * direction[1]
        return
    half, half_across = _half(along), _half(across)
    if 2 * length > 3 * breadth:
        if abs(sum(half)) % 2 and length > 2:  # an even first part ends at the side from which the second one starts
            half = _add(half, step)
        yield from _fill(start, half, across)
        yield from _fill(_add(start, half), _subtract(along, half), across)
        return
    if abs(sum(half_across)) % 2 and breadth > 2:
        half_across = _add(half_across, side_step)
    yield from _fill(start, half_across, half)
    yield from _fill(_add(start, half_across), along, _subtract(across, half_across))
    corner = _add(_add(start, _subtract(along, step)), _subtract(half_across, side_step))
    yield from _fill(corner, _subtract((0, 0), half_across), _subtract(half, along))


def _sign(v: _Vector) -> _Vector:
    return (v[0] > 0) - (v[0] < 0), (v[1] > 0) - (v[1] < 0)


def _half(v: _Vector) -> _Vector:
    return v[0] // 2, v[1] // 2


def _add(v: _Vector, w: _Vector) -> _Vector:
    return v[0] + w[0], v[1] + w[1]


def _subtract(v: _Vector, w: _Vector) -> _Vector:
    return v[0] - w[0], v[1] - w[1]
