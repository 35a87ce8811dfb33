"""A table as it was, with its empty cells filled and its missing rows put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from .data.frames import MISSING, read_table, stamps
from .data.long_format import Columns
from .data.series import SeriesSet


def filled_table(
    source: Any,
    data: SeriesSet,
    values: Sequence[np.ndarray],
    *,
    time: str,
    columns: Columns | None = None,
    date_format: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table with its holes filled, every other cell as it is written, and the list of what was filled.

    The list has the columns ``unique_id``, ``ds``, ``channel`` and ``value``. A row that is put in, behind the one
    before it, holds series, stamp and values, and nothing else.

    Args:
        source: file or frame that ``data`` was read from.
        data: the series, NaN where a value is missing.
        values: filled, (time, channels) for each.
        time: column of stamps.
        columns: of a long table; None for a wide one.
        date_format: as the stamps were read with.
    """
    frame, name = read_table(source)
    times, _ = stamps(
        read_table(source, text_columns=(time,))[0] if date_format else frame, time, name, None, date_format
    )
    texts = read_table(source, text_columns=tuple(frame.columns))[0].astype(object)
    names = texts[columns.id].astype(str).to_numpy() if columns is not None else np.full(len(texts), data[0].name)
    targets = [columns.target] if columns is not None else list(data.channels)
    places = {(one, stamp): row for row, (one, stamp) in enumerate(zip(names, times.tolist(), strict=True))}
    added: list[tuple[float, dict[str, Any]]] = []
    filled: list[tuple[str, Any, str, float]] = []
    cells = {target: texts[target].to_numpy(dtype=object, copy=True) for target in targets}
    for series, own in zip(data, values, strict=True):
        row = -1
        for index, stamp in enumerate(series.stamps.tolist()):
            holes = np.flatnonzero(~series.observed[index])
            here = places.get((series.name, stamp))
            row = row if here is None else here
            if not len(holes):
                continue
            written = {targets[hole]: f"{own[index, hole]:.10g}" for hole in holes}
            filled += [(series.name, series.stamps[index], targets[hole], own[index, hole]) for hole in holes]
            if here is not None:
                for target, text in written.items():
                    cells[target][here] = text
                continue
            shown = _like(texts[time].iloc[max(row, 0)], series.stamps[index], date_format)
            new = {time: shown, **written} | ({columns.id: series.name} if columns is not None else {})
            added.append((row + (len(added) + 1) / (len(added) + 2), new))
    result = texts.assign(**cells)
    if added:
        result.index = pd.Index(np.arange(len(texts), dtype=np.float64))
        more = pd.DataFrame([new for _, new in added], index=[place for place, _ in added], columns=texts.columns)
        result = pd.concat([result, more]).sort_index(kind="stable").reset_index(drop=True)
    result = result.where(~result.isin(MISSING) & result.notna(), "")
    return result, pd.DataFrame(filled, columns=["unique_id", "ds", "channel", "value"])


def _like(example: Any, stamp: Any, date_format: str | None) -> Any:
    """Write a stamp as the table writes its others."""
    if not isinstance(stamp, np.datetime64):
        return str(stamp)
    when = pd.Timestamp(stamp)
    if date_format is not None:
        return when.strftime(date_format)
    text = str(example)
    if len(text.strip()) == 10:
        return when.strftime("%Y-%m-%d")
    zone = "Z" if text.endswith("Z") else "+00:00" if text[-6:] in ("+00:00", "-00:00") else ""
    return when.isoformat(sep="T" if "T" in text else " ") + zone
