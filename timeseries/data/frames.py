"""Tables from files and from data frames, with columns checked and numbers and dates parsed strictly."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ...core.errors import UserError
from ...core.files import require_file

#: What stands for a missing value in a file.
MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None", "<NA>", "?"]

_ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet", ".pq")
_ZONE = re.compile(r"\d[T ]\d\d.*?(Z|[+-]\d\d:?\d\d)$")


def read_table(source: Any, text_columns: Sequence[str] = ()) -> tuple[pd.DataFrame, str]:
    """Return a table, its rows numbered from 0, and what to call it in messages.

    Args:
        source: path of a CSV, TSV (also ``.gz``) or Parquet file; or a pandas, polars or pyarrow table.
        text_columns: columns whose cells stay text as they are (``007``, ``NA``).

    Raises:
        UserError: no such file, an unknown kind, an empty table, or a file that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(require_file(source), text_columns)
    if isinstance(source, pd.DataFrame):
        frame, name = source, "table"
    elif hasattr(source, "to_pandas"):  # polars and pyarrow
        try:
            frame, name = source.to_pandas(), f"{type(source).__module__.partition('.')[0]} table"
        except ImportError as error:
            raise UserError(f"this table needs pyarrow to be converted; pip install pyarrow ({error})") from error
    else:
        raise UserError(f"cannot read a table from a {type(source).__name__}; give a path or a data frame")
    if len(frame) == 0:
        raise UserError(f"{name}: it has no rows; give at least one series")
    if not isinstance(frame.index, pd.RangeIndex) and frame.index.name in ("unique_id", "date", "ds"):
        frame = frame.reset_index()
    return frame.reset_index(drop=True), name


def _read_file(path: Path, text_columns: Sequence[str]) -> tuple[pd.DataFrame, str]:
    name = path.name.lower()
    if not name.endswith(_ENDINGS):
        raise UserError(f"{path}: unknown kind of table; use one of {', '.join(_ENDINGS)}")
    if name.endswith((".parquet", ".pq")):
        frame = _read_parquet(path)
    else:
        frame = _read_text(path, "\t" if ".tsv" in name else ",", text_columns)
    if len(frame) == 0:
        raise UserError(f"{path}: it has a header and no rows; give at least one series")
    repeated = frame.columns[frame.columns.duplicated()]
    if len(repeated):
        raise UserError(f"{path}: column {repeated[0]!r} occurs twice; rename one")
    return frame, str(path)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise UserError(f"{path}: Parquet files need pyarrow; pip install pyarrow") from error
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    return frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()


def _read_text(path: Path, separator: str, text_columns: Sequence[str]) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            header = pd.read_csv(path, sep=separator, nrows=0).columns
            # Rows with more cells than the header would be cut off with no more than a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                dtype=dict.fromkeys((column for column in header if column in text_columns), str),
                keep_default_na=False,
                na_values={column: MISSING for column in header if column not in text_columns},
                index_col=False,
                low_memory=False,
            )
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error
    return frame


def _unreadable(path: Path, error: Exception | Warning) -> UserError:
    line = str(error).strip().splitlines()[0]
    return UserError(f"{path}: cannot be read as a table ({line}); check its format and encoding")


def require_columns(frame: pd.DataFrame, wanted: Sequence[str], source: str, remedy: str = "") -> None:
    """Check that columns are there.

    Raises:
        UserError: one is missing; lists those present.
    """
    present = [str(column) for column in frame.columns]
    for column in wanted:
        if column not in present:
            shown = ", ".join(present[:12]) + (f" and {len(present) - 12} more" if len(present) > 12 else "")
            raise UserError(f"{source}: no column {column!r}; present: {shown}{remedy and '; ' + remedy}")


def where(frame: pd.DataFrame, row: int, source: str, id_column: str | None = None) -> str:
    """Name a row for a message: the source, the series, and the row counted from 1 after the header."""
    series = f"series {str(frame[id_column].iloc[row])!r}, " if id_column is not None else ""
    return f"{source}: {series}row {row + 1}"


def numbers(frame: pd.DataFrame, column: str, source: str, id_column: str | None = None) -> np.ndarray:
    """Return a column as float64 (rows,), NaN where missing.

    Raises:
        UserError: text or an infinite value; names the row.
    """
    cells = frame[column]
    if pd.api.types.is_numeric_dtype(cells):
        values = cells.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        empty = cells.isna() | cells.astype(str).str.strip().isin(MISSING)
        wrong = np.flatnonzero(np.isnan(values) & ~empty.to_numpy())
        if len(wrong):
            row = int(wrong[0])
            place = where(frame, row, source, id_column)
            raise UserError(f"{place}: {column} is {cells.iloc[row]!r}, not a number; correct it or leave it empty")
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        place = where(frame, int(infinite[0]), source, id_column)
        raise UserError(f"{place}: {column} is {values[infinite[0]]}; values must be finite, or empty where missing")
    return values


def stamps(
    frame: pd.DataFrame, column: str, source: str, id_column: str | None = None, date_format: str | None = None
) -> tuple[np.ndarray, str | None]:
    """Return a column as stamps, int64 or datetime64[us] (rows,), and their time zone; zoned ones become UTC.

    Args:
        frame: the table.
        column: integers, dates, or text in ISO 8601 or ``date_format``.
        source: for messages.
        id_column: for messages.
        date_format: as of ``strptime``; needed where ``01/02/2020`` could be read in two ways.

    Raises:
        UserError: an unparsable, missing or ambiguous date, or dates of several zones; names the row.
    """
    cells = frame[column]
    missing = np.flatnonzero(cells.isna().to_numpy())
    if len(missing):
        raise UserError(f"{where(frame, int(missing[0]), source, id_column)}: {column} is missing; fill in its date")
    if pd.api.types.is_integer_dtype(cells) and _like_dates(cells) and date_format is None:
        raise UserError(
            f"{source}: {column} such as {cells.iloc[0]} may be dates or whole numbers; "
            f"give date_format=%Y%m%d for dates, or count from another number"
        )
    if pd.api.types.is_integer_dtype(cells) and date_format is None:
        return cells.to_numpy(dtype=np.int64), None
    if pd.api.types.is_float_dtype(cells):
        values = cells.to_numpy(dtype=np.float64)
        wrong = np.flatnonzero(values != np.round(values))
        if len(wrong):
            place = where(frame, int(wrong[0]), source, id_column)
            raise UserError(f"{place}: {column} is {values[wrong[0]]}; numeric stamps must be whole numbers")
        return values.astype(np.int64), None
    if isinstance(cells.dtype, pd.PeriodDtype):
        cells = cells.dt.to_timestamp()
    if isinstance(cells.dtype, pd.DatetimeTZDtype):
        return _microseconds(cells.dt.tz_convert("UTC").dt.tz_localize(None), source), str(cells.dt.tz)
    if pd.api.types.is_datetime64_dtype(cells):
        return _microseconds(cells, source), None
    text = cells.astype(str).str.strip()
    zones = text.str.extract(_ZONE, expand=False).fillna("").replace({"Z": "+00:00", "+0000": "+00:00"})
    if (differs := np.flatnonzero((zones != zones.iloc[0]).to_numpy())).size:
        row = int(differs[0])
        place = where(frame, row, source, id_column)
        first, other = zones.iloc[0] or "none", zones.iloc[row] or "none"
        raise UserError(f"{place}: time zone {other} after {first}; write all dates in UTC or all without a zone")
    parsed = _parse(text, frame, column, source, id_column, date_format, zoned=bool(zones.iloc[0]))
    return _microseconds(parsed, source), "UTC" if zones.iloc[0] else None


def _parse(
    text: pd.Series, frame: pd.DataFrame, column: str, source: str, id_column: str | None, date_format: str | None,
    *, zoned: bool,
) -> pd.Series:  # fmt: skip
    def attempt(**how: Any) -> pd.Series:
        return pd.to_datetime(text, errors="coerce", utc=zoned, **how)

    parsed = attempt(format=date_format or "ISO8601")
    if date_format is None and (bad := parsed.isna()).any():
        month_first, day_first = attempt(format="mixed"), attempt(format="mixed", dayfirst=True)
        if bad.all():
            if not day_first.isna().any() and not month_first.isna().any():
                if not _same(month_first, day_first):
                    raise UserError(
                        f"{source}: {column} such as {text.iloc[0]!r} can be read in two ways; "
                        f"give date_format, such as %d/%m/%Y or %m/%d/%Y"
                    )
                parsed = month_first
    wrong = np.flatnonzero(parsed.isna().to_numpy())
    if len(wrong):
        row = int(wrong[0])
        how = f"the format {date_format}" if date_format else "a date such as 2024-01-31 or 2024-01-31 18:00:00"
        raise UserError(f"{where(frame, row, source, id_column)}: {column} is {text.iloc[row]!r}, not {how}")
    return parsed.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else parsed


def _like_dates(cells: pd.Series) -> bool:
    """Whether whole numbers could all be dates written as 20240131."""
    if not cells.between(1800_01_01, 2200_12_31).all():
        return False
    return bool(pd.to_datetime(cells.astype(str), format="%Y%m%d", errors="coerce").notna().all())


def _same(one: pd.Series, other: pd.Series) -> bool:
    return bool((one == other).all())


def _microseconds(cells: pd.Series, source: str) -> np.ndarray:
    dates = cells.to_numpy()
    result = dates.astype("datetime64[us]")
    if np.any(result.astype(dates.dtype) != dates):
        raise UserError(f"{source}: stamps finer than a microsecond are not supported; use integer stamps")
    return result
