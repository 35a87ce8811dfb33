"""Models trained here, whose weights ship in the package."""

from __future__ import annotations

from pathlib import Path

from ...core.registry import register_shipped
from . import zero_shot  # noqa: F401  (its architecture)

register_shipped(
    "zero_shot",
    "timeseries",
    "ZeroShotForecaster",
    Path(__file__).parent.parent / "zoo",
    "forecasts series that it has never seen, with deciles; trained on synthetic ones alone (timeseries/zero_shot)",
)
