"""Training of forecasters, under the long-term protocol and on panels of many series."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...core.errors import UserError
from ...core.training.finetuning import FinetuningConfig
from ...core.training.module import DEFAULT_FINETUNING, DEFAULT_OPTIMIZER, DEFAULT_SCHEDULE
from ...core.training.optimizer import OptimizerConfig
from ...core.training.schedule import ScheduleConfig
from ..baselines.ridge import series_scale
from ..card import TimeSeriesCard, describe_ltsf, describe_series
from ..data.ltsf_windows import LTSFDataModule
from ..data.series_windows import SeriesDataModule
from ..metrics.probabilistic import DECILES
from .base import TimeSeriesTask
from .linear_start import LinearStart, start_linear
from .metrics import ForecastMetrics


class Windows(NamedTuple):
    """A batch in original units, by what a forecaster calls it; channels that are not predicted have no targets."""

    past: Tensor
    observed: Tensor | None
    covariates: dict[str, Tensor]
    target: Tensor | None
    known: Tensor | None
    """bool, of the shape of ``target``."""


class Forecasting(TimeSeriesTask):
    """Forecast what follows each window; the loss is that of the model's head.

    The data is an `LTSFDataModule` or a `SeriesDataModule`. Models read and give original units: with the former (and
    with several channels) the means and deviations of the training rows are stored in the model. Measured under the
    protocol: ``mse`` and ``mae`` of scaled values, over the protocol's validation and test windows; on panels in units
    of the data. Also the loss, ``nd`` (Σ|error| / Σ|target|), ``windows``, and of models with quantiles ``wql`` and
    ``coverage_80``. The weights of the epoch with the least monitored validation metric are kept; nothing is chosen on
    test windows.

    Args:
        model: name of a registered model or of an architecture.
        options: fields of its configuration to replace.
        pretrained: start from these weights instead.
        linear_start: start the model's linear map (``linear_skip``) at the closed-form solution (True or ``ridge``) or
            at seasonal naive (``seasonal``); see `start_linear`.
        optimizer: optimiser and parameter groups.
        schedule: learning rate over the steps.
        finetuning: what of the model is frozen or trained more slowly.
    """

    #: Whether the model is described on standard output when training starts.
    announce = True

    def __init__(
        self,
        model: str,
        options: dict[str, Any] | None = None,
        pretrained: str | None = None,
        linear_start: LinearStart = False,
        optimizer: OptimizerConfig = DEFAULT_OPTIMIZER,
        schedule: ScheduleConfig = DEFAULT_SCHEDULE,
        finetuning: FinetuningConfig = DEFAULT_FINETUNING,
    ) -> None:
        super().__init__(model, options, pretrained, optimizer, schedule, finetuning)
        self.linear_start = linear_start

    def on_fit_start(self) -> None:
        if self.announce:
            super().on_fit_start()

    # The data

    def describe(self, data: Any, *, complete: bool = True) -> TimeSeriesCard:
        """Return the card of a data module.

        Raises:
            UserError: a data module of another kind, or something wrong with the data.
        """
        if isinstance(data, LTSFDataModule):
            return describe_ltsf(data.data, data.lookback, data.horizon, data.calendar)
        if not isinstance(data, SeriesDataModule):
            raise UserError(
                f"data.class_path: Forecasting needs an LTSFDataModule or a SeriesDataModule, not {type(data).__name__}"
            )
        held = (data.val_windows + data.test_windows) * data.horizon
        card = describe_series(data.data, data.lookback, data.horizon, data.calendar, held, data.columns)
        if len(card.channels) > 1:
            rows = _train_rows(data)
            std = np.nanstd(rows, 0)
            card = dataclasses.replace(
                card, mean=tuple(np.nanmean(rows, 0).tolist()), std=tuple(np.where(std > 0, std, 1.0).tolist())
            )
        return card

    def fitting_options(self) -> dict[str, Any]:
        """Return sizes of the model."""
        assert self.card is not None
        card, columns = self.card, self.card.columns
        calendar = len(_calendar_names(card))
        return {
            "lookback": card.lookback,
            "horizon": card.horizon,
            **({} if card.std is None else {"variates": len(card.channels)}),
            "past_covariates": len(columns.historic) + len(columns.future) + calendar,
            "future_covariates": len(columns.future) + calendar,
            "static_covariates": len(columns.static),
        }

    def check_alike(self, found: TimeSeriesCard, stored: TimeSeriesCard) -> None:
        """Refuse data of other channels, steps or covariates; a window may be of another length.

        Raises:
            UserError: with the settings to change.
        """
        for name in ("frequency", "calendar", "features"):
            if getattr(found, name) != getattr(stored, name) and not (name == "features" and stored.features is None):
                raise UserError(
                    f"the model was trained with {name} {getattr(stored, name)}, the data has {getattr(found, name)}"
                )
        if stored.std is not None and found.channels != stored.channels:
            raise UserError(
                f"the model was trained on the channels {', '.join(stored.channels)}, the data has "
                f"{', '.join(found.channels)}"
            )
        if found.lookback != stored.lookback or found.horizon > stored.horizon:
            raise UserError(
                f"the model was trained for lookback {stored.lookback} and horizon {stored.horizon}; set data.lookback "
                "and data.horizon to these"
            )

    def prepare(self, model: Any) -> None:
        """Store scales of the training rows in the model.

        Raises:
            UserError: a model that is no forecaster.
        """
        if not hasattr(model, "fit_scaling"):
            raise UserError(f"{type(model).__name__} is no forecaster; choose another model (`longscan models`)")
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.linear_start and self.pretrained is None:
            start_linear(model, data, self.linear_start)
        if isinstance(data, LTSFDataModule):
            rows = data.data.values[: data.data.borders.train]
            calendar = data.train_set.calendar_rows
            model.fit_scaling(
                torch.from_numpy(rows),
                **({} if calendar is None else {"past_covariates": calendar, "future_covariates": calendar}),
            )
            return
        known = data.train_set.covariate_rows()
        model.fit_scaling(torch.from_numpy(_train_rows(data)), **known)

    # The batch

    def windows(self, batch: Mapping[str, Any]) -> Windows:
        """Return a batch in original units."""
        past, target = batch["input_ids"], batch.get("labels")
        covariates = {name: batch[name] for name in ("past_covariates", "future_covariates", "static") if name in batch}
        known = batch.get("label_mask")
        assert self.card is not None
        if self.card.features is not None:  # the protocol's windows are scaled
            mean, std = self._scales(past)
            past = past.double() * std + mean
            if target is not None:
                shown = target.shape[-1]
                target = target.double() * std[-shown:] + mean[-shown:]
                missing = past.shape[-1] - shown
                known = torch.ones_like(target, dtype=torch.bool)
                if missing:
                    target = torch.nn.functional.pad(target, (missing, 0))
                    known = torch.nn.functional.pad(known, (missing, 0))
        elif target is not None and known is None:
            known = torch.ones_like(target, dtype=torch.bool)
        if known is not None and "padding" in batch:  # only there to even out several processes
            known = known & ~batch["padding"].to(known.device).view(-1, 1, 1)
        return Windows(past, batch.get("observed"), covariates, target, known)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        found, model = self.windows(batch), self.model
        assert callable(model.loss)
        return model.loss(found.past, found.target, found.observed, found.known, **found.covariates).float()

    # Evaluation

    def start_evaluation(self, name: str) -> ForecastMetrics:
        assert self.card is not None
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        model: Any = self.model
        return ForecastMetrics(name, data.horizon, len(self.card.channels), model.config.head != "point").to(
            self.device
        )

    def update_evaluation(self, evaluation: ForecastMetrics, batch: Mapping[str, Any]) -> None:
        found = self.windows(batch)
        if found.target is None or found.known is None:
            raise UserError("the evaluation set has no targets; to get forecasts without targets, use the verb predict")
        model: Any = self.model
        prediction = model(found.past, found.observed, **found.covariates, horizon=found.target.shape[1])
        loss = prediction.loss(found.target, found.known, model.config.loss_units)
        quantiles = prediction.quantiles(DECILES) if evaluation.has_quantiles else None
        unit = self._scales(found.past)[1]
        evaluation.update(
            loss, prediction.point(), found.target, found.known, unit, self._series_unit(batch, unit), quantiles
        )
        evaluation.windows -= 0 if "padding" not in batch else batch["padding"].sum()

    def _finish_evaluations(self, stage: str) -> None:
        super()._finish_evaluations(stage)
        if stage == "val" and self._evaluations and self.card is not None and not self.trainer.sanity_checking:
            deviation = self._evaluations[0].deviation()
            self.card = dataclasses.replace(self.card, deviation=deviation)

    def _scales(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each channel, float64; 0 and 1 where errors are in units of the data."""
        assert self.card is not None
        if self.card.std is None or self.card.mean is None:
            zero = torch.zeros(1, dtype=torch.float64, device=like.device)
            return zero, zero + 1
        mean, std = (
            torch.tensor(part, dtype=torch.float64, device=like.device) for part in (self.card.mean, self.card.std)
        )
        return mean, std

    def _series_unit(self, batch: Mapping[str, Any], unit: Tensor) -> Tensor:
        """Return what errors of each window are divided by for the width of intervals, which broadcasts."""
        if self.card is not None and self.card.std is not None:
            return unit
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not hasattr(self, "_series_scales"):
            scales = [[series_scale(column) for column in series.values.T] for series in data.data]
            self._series_scales = torch.tensor(scales, dtype=torch.float64)
        return self._series_scales[batch["series"].cpu()].unsqueeze(1).to(unit.device)

    # Prediction

    def predict_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> tuple[Any, Any]:
        """Return points (batch, horizon, channels) and, of models with quantiles, deciles (9, batch, horizon,
        channels), in original units, float64."""
        model: Any = self.model
        found = self.windows(batch)
        levels = () if model.config.head == "point" else DECILES
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        answer = model.predict(found.past, found.observed, **found.covariates, horizon=data.horizon, levels=levels)
        return answer.point, answer.quantiles

    def prediction_columns(self) -> list[str]:
        """Return series, stamp, channel where there are several, forecast, and deciles of models with quantiles."""
        model: Any = self.model
        assert self.card is not None
        quantiles = [] if model.config.head == "point" else [f"q{level:g}" for level in DECILES]
        channel = ["channel"] if len(self.card.channels) > 1 else []
        return ["series", "window", "stamp", *channel, "forecast", *quantiles]

    def prediction_rows(self, prediction: tuple[Any, Any], batch: Mapping[str, Any]) -> Iterator[list[Sequence[Any]]]:
        """Return a list of rows for each window."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        assert self.card is not None
        point, quantiles = prediction[0].cpu().numpy(), None if prediction[1] is None else prediction[1].cpu().numpy()
        several = len(self.card.channels) > 1
        channels = data.data.channels if isinstance(data, LTSFDataModule) else self.card.channels
        first = len(channels) - 1 if self.card.features == "MS" else 0
        for row, index in enumerate(batch["index"].tolist()):
            name, stamps = data.predict_set.where(index)
            rows: list[Sequence[Any]] = []
            for step, stamp in enumerate(stamps):
                for channel in range(first, len(channels)):
                    own = [] if quantiles is None else [f"{value:.8g}" for value in quantiles[:, row, step, channel]]
                    label = [channels[channel]] if several else []
                    rows.append([name, index, stamp, *label, f"{point[row, step, channel]:.8g}", *own])
            yield rows


def _calendar_names(card: TimeSeriesCard) -> tuple[str, ...]:
    from ..data.calendar import chosen_names

    return chosen_names(card.calendar, card.frequency) if isinstance(card.frequency, str) else ()


def _train_rows(data: SeriesDataModule) -> np.ndarray:
    """Return the rows of all series before those held out, float64 (rows, channels), NaN where missing."""
    held = (data.val_windows + data.test_windows) * data.horizon
    return np.concatenate([series.values[: max(1, len(series) - held)] for series in data.data])
