"""A trained model as a forecaster of sets of series, with what its card says of units, columns and frequency."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..core.device import find_device
from ..core.errors import UserError
from .card import TimeSeriesCard
from .data.calendar import calendar_features, chosen_names
from .data.series import Series, SeriesSet
from .forecasts import Forecast
from .ltsf import LTSFData


class TrainedForecaster:
    """A model with its card; see `longscan.timeseries.forecasts.Forecaster`.

    Args:
        model: a :class:`longscan.timeseries.models.base.Forecaster` in evaluation mode, on its device.
        card: what it was trained on.
        name: heads its columns.
        batch_size: windows at a time; forecasts do not depend on it.
    """

    def __init__(self, model: Any, card: TimeSeriesCard, name: str, batch_size: int = 256) -> None:
        self.model, self.card, self.name, self.batch_size = model, card, name, batch_size

    @property
    def has_quantiles(self) -> bool:
        """Whether it gives quantiles of its own or, of a point model, about its errors on validation windows."""
        return self.model.config.head != "point" or self.card.deviation is not None

    def fit(self, data: SeriesSet) -> Self:
        """Nothing: it was trained before."""
        return self

    def predict(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float] = (),
        future: Mapping[str, np.ndarray] | None = None,
    ) -> list[Forecast]:
        """Forecast each series; see `longscan.timeseries.forecasts.Forecaster`.

        Raises:
            UserError: series of another frequency or with other covariates, a series without any observation, a horizon
                that the model cannot give, or levels of a model without quantiles.
        """
        if len(self.card.channels) > 1 and len(data.channels) == 1 and self.model.config.variates is not None:
            return self._by_channel(data, horizon, levels, future)
        self._check(data)
        assert data.frequency is not None
        found: list[Forecast] = []
        for begin in range(0, len(data), self.batch_size):
            series = [data[number] for number in range(begin, min(begin + self.batch_size, len(data)))]
            batch = [_inputs(one, data, self.card, horizon, future) for one in series]
            point, quantiles = self._ask(batch, horizon, levels, series)
            for row, one in enumerate(series):
                stamps = data.frequency.after(one.stamps[-1], horizon)
                own = None if quantiles is None else quantiles[:, row]
                found.append(Forecast(one.name, stamps, point[row], tuple(levels), own))
        return found

    def ltsf_forecaster(self, data: LTSFData, horizon: int) -> LTSFForecaster:
        """Return what forecasts scaled windows of ``data``, for `longscan.timeseries.ltsf.evaluate_ltsf`.

        Raises:
            UserError: the model was trained on other channels or scales, or for a shorter horizon.
        """
        card = self.card
        calendar = len(chosen_names(card.calendar, data.frequency))
        if self.model.config.past_covariates > calendar:
            raise UserError(f"{self.name}: reads covariates; score it with `longscan timeseries test`")
        if len(card.channels) > 1 and tuple(card.channels) != data.channels:
            raise UserError(
                f"{self.name}: was trained on the channels {', '.join(card.channels)}; the data has "
                f"{', '.join(data.channels)} (features {data.features})"
            )
        if card.mean is not None and not np.allclose(card.mean, data.mean, rtol=1e-6, atol=1e-6):
            raise UserError(f"{self.name}: was trained on {card.source}, whose scales differ from those of {data.name}")
        return LTSFForecaster(self, data, horizon)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.model.parameters()).device

    def _by_channel(
        self,
        data: SeriesSet,
        horizon: int,
        levels: Sequence[float],
        future: Mapping[str, np.ndarray] | None,
    ) -> list[Forecast]:
        """Forecast what `SeriesSet.univariate` took apart: each run of series is the channels of one."""
        channels, count = self.card.channels, len(self.card.channels)
        joined: list[Series] = []
        for begin in range(0, len(data), count):
            parts = data.series[begin : begin + count]
            own = [part.name.rpartition("/")[2] for part in parts]
            if tuple(own) != tuple(channels) or len({len(part) for part in parts}) > 1:
                raise UserError(
                    f"{data.source}: {self.name} forecasts the channels {', '.join(channels)} together; from series "
                    f"{parts[0].name!r} on there are {', '.join(own)}"
                )
            values = np.concatenate([part.values for part in parts], 1)
            joined.append(dataclasses.replace(parts[0], values=values))
        found = self.predict(data.replace(joined, channels=channels), horizon, levels, future)
        return [
            Forecast(
                data[begin * count + index].name,
                one.stamps,
                one.point[:, index : index + 1],
                one.levels,
                None if one.quantiles is None else one.quantiles[:, :, index : index + 1],
            )
            for begin, one in enumerate(found)
            for index in range(count)
        ]

    def _ask(
        self, samples: list[dict[str, Any]], horizon: int, levels: Sequence[float], series: list[Series]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        batch = {
            name: torch.from_numpy(np.stack([sample[name] for sample in samples])).to(self.device)
            for name in samples[0]
        }
        point_head = self.model.config.head == "point"
        if len(levels) and point_head and self.card.deviation is None:
            raise UserError(
                f"{self.name}: gives points alone, so no intervals; train it with the option head: quantiles, or leave "
                "the intervals out"
            )
        answer = self.model.predict(**batch, horizon=horizon, levels=() if point_head else levels)
        point = answer.point.cpu().numpy()
        if not len(levels):
            return point, None
        if answer.quantiles is not None:
            return point, answer.quantiles.cpu().numpy()
        return point, self._gaussian(point, levels, series)

    def _gaussian(self, point: np.ndarray, levels: Sequence[float], series: list[Series]) -> np.ndarray:
        """Quantiles of a point model: normal about the forecast, as wide as its errors on the validation windows."""
        from scipy.special import ndtri

        assert self.card.deviation is not None
        deviation = np.asarray(self.card.deviation)
        # Beyond the trained horizon the last known width.
        steps = deviation[np.minimum(np.arange(point.shape[1]), len(deviation) - 1)]
        sizes = np.stack([series_unit(one, self.card) for one in series])
        spread = steps[None] * sizes[:, None, :]
        return point + ndtri(np.asarray(levels, dtype=np.float64))[:, None, None, None] * spread

    def _check(self, data: SeriesSet) -> None:
        card = self.card
        if data.frequency is None:
            raise UserError(f"{data.source}: irregular series have no next stamp; give frequency")
        card.check_frequency(data)
        known = self.model.config.variates
        if known is not None and (known > 1 or len(data.channels) > 1) and tuple(card.channels) != data.channels:
            raise UserError(
                f"{data.source}: has the channels {', '.join(data.channels)}; {self.name} was trained on "
                f"{', '.join(card.channels)}"
            )
        for kind, own, given in (
            ("historic", card.columns.historic, data.historic_names),
            ("future", card.columns.future, data.future_names),
            ("static", card.columns.static, data.static_names),
        ):
            if tuple(own) != tuple(given):
                raise UserError(
                    f"{data.source}: {kind} covariates are {', '.join(given) or 'none'}; {self.name} was trained with "
                    f"{', '.join(own) or 'none'}"
                )
        for series in data:
            if np.isnan(series.values).all(0).any():
                raise UserError(
                    f"{data.source}: series {series.name!r} has no observed value to forecast from; drop it"
                )


class LTSFForecaster:
    """A trained model on scaled windows of the long-term protocol; one that reads the calendar is told their rows."""

    def __init__(self, trained: TrainedForecaster, data: LTSFData, horizon: int) -> None:
        self.trained, self.data, self.horizon = trained, data, horizon
        calendar = trained.card.calendar
        self._calendar = calendar_features(data.stamps, data.frequency, calendar).astype(np.float32)

    @property
    def reads_rows(self) -> bool:
        """See `longscan.timeseries.ltsf.CalendarForecaster`."""
        return self._calendar.shape[1] > 0

    def __call__(self, inputs: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        """Forecast: (windows, lookback, channels) to (windows, horizon, channels)."""
        data, parts = self.data, []
        for begin in range(0, len(inputs), self.trained.batch_size):
            part = slice(begin, begin + self.trained.batch_size)
            past = torch.from_numpy(inputs[part] * data.std + data.mean).to(self.trained.device)
            known = {} if rows is None else self._covariates(rows[part], past.shape[1])
            point = self.trained.model.predict(past, horizon=self.horizon, **known).point.cpu().numpy()
            parts.append((point - data.mean) / data.std)
        return np.concatenate(parts)

    def _covariates(self, rows: np.ndarray, lookback: int) -> dict[str, torch.Tensor]:
        """Return the calendar over the lookback and the horizon of windows whose first targets are in ``rows``."""
        spans = {"past_covariates": np.arange(-lookback, 0), "future_covariates": np.arange(self.horizon)}
        found = {name: self._calendar[rows[:, None] + span] for name, span in spans.items()}
        return {name: torch.from_numpy(values).to(self.trained.device) for name, values in found.items()}


def series_unit(series: Series, card: TimeSeriesCard) -> np.ndarray:
    """Return what errors of a series are measured in, (channels,): the training rows' deviation where the model knows
    its channels, else the series' own scale."""
    from .baselines.ridge import series_scale

    if card.std is not None:
        return np.asarray(card.std)
    return np.array([series_scale(column) for column in series.values.T])


def load_forecaster(
    place: str | Path, name: str | None = None, device: str = "auto", batch_size: int = 256
) -> TrainedForecaster:
    """Load a checkpoint, a folder that ``fit`` or ``save_pretrained`` wrote, or a registered name with weights.

    Raises:
        UserError: no such model, no forecaster, weights without a card, or a device that is not there.
    """
    import longscan

    chosen = find_device(device)
    where = model_folder(Path(place).expanduser())
    model: Any = longscan.from_pretrained(str(place) if where is None else where)
    if not callable(getattr(model, "predict", None)) or not hasattr(model, "scaling"):
        raise UserError(f"{place}: {type(model).__name__} is no forecaster; choose another model")
    card = TimeSeriesCard.read(where if where is not None else _registered_folder(str(place)))
    if card is None:
        config = model.config
        if config.past_covariates or config.future_covariates or config.static_covariates:
            raise UserError(f"{place}: has no timeseries.json that tells its covariates; export it with its card")
        card = TimeSeriesCard(lookback=config.lookback, horizon=config.horizon)
    return TrainedForecaster(model.eval().to(chosen), card, name or short_name(str(place)), batch_size)


def model_folder(path: Path) -> Path | None:
    """Return the folder or file of weights that ``path`` means: itself, or ``model/`` of a run; None if nothing."""
    if path.is_dir():
        return path / "model" if (path / "model" / "config.json").is_file() else path
    return path if path.is_file() else None


def short_name(place: str) -> str:
    """Return what columns of a model are called: the last parts of its path that tell it apart."""
    parts = [part for part in Path(place).parts if part not in ("model", "checkpoints", "/")]
    last = parts[-1] if parts else place
    if last in ("best.ckpt", "last.ckpt") and len(parts) > 1:
        return parts[-2]
    return last.removesuffix(".ckpt")


def _registered_folder(name: str) -> Path:
    from ..core.registry import find_model

    entry = find_model(name)
    return Path(name) if entry is None or entry.folder is None else entry.folder


def _inputs(
    series: Series, data: SeriesSet, card: TimeSeriesCard, horizon: int, future: Mapping[str, np.ndarray] | None
) -> dict[str, np.ndarray]:
    """Return what a model reads of one series, by the names of its arguments; NaN where missing or before the series
    begins. Histories stay float64: what a model subtracts before it computes may be large."""
    begin, end = max(0, len(series) - card.lookback), len(series)
    padding = ((card.lookback - (end - begin), 0), (0, 0))
    inputs = {"past": np.pad(series.values[begin:end], padding, constant_values=np.nan)}
    past, known = [series.historic[begin:end], series.future[begin:end]], []
    if data.future_names:
        known.append(_known_future(series, horizon, future))
    if card.calendar:
        assert data.frequency is not None
        past.append(calendar_features(series.stamps[begin:end], data.frequency, card.calendar))
        ahead = data.frequency.after(series.stamps[-1], horizon)
        known.append(calendar_features(ahead, data.frequency, card.calendar))
    columns = np.concatenate(past, 1)
    if columns.shape[1]:
        inputs["past_covariates"] = np.pad(columns, padding, constant_values=np.nan).astype(np.float32)
    if known:
        inputs["future_covariates"] = np.concatenate(known, 1).astype(np.float32)
    if len(series.static):
        inputs["static"] = series.static.astype(np.float32)
    return inputs


def _known_future(series: Series, horizon: int, future: Mapping[str, np.ndarray] | None) -> np.ndarray:
    if future is None or series.name not in future:
        raise UserError(f"series {series.name!r}: its covariates over the horizon are needed; give them as future")
    known = np.asarray(future[series.name], dtype=np.float64)
    if len(known) != horizon:
        raise UserError(f"series {series.name!r}: covariates over {len(known)} steps for a horizon of {horizon}")
    return known
