"""The protocol of long-term series forecasting: splits, scaling, windows and scores, without its known leaks.

Rows are counted after the header. Training windows lie wholly within the training rows; validation and test windows may
read the end of the split before as input, but never predict it. Every window of a split is scored: the published tables
of 2021 to 2023 dropped the last incomplete batch of the test set, by which scores depend on the batch size.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from ..core.errors import UserError, nearest
from .data.regularity import Policy
from .data.wide import read_wide
from .datasets import DATASETS, dataset_path
from .frequency import Frequency

Split = Literal["train", "val", "test"]
Features = Literal["M", "S", "MS"]

#: Horizons of the tables; (24, 36, 48, 60) for the weekly illness data.
HORIZONS = (96, 192, 336, 720)

#: Standard names -> other names that files carry.
NAMES = {
    "ETTh1": (), "ETTh2": (), "ETTm1": (), "ETTm2": (), "exchange": ("exchange_rate",), "weather": (),
    "electricity": ("ECL",), "traffic": (), "illness": ("national_illness", "ILI"),
}  # fmt: skip


@dataclass(frozen=True)
class Borders:
    """First rows after the training, validation and test targets."""

    train: int
    val: int
    test: int


def split_borders(name: str, rows: int) -> Borders:
    """Return the borders: 12, 4 and 4 months of 30 days for ETT, else 70 %, the rest, and 20 %.

    Raises:
        UserError: a file of ETT that is too short for them, or fewer than 10 rows.
    """
    if name.startswith("ETT"):
        month = 30 * 24 * (4 if name.startswith("ETTm") else 1)
        borders = Borders(12 * month, 16 * month, 20 * month)
        if rows < borders.test:
            raise UserError(f"{name}: {rows} rows, the protocol needs {borders.test}; use the complete file")
        return borders
    if rows < 10:
        raise UserError(f"{name}: {rows} rows cannot be split; give at least 10")
    # int(), not rounding, and validation takes what is left, as in the published loaders.
    train, test = int(rows * 0.7), int(rows * 0.2)
    return Borders(train, rows - test, rows)


@dataclass(frozen=True)
class LTSFData:
    """A table under the protocol.

    Args:
        name: standard name, or that of the file.
        stamps: datetime64[us] (rows,).
        values: in original units, float64 (rows, channels); the target last.
        channels: their names.
        frequency: of the stamps.
        borders: of the splits.
        mean, std: of the training rows, float64 (channels,); std with ddof 0, 1 for a constant channel.
        features: ``M`` all channels in and out, ``S`` the target alone, ``MS`` all in and the target out.
    """

    name: str
    stamps: np.ndarray
    values: np.ndarray
    channels: tuple[str, ...]
    frequency: Frequency
    borders: Borders
    mean: np.ndarray
    std: np.ndarray
    features: Features = "M"

    @property
    def scaled(self) -> np.ndarray:
        """(values - mean) / std, float64 (rows, channels). Scores are of these, and are never scaled back."""
        return (self.values - self.mean) / self.std

    @property
    def targets(self) -> slice:
        """The channels that are predicted."""
        return slice(-1, None) if self.features == "MS" else slice(None)

    def segment(self, split: Split, lookback: int) -> slice:
        """Rows that the windows of a split are cut from: its own, and for val and test ``lookback`` before them.

        Raises:
            UserError: an unknown split, or a lookback below 1 or beyond the rows before the split.
        """
        if split not in get_args(Split):
            raise UserError(f"split={split!r} is unknown ({nearest(split, get_args(Split))})")
        if lookback < 1:
            raise UserError(f"lookback={lookback} must be at least 1")
        ends = {"train": (0, self.borders.train), "val": (self.borders.train, self.borders.val)}
        begin, end = ends.get(split, (self.borders.val, self.borders.test))
        if split != "train":
            begin -= lookback
        if begin < 0:
            raise UserError(
                f"{self.name}: lookback {lookback} is longer than the {begin + lookback} rows before {split}"
            )
        return slice(begin, end)

    def window_count(self, split: Split, lookback: int, horizon: int) -> int:
        """Number of windows of a split at stride 1.

        Raises:
            UserError: none fits.
        """
        if horizon < 1:
            raise UserError(f"horizon={horizon} must be at least 1")
        rows = self.segment(split, lookback)
        count = rows.stop - rows.start - lookback - horizon + 1
        if count < 1:
            raise UserError(
                f"{self.name}: no {split} window of lookback {lookback} and horizon {horizon} fits its "
                f"{rows.stop - rows.start} rows; shorten them"
            )
        return count

    def windows(self, split: Split, lookback: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
        """Return all windows of a split, scaled: inputs float64 (windows, lookback, channels) and targets float64
        (windows, horizon, target channels), views that take no memory."""
        count = self.window_count(split, lookback, horizon)
        part = self.scaled[self.segment(split, lookback)]
        inputs = np.lib.stride_tricks.sliding_window_view(part, lookback, axis=0)[:count]
        targets = np.lib.stride_tricks.sliding_window_view(part[lookback:], horizon, axis=0)
        return inputs.transpose(0, 2, 1), targets.transpose(0, 2, 1)[:, :, self.targets]


def load_ltsf(
    source: str | os.PathLike[str],
    *,
    name: str | None = None,
    features: Features = "M",
    target: str | None = None,
) -> LTSFData:
    """Read a table with a ``date`` column for the protocol.

    Args:
        source: CSV, TSV or Parquet file; or the name of a packaged data set (``ETTh1``).
        name: by which the borders are chosen; that of the file where None. ETT data under another name would get wrong
            borders, so name it.
        features: ``M``, ``S`` or ``MS``.
        target: the channel of ``S`` and ``MS``, moved to the end; where None ``OT`` if there, else the last one.

    Raises:
        UserError: anything wrong with the file; missing values, which the protocol does not know.
    """
    if features not in get_args(Features):
        raise UserError(f"features={features!r} is unknown; use M, S or MS")
    path = dataset_path(source) if isinstance(source, str) and source in DATASETS else source
    chosen = _standard_name(name if name is not None else Path(path).name.partition(".")[0])
    data = read_wide(path, policy=Policy(missing="error"))
    if data.frequency is None or data.frequency.is_integer:
        raise UserError(f"{path}: the column date holds whole numbers; the protocol needs dates")
    series, channels = data[0], list(data.channels)
    last = target if target is not None else ("OT" if "OT" in channels else channels[-1])
    if last not in channels:
        raise UserError(f"{path}: no target {last!r} ({nearest(last, channels)})")
    channels = [last] if features == "S" else [*(c for c in channels if c != last), last]
    values = series.values[:, [data.channels.index(channel) for channel in channels]]
    borders = split_borders(chosen, len(values))
    train = values[: borders.train]
    std = train.std(0)
    std = np.where(std == 0, 1.0, std)
    return LTSFData(
        chosen, series.stamps, values, tuple(channels), data.frequency, borders, train.mean(0), std, features
    )


def _standard_name(name: str) -> str:
    for standard, others in NAMES.items():
        if name.lower() in (standard.lower(), *(other.lower() for other in others)):
            return standard
    return name


@dataclass(frozen=True)
class Score:
    """Mean errors over windows, steps and channels on scaled values, and over how many windows."""

    mse: float
    mae: float
    windows: int
    mse_by_step: np.ndarray
    mae_by_step: np.ndarray

    def __str__(self) -> str:
        return f"MSE {self.mse:.4f}, MAE {self.mae:.4f} over {self.windows} windows"


class ScoreSums:
    """Sums from which the score of a split is computed at the end, so that batches of unequal size weigh right."""

    def __init__(self) -> None:
        self.windows, self.channels = 0, 0
        self.squares: Any = 0.0
        self.absolutes: Any = 0.0

    def update(self, forecasts: np.ndarray, targets: np.ndarray) -> None:
        """Add windows, (windows, horizon, channels) each.

        Raises:
            ValueError: shapes differ.
            UserError: a forecast that is not finite.
        """
        if forecasts.shape != targets.shape:
            raise ValueError(f"forecasts of shape {forecasts.shape}, targets of shape {targets.shape}")
        if not np.isfinite(forecasts).all():
            raise UserError("a forecast is not finite; the model diverged, lower its learning rate")
        errors = np.asarray(forecasts, dtype=np.float64) - targets
        self.windows += len(errors)
        self.channels = errors.shape[2]
        self.squares = self.squares + (errors**2).sum((0, 2))
        self.absolutes = self.absolutes + np.abs(errors).sum((0, 2))

    def compute(self) -> Score:
        """Return the score of all windows added."""
        if self.windows == 0:
            raise UserError("no window was scored; the split is empty")
        count = self.windows * self.channels
        squares, absolutes = self.squares / count, self.absolutes / count
        return Score(float(squares.mean()), float(absolutes.mean()), self.windows, squares, absolutes)


class CalendarForecaster(Protocol):
    """Forecasts scaled windows of a table whose stamps it knows; see `evaluate_ltsf`."""

    reads_rows: bool
    """True: it is called with the rows, too."""

    def __call__(self, inputs: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Forecast windows whose first targets are in these rows of the table, int64 (windows,)."""


def evaluate_ltsf(
    forecaster: Callable[[np.ndarray], np.ndarray] | CalendarForecaster,
    data: LTSFData,
    lookback: int,
    horizon: int,
    split: Split = "test",
    batch_size: int = 256,
) -> Score:
    """Score a forecaster on every window of a split.

    Args:
        forecaster: takes inputs float64 (windows, lookback, channels), gives (windows, horizon, channels), on scaled
            values; with ``MS`` the last channel of what it gives is scored. A `CalendarForecaster` is also told where
            in the table the windows are.
        data: under the protocol.
        lookback: steps read.
        horizon: steps predicted.
        split: ``train``, ``val`` or ``test``.
        batch_size: windows at a time; the score does not depend on it.

    Raises:
        UserError: no window fits, or a forecast is not finite.
    """
    inputs, targets = data.windows(split, lookback, horizon)
    first = data.segment(split, lookback).start + lookback
    sums = ScoreSums()
    for begin in range(0, len(inputs), batch_size):
        part = slice(begin, begin + batch_size)
        more = (first + np.arange(len(inputs))[part],) if getattr(forecaster, "reads_rows", False) else ()
        forecasts = forecaster(inputs[part], *more)
        sums.update(forecasts[:, :, data.targets] if data.features == "MS" else forecasts, targets[part])
    score = sums.compute()
    assert score.windows == data.window_count(split, lookback, horizon)
    return score
