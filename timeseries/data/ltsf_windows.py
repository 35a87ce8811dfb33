"""Windows of the long-term forecasting protocol as a data module."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.training.data import ResumableDataModule, SampleKey
from ..ltsf import Features, LTSFData, Split, load_ltsf
from .calendar import Calendar, calendar_features


class LTSFWindows(Dataset):
    """All windows of one split at stride 1; see `LTSFDataModule` for what a sample holds."""

    def __init__(self, data: LTSFData, split: Split, lookback: int, horizon: int, calendar: Calendar = True) -> None:
        self.data, self.split, self.lookback, self.horizon = data, split, lookback, horizon
        self._values = data.scaled.astype(np.float32)
        self._calendar = self._features(data, calendar) if calendar else None
        self._count = data.window_count(split, lookback, horizon)
        self._first = data.segment(split, lookback).start

    @staticmethod
    def _features(data: LTSFData, calendar: Calendar) -> np.ndarray:
        return calendar_features(data.stamps, data.frequency, calendar).astype(np.float32)

    def set_seqlen(self, seqlen: int) -> None:
        """Read ``seqlen`` steps from now on."""
        self._count = self.data.window_count(self.split, seqlen, self.horizon)
        self._first, self.lookback = self.data.segment(self.split, seqlen).start, seqlen

    @property
    def calendar_rows(self) -> torch.Tensor | None:
        """Calendar features of the training rows, float32 (rows, features); None without them."""
        return None if self._calendar is None else torch.from_numpy(self._calendar[: self.data.borders.train])

    def where(self, index: int) -> tuple[str, np.ndarray]:
        """Return the name of the data and the stamps (horizon,) that a window predicts."""
        cut = self._first + index + self.lookback
        return self.data.name, self.data.stamps[cut : cut + self.horizon]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        index = key.index if isinstance(key, SampleKey) else key
        if not 0 <= index < self._count:
            raise IndexError(f"window {index} of {self._count}")
        begin = self._first + index
        cut, end = begin + self.lookback, begin + self.lookback + self.horizon
        sample: dict[str, Any] = {
            "input_ids": self._values[begin:cut],
            "labels": self._values[cut:end, self.data.targets],
            "index": index,
        }
        if self._calendar is not None:
            sample |= {"past_covariates": self._calendar[begin:cut], "future_covariates": self._calendar[cut:end]}
        return sample


class LTSFDataModule(ResumableDataModule):
    """The protocol's windows; nothing is dropped in any split.

    A batch is ``{"input_ids": float32 (batch, lookback, channels), "labels": float32 (batch, horizon, target
    channels), "index": int64 (batch,)}``, values scaled by the training rows, and with ``calendar``
    ``"past_covariates"`` float32 (batch, lookback, features) and ``"future_covariates"`` (batch, horizon, features).

    Args:
        source: file with a ``date`` column, or the name of a packaged data set.
        lookback: steps read.
        horizon: steps predicted.
        name: by which the borders are chosen; that of the file where None.
        features: ``M`` all channels in and out, ``S`` the target alone, ``MS`` all in and the target out.
        target: the channel of ``S`` and ``MS``.
        calendar: give calendar features; a list of names (``[hour]``) those alone.
        options: those of `ResumableDataModule`.

    Raises:
        UserError: in ``setup``, anything wrong with the file, or windows that do not fit.
    """

    def __init__(
        self,
        source: str = "ETTh1",
        lookback: int = 336,
        horizon: int = 96,
        name: str | None = None,
        features: Features = "M",
        target: str | None = None,
        calendar: Calendar = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.source, self.lookback, self.horizon, self.name = source, lookback, horizon, name
        self.features, self.target, self.calendar = features, target, calendar
        self._data: LTSFData | None = None

    @property
    def data(self) -> LTSFData:
        """The table under the protocol, read once."""
        if self._data is None:
            self._data = load_ltsf(self.source, name=self.name, features=self.features, target=self.target)
        return self._data

    @property
    def window_counts(self) -> dict[str, int]:
        """Number of windows of each split, to print beside scores."""
        return {
            split: self.data.window_count(split, self.lookback, self.horizon)  # type: ignore[arg-type]
            for split in ("train", "val", "test")
        }

    def setup(self, stage: str | None = None) -> None:
        """Make the windows of every split; prediction goes over those of the test split."""
        sets = {
            split: LTSFWindows(self.data, split, self.lookback, self.horizon, self.calendar)  # type: ignore[arg-type]
            for split in ("train", "val", "test")
        }
        self.train_set, self.val_set, self.test_set = sets["train"], sets["val"], sets["test"]
        self.predict_set = sets["test"]

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples to one batch."""
        return {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}
