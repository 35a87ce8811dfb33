"""One reader for all layouts of series to forecast."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import UserError, nearest
from .frames import read_table
from .long_format import Columns, read_long
from .m4 import read_m4
from .series import SeriesSet
from .tsf import read_tsf
from .wide import read_wide

LAYOUTS = ("long", "wide", "m4", "tsf")


def read_series(source: Any, layout: str | None = None, **options: Any) -> SeriesSet:
    """Read series of any layout.

    Args:
        source: path, or data frame (long and wide).
        layout: of `LAYOUTS`; found from the file's ending and columns where None.
        options: those of `read_long`, `read_wide`, `read_m4` or `read_tsf`.

    Raises:
        UserError: the layout cannot be told, or anything the readers refuse.
    """
    if layout is None:
        layout = find_layout(source, options)
    if layout not in LAYOUTS:
        raise UserError(f"layout={layout!r} is unknown ({nearest(layout, LAYOUTS)})")
    if layout == "tsf":
        return read_tsf(source, **options)
    if layout == "m4":
        return read_m4(source, **options)[0]
    return read_long(source, **options) if layout == "long" else read_wide(source, **options)


def find_layout(source: Any, options: Mapping[str, Any]) -> str:
    """Return the layout that a file's ending and columns show.

    Args:
        source: path or data frame.
        options: of the reader, for the names of columns (``columns``, ``time``).

    Raises:
        UserError: it cannot be told; lists the columns present.
    """
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".tsf":
        return "tsf"
    if isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == ".ts":
        raise UserError(f"{source}: a .ts file holds labelled series, not ones to forecast; read it with read_ts")
    frame, name = read_table(source)
    present = [str(column) for column in frame.columns]
    columns = options.get("columns", Columns())
    if {columns.id, columns.time, columns.target} <= set(present):
        return "long"
    if options.get("time", "date") in present:
        return "wide"
    if present[:2] == ["V1", "V2"]:
        return "m4"
    shown = ", ".join(present[:12]) + (f" and {len(present) - 12} more" if len(present) > 12 else "")
    raise UserError(
        f"{name}: neither a long table ({columns.id}, {columns.time}, {columns.target}) nor a wide one "
        f"({options.get('time', 'date')} and a column for each channel); present: {shown}; give layout and column names"
    )
