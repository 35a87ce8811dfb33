"""What time-series models are trained to do."""

from __future__ import annotations

from .classification import SeriesClassification
from .forecasting import Forecasting
from .validate_first import ValidateFirst

__all__ = ["Forecasting", "SeriesClassification", "ValidateFirst"]
