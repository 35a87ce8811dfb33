"""Scan orders: identity with their inverse on any grid, and the published orders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.scan_orders import list_scan_orders, list_scan_routes, scan_order, scan_routes

GOLDEN = Path(__file__).parent.parent / "golden" / "vision"
NAMES = [name.replace("{w}", "3") for name in list_scan_orders()]
GRIDS = [(1, 1), (1, 7), (7, 1), (3, 5), (5, 3), (4, 4), (2, 9), (14, 13), (6, 6)]


def golden(case: str) -> dict[str, Any]:
    return dict(np.load(GOLDEN / case / "outputs.npz"))


@pytest.mark.parametrize(
    "name", [*NAMES, *[f"{name}_reverse" for name in NAMES if not name.endswith(("flip", "reverse", "h", "v"))]]
)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("time", [None, 3])
def test_the_inverse_undoes_every_order(name: str, grid: tuple[int, int], time: int | None) -> None:
    """On square and other grids, with and without time."""
    for time_order in ("spatial_first", "temporal_first"):
        order = scan_order(name, *grid, time, time_order=time_order)  # type: ignore[arg-type]
        cells = (time or 1) * grid[0] * grid[1]
        assert sorted(order.index.tolist()) == list(range(cells))
        x = torch.arange(2.0 * cells * 2).view(2, cells, 2)
        assert torch.equal(order.unscan(order.scan(x)), x)
        assert torch.equal(order.index[order.inverse], torch.arange(cells))


@pytest.mark.parametrize("grid", [(3, 5), (9, 7), (6, 6), (1, 4)])
@pytest.mark.parametrize("name", ["window2", "window3_column", "window4_reverse", "w7_flip"])
def test_padded_windows_come_back_whole(name: str, grid: tuple[int, int]) -> None:
    order = scan_order(name, *grid, padded=True)
    x = torch.rand(2, grid[0] * grid[1], 3) + 1
    scanned = order.scan(x)
    assert torch.equal(scanned[:, order.index < 0], torch.zeros(2, int((order.index < 0).sum()), 3))
    assert torch.equal(order.unscan(scanned), x)
    plain = scan_order(name, *grid)
    assert torch.equal(order.index[order.index >= 0], plain.index), "without padding, the same order"


@pytest.mark.parametrize("routes", list_scan_routes())
@pytest.mark.parametrize("grid", [(3, 5), (4, 4), (7, 2)])
def test_merging_what_was_scanned_counts_every_route(routes: str, grid: tuple[int, int]) -> None:
    made = scan_routes(routes, *grid)
    x = torch.arange(2.0 * grid[0] * grid[1] * 3).view(2, -1, 3)
    assert torch.equal(made.merge(made.scan(x)), len(made.names) * x)


def test_cross_routes_are_the_published_ones() -> None:
    want = golden("scan_cross_a")
    names = {"cross": "cross", "unidi": "unidirectional", "bidi": "bidirectional_twice", "rot90": "rotation"}
    for height, width in ((3, 4), (5, 5)):
        for theirs, ours in names.items():
            key = f"H{height}_W{width}_{theirs}"
            made = scan_routes(ours, height, width)
            assert np.array_equal(made.index.numpy(), want[key])
            x = torch.arange(float(height * width)).view(1, -1, 1)
            assert np.array_equal(made.merge(made.scan(x)).flatten().numpy(), want[f"{key}_merge_of_scan"])


def test_windows_are_the_published_ones() -> None:
    want = golden("scan_local_window_a")
    for height, width, size in ((6, 6, 2), (14, 14, 7), (9, 7, 3)):
        for theirs, ours in (
            ("row", ""),
            ("row_flip", "_reverse"),
            ("col", "_column"),
            ("col_flip", "_column_reverse"),
        ):
            order = scan_order(f"window{size}{ours}", height, width, padded=True)
            assert np.array_equal(order.index.numpy(), want[f"H{height}_W{width}_w{size}_{theirs}"])


def test_zigzag_and_hilbert_paths_are_the_published_ones() -> None:
    want = golden("scan_zigzag_a")
    square = scan_routes("zigzag", 4, 4)
    assert np.array_equal(square.index.numpy(), want["zigzag8"])
    assert np.array_equal(square.inverse.numpy(), want["zigzag8_inverse"])
    assert np.array_equal(scan_routes("zigzag", 5, 7).index.numpy(), want["zigzag8_rect"])
    hilbert = scan_routes("hilbert", 4, 4)
    assert np.array_equal(hilbert.index.numpy(), want["gilbert8_traversal"])
    assert np.array_equal(hilbert.inverse.numpy(), want["gilbert8"])


def test_plain_orders_are_the_published_ones() -> None:
    want = golden("scan_plain_a")
    assert np.array_equal(scan_order("raster", 4, 5).index.numpy(), want["vim_forward"])
    assert np.array_equal(scan_order("reverse", 4, 5).index.numpy(), want["vim_backward"])
    assert np.array_equal(scan_routes("alternating_axes", 4, 5).index.numpy(), want["mamband_2d_layers0to3"])
    assert np.array_equal(scan_order("raster", 4, 5, 1).index.numpy(), want["videomamba_spatial_first"])


def steps(index: Tensor, width: int) -> Tensor:
    cells = torch.stack([index // width, index % width], 1)
    return cells.diff(dim=0).abs()


@pytest.mark.parametrize("grid", [(8, 8), (6, 10), (5, 9), (7, 7), (14, 14), (27, 27), (3, 11), (32, 20)])
def test_neighbours_follow_each_other_on_continuous_paths(grid: tuple[int, int]) -> None:
    """Zigzags step to a side neighbour; a Hilbert-like curve does so too, but for single diagonal steps."""
    for i in range(8):
        assert (steps(scan_order(f"zigzag{i}", *grid).index, grid[1]).sum(1) == 1).all()
        moves = steps(scan_order(f"hilbert{i}", *grid).index, grid[1])
        assert moves.max() == 1
        assert (moves.sum(1) > 1).sum() <= 1


def test_a_hilbert_curve_keeps_pieces_of_the_sequence_together() -> None:
    """256 consecutive cells of a 64 × 64 grid span about 16 × 16 cells, a raster's 4 × 64."""
    index = scan_order("hilbert", 64, 64).index
    pieces = torch.stack([index // 64, index % 64], 1).view(16, 256, 2)
    extent = pieces.amax(1) - pieces.amin(1) + 1
    assert extent.max() == 16


def test_time_orders() -> None:
    frames = scan_order("column", 2, 3, 2)
    assert frames.index.tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    places = scan_order("column", 2, 3, 2, time_order="temporal_first")
    assert places.index.tolist() == [0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11]
    backwards = scan_order("column_reverse", 2, 3, 2)
    assert torch.equal(backwards.index, frames.index.flip(0))


def test_orders_are_made_once_for_each_device() -> None:
    assert scan_order("zigzag3", 5, 6) is scan_order("zigzag3", 5, 6)
    assert scan_order("zigzag3", 5, 6, device="meta") is not scan_order("zigzag3", 5, 6)
    assert scan_order("zigzag3", 5, 6, device="meta").index.device.type == "meta"
    assert scan_routes("cross", 5, 6) is scan_routes("cross", 5, 6)


def test_an_order_made_without_gradients_serves_training() -> None:
    with torch.inference_mode():
        order = scan_order("zigzag1", 3, 17)
    x = torch.rand(1, 51, 2, requires_grad=True)
    order.scan(x).square().sum().backward()
    assert torch.allclose(x.grad, 2 * x)  # type: ignore[arg-type]


def test_gradients_of_an_order_are_those_of_indexing() -> None:
    order = scan_order("hilbert1", 3, 5)
    assert not torch.equal(order.index, order.inverse)  # else a wrong direction would go unnoticed
    x = torch.randn(2, 15, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 15, 3, dtype=torch.float64)
    for read, index in ((order.scan, order.index), (order.unscan, order.inverse)):
        (got,) = torch.autograd.grad((read(x) * weight).sum(), x)
        (want,) = torch.autograd.grad((x[:, index] * weight).sum(), x)
        assert torch.equal(got, want)
        assert torch.autograd.gradgradcheck(lambda x, read=read: read(x).pow(3), x)
    middle = x.transpose(1, 2)
    assert torch.equal(order.scan(middle, 2), x[:, order.index].transpose(1, 2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: scan_order("rasta", 3, 3), "raster"),
        (lambda: scan_order("zigzag8", 3, 3), "zigzag"),
        (lambda: scan_order("window0", 3, 3), "window"),
        (lambda: scan_order("raster", 0, 3), "height is 0"),
        (lambda: scan_order("raster", 3, 3, 0), "time is 0"),
        (lambda: scan_order("raster", 3, 3, 2, time_order="time"), "spatial_first"),  # type: ignore[arg-type]
        (lambda: scan_order("window2", 3, 3, 2, padded=True), "padded"),
        (lambda: scan_routes("crossed", 3, 3), "cross"),
        (lambda: scan_routes(("raster", "colum"), 3, 3), "column"),
    ],
)
def test_mistakes_are_told_in_one_line(call: Any, text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        call()
    assert "\n" not in str(error.value)
