"""From the options of a command to series."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..card import TimeSeriesCard
    from ..data import Columns, SeriesSet


def table_columns(arguments: argparse.Namespace, card: TimeSeriesCard | None = None) -> Columns:
    """Return the columns of a long table, as the options say, else the card, else the usual names."""
    from ..data import Columns

    usual = Columns() if card is None else card.columns
    return Columns(
        id=arguments.id_column or usual.id,
        time=arguments.time_column or usual.time,
        target=arguments.target_column or usual.target,
        historic=arguments.historic or usual.historic,
        future=arguments.future or usual.future,
        static=arguments.static or usual.static,
    )


def read_data(arguments: argparse.Namespace, card: TimeSeriesCard | None = None) -> SeriesSet:
    """Read the table that ``--data`` names; a packaged data set goes by its name.

    Args:
        arguments: of `options.add_data_arguments`.
        card: of the model that is to read them, which knows columns and frequency.

    Raises:
        UserError: anything wrong with the table.
    """
    data = _read(arguments, card)
    return data if arguments.season is None else data.replace(data.series, season_length=arguments.season)


def _read(arguments: argparse.Namespace, card: TimeSeriesCard | None) -> SeriesSet:
    from ..data import Policy, read_series
    from ..data.reading import find_layout
    from ..datasets import DATASETS, dataset_path

    columns = table_columns(arguments, card)
    source = dataset_path(arguments.data) if arguments.data in DATASETS else arguments.data
    wide_time = arguments.time_column or "date"
    layout = arguments.layout or find_layout(source, {"columns": columns, "time": wide_time})
    if layout in ("m4", "tsf"):
        return read_series(source, layout)
    options: dict[str, Any] = {
        "frequency": _frequency(arguments.frequency),
        "policy": Policy(arguments.duplicates, arguments.irregular, arguments.gaps, arguments.missing),
        "date_format": arguments.date_format,
    }
    if layout == "long":
        return read_series(source, layout, columns=columns, **options)
    channels = arguments.channels
    if channels is None and card is not None and len(card.channels) > 1:
        channels = card.channels
    return read_series(
        source, layout, time=wide_time, channels=channels, historic=columns.historic, future=columns.future, **options
    )


def _frequency(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text
