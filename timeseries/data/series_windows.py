"""Windows of many series as a data module, for one model of all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError, nearest
from ...core.training.data import ResumableDataModule, SampleKey, sample_generator
from ..datasets import DATASETS, dataset_path
from .calendar import Calendar, calendar_features
from .long_format import Columns
from .m4 import read_m4
from .reading import read_series
from .regularity import Policy
from .series import Series, SeriesSet


class SeriesWindows(Dataset):
    """Windows at fixed cutoffs, or drawn anew for each sample; see `SeriesDataModule` for what a sample holds.

    Args:
        data: series.
        lookback: steps read; before the first row of a series there is padding.
        horizon: steps predicted.
        cutoffs: (series, row) of the first step to predict of each window, int64 (windows, 2); None to draw them.
        ranges: int64 (series, 3): a series, its earliest and latest cutoff, for drawn ones.
        samples: number of drawn windows per epoch.
        labelled: whether targets lie within the series.
        calendar: give calendar features.
        seed: of the draws, which are a function of seed, epoch and index.
    """

    def __init__(
        self,
        data: SeriesSet,
        lookback: int,
        horizon: int,
        *,
        cutoffs: np.ndarray | None = None,
        ranges: np.ndarray | None = None,
        samples: int = 0,
        labelled: bool = True,
        calendar: Calendar = False,
        seed: int = 0,
    ) -> None:
        self.data, self.lookback, self.horizon = data, lookback, horizon
        self.cutoffs, self.ranges, self.samples = cutoffs, ranges, samples
        self.labelled, self.calendar, self.seed = labelled, calendar, seed

    def set_seqlen(self, seqlen: int) -> None:
        """Read ``seqlen`` steps from now on."""
        self.lookback = seqlen

    def __len__(self) -> int:
        return self.samples if self.cutoffs is None else len(self.cutoffs)

    def window(self, key: SampleKey) -> tuple[int, int]:
        """Return the series and the cutoff of a sample."""
        if self.cutoffs is not None:
            series, cutoff = self.cutoffs[key.index].tolist()
            return series, cutoff
        assert self.ranges is not None
        generator = sample_generator(self.seed, key)
        number, first, last = self.ranges[int(generator.integers(len(self.ranges)))].tolist()
        return number, int(generator.integers(first, last + 1))

    def where(self, index: int) -> tuple[str, np.ndarray]:
        """Return the series of a window and the stamps (horizon,) that it predicts.

        Raises:
            UserError: irregular stamps.
        """
        number, cutoff = self.window(SampleKey(0, index))
        series = self.data[number]
        if self.data.frequency is None:
            raise UserError(f"{self.data.source}: irregular series have no next stamp; give frequency")
        return series.name, self.data.frequency.after(series.stamps[cutoff - 1], self.horizon)

    def covariate_rows(self) -> dict[str, torch.Tensor]:
        """Return the covariates of all windows' series before the last cutoff, float64 (rows, columns), by the names
        ``past_covariates``, ``future_covariates`` and ``static``; none that the data lacks."""
        past, known = [], []
        last = {} if self.ranges is None else {number: end for number, _, end in self.ranges.tolist()}
        for number, series in enumerate(self.data):
            end = last.get(number, len(series))
            calendar = np.empty((end, 0))
            if self.calendar:
                assert self.data.frequency is not None
                calendar = calendar_features(series.stamps[:end], self.data.frequency, self.calendar)
            known.append(np.concatenate([series.future[:end], calendar], 1))
            past.append(np.concatenate([series.historic[:end], known[-1]], 1))
        rows = {
            "past_covariates": np.concatenate(past),
            "future_covariates": np.concatenate(known),
            "static": np.stack([series.static for series in self.data]),
        }
        return {name: torch.from_numpy(found) for name, found in rows.items() if found.shape[1]}

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        if not 0 <= key.index < len(self):
            raise IndexError(f"window {key.index} of {len(self)}")
        number, cutoff = self.window(key)
        series = self.data[number]
        begin = max(0, cutoff - self.lookback)
        padding = self.lookback - (cutoff - begin)
        values = _padded(series.values[begin:cutoff], padding)
        sample: dict[str, Any] = {
            "input_ids": np.nan_to_num(values).astype(np.float32),
            "mask": np.arange(self.lookback) >= padding,
            "observed": ~np.isnan(values),
            "series": number,
            "cutoff": cutoff,
            "index": key.index,
        }
        end = cutoff + self.horizon
        if self.labelled:
            targets = series.values[cutoff:end]
            sample |= {"labels": np.nan_to_num(targets).astype(np.float32), "label_mask": ~np.isnan(targets)}
        past, known = self._covariates(series, begin, cutoff, end)
        if past.shape[1]:
            sample["past_covariates"] = _padded(past, padding).astype(np.float32)
        if known.shape[1]:
            sample["future_covariates"] = known.astype(np.float32)
        if len(series.static):
            sample["static"] = series.static.astype(np.float32)
        return sample

    def _covariates(self, series: Series, begin: int, cutoff: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return historic, future-known and calendar columns over the lookback, and the latter two over the horizon."""
        past = [series.historic[begin:cutoff], series.future[begin:cutoff]]
        known = [series.future[cutoff:end]] if self.labelled else []
        if self.calendar:
            frequency = self.data.frequency
            assert frequency is not None
            ahead = frequency.after(series.stamps[cutoff - 1], end - cutoff)
            past.append(calendar_features(series.stamps[begin:cutoff], frequency, self.calendar))
            known.append(calendar_features(ahead, frequency, self.calendar))
        return np.concatenate(past, 1), np.concatenate(known, 1) if known else np.empty((end - cutoff, 0))


class SeriesDataModule(ResumableDataModule):
    """Windows of many series.

    Each series ends in ``test_windows`` and before them ``val_windows`` blocks of ``horizon`` rows. Training windows
    are drawn afresh each epoch from what lies before: a series at random, then a cutoff at random. No training target
    lies in a later block. Prediction goes from the end of every series.

    A batch is ``{"input_ids": float32 (batch, lookback, channels), "mask": bool (batch, lookback), False at padding
    before a series begins, "observed": bool (batch, lookback, channels), False at padding and missing values,
    "labels": float32 (batch, horizon, channels), "label_mask": bool of that shape, False where missing,
    "series": int64 (batch,), "cutoff": int64 (batch,), "index": int64 (batch,)}``, values in original units and 0 where
    missing. Where there are such columns: ``"past_covariates"`` (batch, lookback, historic + future-known + calendar),
    ``"future_covariates"`` (batch, horizon, future-known + calendar), ``"static"`` (batch, properties), float32, NaN
    where missing and at padding, which models take for the mean.
    Prediction has no labels, and of the future only the calendar.

    Args:
        source: file, the name of a packaged data set, or a `SeriesSet`.
        lookback: steps read.
        horizon: steps predicted; that of the data set where None.
        layout: ``long``, ``wide``, ``m4`` or ``tsf``; found where None.
        reading: options of the reader, such as ``frequency``; ``columns`` and ``policy`` may be dictionaries.
        test: file of what followed each series (M4), in place of ``test_windows``.
        univariate: make a series of each channel.
        samples_per_epoch: training windows per epoch.
        recent: draw cutoffs only from the last so-many possible ones of a series.
        val_windows: blocks held out for validation.
        test_windows: blocks held out for the test.
        min_history: rows before the earliest cutoff that is drawn.
        short_series: ``error``, ``drop`` (counted in the set's report), or ``keep``, which leaves series that are too
            short out of training alone.
        calendar: give calendar features; a list of names (``[hour]``) those alone.
        options: those of `ResumableDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the files.
    """

    def __init__(
        self,
        source: Any,
        lookback: int,
        horizon: int | None = None,
        layout: str | None = None,
        reading: dict[str, Any] | None = None,
        test: str | None = None,
        univariate: bool = False,
        samples_per_epoch: int = 12_800,
        recent: int | None = None,
        val_windows: int = 1,
        test_windows: int = 0,
        min_history: int = 1,
        short_series: str = "error",
        calendar: Calendar = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        for name, value, least in (
            ("lookback", lookback, 1),
            ("horizon", horizon, 1),
            ("samples_per_epoch", samples_per_epoch, 1),
            ("recent", recent, 1),
            ("val_windows", val_windows, 0),
            ("test_windows", test_windows, 0),
            ("min_history", min_history, 1),
        ):
            if value is not None and value < least:
                raise UserError(f"{name}={value} must be at least {least}")
        if test is not None and test_windows:
            raise UserError("test names a file of its own; leave test_windows at 0")
        self.source, self.lookback, self._horizon, self.layout = source, lookback, horizon, layout
        self.reading, self.test, self.univariate = _reader_options(reading), test, univariate
        self.samples_per_epoch, self.recent, self.min_history = samples_per_epoch, recent, min_history
        self.val_windows, self.test_windows = val_windows, test_windows
        self.short_series, self.calendar = short_series, calendar
        self._data: SeriesSet | None = None
        self._joined: SeriesSet | None = None

    @property
    def columns(self) -> Columns:
        """Names of the columns of a long table."""
        return self.reading.get("columns", Columns())

    @property
    def data(self) -> SeriesSet:
        """The series, read once."""
        if self._data is None:
            self._read()
        assert self._data is not None
        return self._data

    @property
    def horizon(self) -> int:
        """Steps predicted.

        Raises:
            UserError: neither given nor known of the data set.
        """
        found = self._horizon if self._horizon is not None else self.data.horizon
        if found is None:
            raise UserError(f"{self.data.source}: the data set has no horizon of its own; give horizon")
        return found

    def _read(self) -> None:
        later: SeriesSet | None = None
        if isinstance(self.source, SeriesSet):
            data = self.source
        elif self.test is not None:
            data, later = read_m4(self.source, self.test, **self.reading)
        else:
            packaged = isinstance(self.source, str) and self.source in DATASETS
            source = dataset_path(self.source) if packaged else self.source
            data = read_series(source, self.layout, **self.reading)
        self._data = data.univariate() if self.univariate else data
        if later is not None:
            self._joined = data.replace([_joined(one, two) for one, two in zip(data, later, strict=True)])

    def setup(self, stage: str | None = None) -> None:
        """Make the windows.

        Raises:
            UserError: series too short, or integer stamps with calendar features.
        """
        horizon = self.horizon
        held = (self.val_windows + self.test_windows) * horizon
        needed = self.min_history + horizon + held
        why = f"{self.min_history} rows of history, horizon {horizon} and {held} rows held out"
        kept = self.data.require_length(needed, why, self.short_series)
        if len(kept) < len(self.data) and self._joined is not None:
            names = set(kept.names)
            self._joined = self._joined.replace([series for series in self._joined if series.name in names])
        self._data = data = kept
        if self.calendar and (data.frequency is None or data.frequency.is_integer):
            raise UserError(
                f"{data.source}: calendar features need dates at a regular frequency; set calendar to False"
            )
        shared: dict[str, Any] = {"lookback": self.lookback, "horizon": horizon, "calendar": self.calendar}
        self.train_set = SeriesWindows(
            data, ranges=self._ranges(held), samples=self.samples_per_epoch, seed=self.seed, **shared
        )
        tested = self.test_windows * horizon
        self.val_set = self.test_set = None
        if self.val_windows:
            self.val_set = SeriesWindows(data, cutoffs=_blocks(data, horizon, self.val_windows, tested), **shared)
        if self._joined is not None:
            joined = self._joined
            blocks = [(number, len(series)) for number, series in enumerate(data)]
            short = [
                series.name for (_, rows), series in zip(blocks, joined, strict=True) if len(series) - rows < horizon
            ]
            if short:
                raise UserError(f"{self.test}: series {short[0]!r} has fewer than {horizon} rows; shorten the horizon")
            self.test_set = SeriesWindows(joined, cutoffs=np.array(blocks), **shared)
        elif self.test_windows:
            self.test_set = SeriesWindows(data, cutoffs=_blocks(data, horizon, self.test_windows, 0), **shared)
        ends = np.array([(number, len(series)) for number, series in enumerate(data)])
        self.predict_set = SeriesWindows(data, cutoffs=ends, labelled=False, **shared)

    def _ranges(self, held: int) -> np.ndarray:
        """Return series, earliest and latest training cutoff, int64 (series, 3), of those long enough."""
        ranges = []
        for number, series in enumerate(self.data):
            last = len(series) - held - self.horizon
            first = self.min_history if self.recent is None else max(self.min_history, last - self.recent + 1)
            if last >= first:
                ranges.append((number, first, last))
        if not ranges:
            raise UserError(f"{self.data.source}: no series is long enough for a training window; shorten the horizon")
        return np.array(ranges, dtype=np.int64)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples to one batch."""
        return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def _reader_options(given: dict[str, Any] | None) -> dict[str, Any]:
    """Make `Columns` and `Policy` of the dictionaries of a configuration.

    Raises:
        UserError: an entry that there is not.
    """
    options = dict(given or {})
    for name, kind in (("columns", Columns), ("policy", Policy)):
        value = options.get(name)
        if isinstance(value, dict):
            known = [field.name for field in dataclasses.fields(kind)]
            for key in value:
                if key not in known:
                    raise UserError(f"reading.{name} has no {key!r} ({nearest(key, known)})")
            plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items()}
            options[name] = kind(**plain)
    return options


def _blocks(data: SeriesSet, horizon: int, windows: int, after: int) -> np.ndarray:
    """Return the cutoffs of ``windows`` blocks at the end of each series, ``after`` rows before it, where they fit."""
    found: list[Sequence[int]] = []
    for number, series in enumerate(data):
        first = len(series) - after - windows * horizon
        found += [(number, first + block * horizon) for block in range(windows) if first + block * horizon >= 1]
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _joined(one: Series, two: Series) -> Series:
    def both(name: str) -> np.ndarray:
        return np.concatenate([getattr(one, name), getattr(two, name)])

    return Series(one.name, both("stamps"), both("values"), both("historic"), both("future"), one.static)


def _padded(rows: np.ndarray, padding: int) -> np.ndarray:
    return np.concatenate([np.full((padding, rows.shape[1]), np.nan), rows])
