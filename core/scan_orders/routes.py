"""Several scan orders of one grid, which a model scans side by side and merges by addition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import UserError, nearest
from .orders import TimeOrder, scan_order

_ROUTES: dict[str, tuple[str, ...]] = {
    "unidirectional": ("raster", "raster", "raster", "raster"),
    "bidirectional": ("raster", "raster_reverse"),
    "bidirectional_twice": ("raster", "raster", "raster_reverse", "raster_reverse"),
    "cross": ("raster", "column", "raster_reverse", "column_reverse"),
    "rotation": tuple(f"rotation{i}" for i in range(4)),
    "zigzag": tuple(f"zigzag{i}" for i in range(8)),
    "hilbert": tuple(f"hilbert{i}" for i in range(8)),
    "alternating_axes": ("raster", "raster_reverse", "column", "column_reverse"),
}


@dataclass(frozen=True, eq=False)
class ScanRoutes:
    """K scan orders of one grid.

    Attributes:
        names: of the orders.
        index: int64 (K, cells), and
        inverse: int64 (K, cells): as in :class:`ScanOrder`.
    """

    names: tuple[str, ...]
    index: Tensor
    inverse: Tensor

    def scan(self, x: Tensor) -> Tensor:
        """Read every route: (batch, cells, channels) to (batch, K, cells, channels)."""
        return x[:, self.index]

    def merge(self, y: Tensor) -> Tensor:
        """Undo every route and add: (batch, K, cells, channels) to (batch, cells, channels)."""
        routes = torch.arange(len(self.names), device=y.device).unsqueeze(1)
        return y[:, routes, self.inverse].sum(1)


def list_scan_routes() -> dict[str, tuple[str, ...]]:
    """Return the named sets of routes with the orders in each."""
    return dict(_ROUTES)


def scan_routes(
    routes: str | tuple[str, ...],
    height: int,
    width: int,
    time: int | None = None,
    *,
    time_order: TimeOrder = "spatial_first",
    device: torch.device | str | None = None,
) -> ScanRoutes:
    """Return a set of routes; asked for again, it is not made again.

    Args:
        routes: ``cross`` (VMamba's four), ``bidirectional``, ``bidirectional_twice`` (VMamba's "bidi"),
            ``unidirectional``, ``rotation``, ``zigzag`` (ZigMa's eight), ``hilbert`` (eight), ``alternating_axes``
            (Mamba-ND's, one for each layer in turn), or the names of orders.
        height, width, time, time_order, device: as for :func:`scan_order`.

    Raises:
        UserError: for an unknown name or an empty grid.
    """
    if isinstance(routes, str):
        if routes not in _ROUTES:
            raise UserError(f"scan routes {routes!r} are unknown; {nearest(routes, _ROUTES)}")
        routes = _ROUTES[routes]
    return _make(tuple(routes), height, width, time, time_order, torch.device(device or "cpu"))


@lru_cache(maxsize=256)
def _make(
    names: tuple[str, ...], height: int, width: int, time: int | None, time_order: TimeOrder, device: torch.device
) -> ScanRoutes:
    orders = [scan_order(name, height, width, time, time_order=time_order, device=device) for name in names]
    with torch.inference_mode(False):
        return ScanRoutes(names, torch.stack([o.index for o in orders]), torch.stack([o.inverse for o in orders]))
