"""The Monash archive's ``.tsf`` files (Godahewa et al. 2021)."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from ...core.errors import UserError
from ...core.files import require_file
from ..frequency import WORDS, Frequency, parse_frequency
from .series import Series, SeriesSet, make_series

_KINDS = ("string", "numeric", "date")


def read_tsf(path: str | os.PathLike[str]) -> SeriesSet:
    """Return the series of a ``.tsf`` file; ``?`` is a missing value, masked.

    Stamps are dates where every series has a start that lies on the frequency's calendar, else counted from 1.

    Raises:
        UserError: a malformed header or line; names the line and the series.
    """
    path = require_file(path)
    attributes: list[tuple[str, str]] = []
    header: dict[str, str] = {}
    found: list[Series] = []
    starts: list[datetime | None] = []
    in_data = False
    for number, line in enumerate(_text(path).splitlines(), start=1):
        line = line.strip()
        place = f"{path}: line {number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith("@"):
            key, *rest = line[1:].split()
            if key.lower() == "data":
                in_data = True
            elif key.lower() == "attribute":
                if len(rest) != 2 or rest[1] not in _KINDS:
                    raise UserError(f"{place}: {line!r} should be @attribute, a name, and one of {', '.join(_KINDS)}")
                attributes.append((rest[0], rest[1]))
            elif rest:
                header[key.lower()] = rest[0]
            continue
        if not in_data:
            raise UserError(f"{place}: values before @data; add the line @data")
        name, start, values = _series(line, attributes, place, len(found) + 1)
        found.append(make_series(name, np.arange(1, len(values) + 1), values))
        starts.append(start)
    if not found:
        raise UserError(f"{path}: it has no series after @data")
    names = [series.name for series in found]
    if len(set(names)) < len(names):
        twice = next(name for index, name in enumerate(names) if name in names[:index])
        raise UserError(f"{path}: series {twice!r} occurs twice; keep one")
    word = header.get("frequency")
    frequency, dated = _dated(found, starts, word)
    season = parse_frequency(word).season_length if word else None
    horizon = int(header["horizon"]) if header.get("horizon", "").isdigit() else None
    return SeriesSet(tuple(dated), frequency, source=str(path), season_length=season, horizon=horizon)


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")  # as the archive's own reader; only prose has such letters


def _series(
    line: str, attributes: list[tuple[str, str]], place: str, count: int
) -> tuple[str, datetime | None, np.ndarray]:
    parts = line.split(":")
    if len(parts) != len(attributes) + 1:
        raise UserError(f"{place}: {len(parts) - 1} attributes, but the header names {len(attributes)}")
    name, start = f"T{count}", None
    for (attribute, kind), text in zip(attributes, parts, strict=False):
        if attribute == "series_name":
            name = text
        elif kind == "date" and start is None:
            try:
                start = datetime.strptime(text, "%Y-%m-%d %H-%M-%S")
            except ValueError as error:
                raise UserError(
                    f"{place}: series {name!r}: {attribute} {text!r} is not like 2000-01-31 18-00-00"
                ) from error
    values = []
    for index, text in enumerate(parts[-1].split(","), start=1):
        try:
            values.append(np.nan if text.strip() == "?" else float(text))
        except ValueError as error:
            raise UserError(f"{place}: series {name!r}, value {index}: {text!r} is neither a number nor ?") from error
    array = np.array(values)
    if np.isinf(array).any():
        raise UserError(f"{place}: series {name!r}: value {int(np.isinf(array).argmax()) + 1} is infinite")
    return name, start, array


def _dated(found: list[Series], starts: list[datetime | None], word: str | None) -> tuple[Frequency, list[Series]]:
    """Return the series with dates where all starts lie on one calendar."""
    first = starts[0]
    if word is None or first is None or any(start is None for start in starts):
        return Frequency(1), found
    alias = WORDS.get(word.lower(), word)
    month = first.strftime("%b").upper()
    if alias in ("QS", "YS"):
        alias = f"{alias}-{month}"
    elif alias == "W":
        alias = f"W-{first.strftime('%a').upper()}"
    frequency = parse_frequency(alias)
    offset = frequency.offset
    if not all(offset.is_on_offset(pd.Timestamp(start)) for start in starts):
        return Frequency(1), found
    dated = []
    for series, start in zip(found, starts, strict=True):
        dates = pd.date_range(pd.Timestamp(start), periods=len(series), freq=offset)
        dated.append(make_series(series.name, np.asarray(dates).astype("datetime64[us]"), series.values))
    return frequency, dated
