"""Series from files and tables, and data modules over them.

The data modules need lightning, which takes seconds to import, so each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .calendar import calendar_features, calendar_integers, calendar_names
    from .future import future_frame, future_stamps, read_future
    from .labelled import LabelledSeries, read_ts
    from .long_format import Columns, read_long
    from .ltsf_windows import LTSFDataModule
    from .m4 import read_m4
    from .reading import read_series
    from .regularity import Policy
    from .series import QualityReport, Series, SeriesSet, make_series
    from .series_windows import SeriesDataModule
    from .tsf import read_tsf
    from .wide import read_wide

_MODULES = {
    "Columns": "long_format",
    "LTSFDataModule": "ltsf_windows",
    "LabelledSeries": "labelled",
    "Policy": "regularity",
    "QualityReport": "series",
    "Series": "series",
    "SeriesDataModule": "series_windows",
    "SeriesSet": "series",
    "calendar_features": "calendar",
    "calendar_integers": "calendar",
    "calendar_names": "calendar",
    "future_frame": "future",
    "future_stamps": "future",
    "make_series": "series",
    "read_future": "future",
    "read_long": "long_format",
    "read_m4": "m4",
    "read_series": "reading",
    "read_ts": "labelled",
    "read_tsf": "tsf",
    "read_wide": "wide",
}

__all__ = [
    "Columns",
    "LTSFDataModule",
    "LabelledSeries",
    "Policy",
    "QualityReport",
    "Series",
    "SeriesDataModule",
    "SeriesSet",
    "calendar_features",
    "calendar_integers",
    "calendar_names",
    "future_frame",
    "future_stamps",
    "make_series",
    "read_future",
    "read_long",
    "read_m4",
    "read_series",
    "read_ts",
    "read_tsf",
    "read_wide",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
