"""Scan orders as data: in which order a sequence model reads the cells of an image, of a video or of any other grid.

:func:`scan_order` gives one order, :func:`scan_routes` the set of orders that a model scans side by side (``"cross"``,
``"zigzag"``, …). Both work on any height and width, optionally with time, and are remembered for each device.
:func:`permute_tokens` brings tokens into an order.
"""

from .orders import ScanOrder, list_scan_orders, scan_order
from .permutation import permute_tokens
from .routes import ScanRoutes, list_scan_routes, scan_routes

__all__ = [
    "ScanOrder",
    "ScanRoutes",
    "list_scan_orders",
    "list_scan_routes",
    "permute_tokens",
    "scan_order",
    "scan_routes",
]
