"""A registered model as a forecaster that ``fit`` trains, on all series together."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from ..core.device import find_device
from ..core.errors import UserError
from .card import TimeSeriesCard
from .data.series import SeriesSet
from .forecasts import Forecast
from .trained import TrainedForecaster


class TrainableForecaster:
    """A global model: one set of weights for all series, trained on windows of each.

    The end of each series that is long enough is held out, and the weights of the step with the least validation loss
    are kept.

    Args:
        model: name of a registered model or architecture.
        lookback: steps read; shorter histories are padded.
        horizon: steps predicted.
        options: fields of the model's configuration; a quantile head and losses in units of each window by default.
        max_steps: optimiser steps.
        batch_size: windows per step.
        lr: peak learning rate.
        weight_decay: of matrices.
        calendar: read calendar features.
        linear_start: start the model's linear map at the closed-form solution, where it has one (``linear_skip``).
        seed: of weights and windows.
        device: auto, cpu, cuda, …
        eval_batch_size: windows at a time in prediction.
        name: heads its columns.
    """

    def __init__(
        self,
        model: str,
        lookback: int,
        horizon: int,
        *,
        options: Mapping[str, Any] | None = None,
        max_steps: int = 300,
        batch_size: int = 64,
        lr: float = 2e-3,
        weight_decay: float = 0.01,
        calendar: bool = False,
        linear_start: bool = True,
        seed: int = 0,
        device: str = "auto",
        eval_batch_size: int = 256,
        name: str | None = None,
    ) -> None:
        for argument, value in (("max_steps", max_steps), ("lookback", lookback), ("horizon", horizon)):
            if value < 1:
                raise UserError(f"{argument}={value} must be at least 1")
        self.model_name, self.lookback, self.horizon = model, lookback, horizon
        self.options = dict(options or {})
        self.max_steps, self.batch_size, self.lr, self.weight_decay = max_steps, batch_size, lr, weight_decay
        self.calendar, self.linear_start, self.seed = calendar, linear_start, seed
        self.device, self.eval_batch_size, self.name = device, eval_batch_size, name or model
        self.trained: TrainedForecaster | None = None
        #: validation metrics by step, of the last ``fit``.
        self.history: list[tuple[int, dict[str, float]]] = []

    def fit(self, data: SeriesSet) -> Self:
        """Train on all series.

        Raises:
            UserError: no series is long enough for a window.
        """
        import lightning.pytorch as pl

        from ..core.training.optimizer import OptimizerConfig
        from ..core.training.schedule import ScheduleConfig
        from .data.series_windows import SeriesDataModule
        from .tasks.best_weights import BestWeights
        from .tasks.forecasting import Forecasting

        rounds = min(10, self.max_steps)
        held = self._held_windows(data)
        module = SeriesDataModule(
            data,
            self.lookback,
            self.horizon,
            samples_per_epoch=self.batch_size * (self.max_steps // rounds),
            val_windows=held,
            short_series="keep",
            calendar=self.calendar,
            batch_size=self.batch_size,
            eval_batch_size=self.eval_batch_size,
            seed=self.seed,
        )
        device = find_device(self.device)
        options = usual_options(self.model_name) | self.options
        best = BestWeights()
        with _quiet(), tempfile.TemporaryDirectory() as folder:
            pl.seed_everything(self.seed, verbose=False)
            task = Forecasting(
                self.model_name,
                options,
                linear_start=self.linear_start and bool(options.get("linear_skip")),
                optimizer=OptimizerConfig(lr=self.lr, weight_decay=self.weight_decay),
                schedule=ScheduleConfig(warmup_fraction=0.1),
            )
            task.announce = False
            trainer = pl.Trainer(
                max_epochs=rounds,
                accelerator="gpu" if device.type == "cuda" else "cpu",
                devices=[device.index or 0] if device.type == "cuda" else 1,
                gradient_clip_val=1.0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                callbacks=[best],
                default_root_dir=folder,
            )
            trainer.fit(task, datamodule=module)
        best.restore(task)
        self.history = best.history
        assert isinstance(task.card, TimeSeriesCard)
        self.trained = TrainedForecaster(task.model.eval().to(device), task.card, self.name, self.eval_batch_size)
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
            UserError: it was not fitted, or anything the model refuses.
        """
        if self.trained is None:
            raise UserError(f"{self.name}: is not trained yet; call fit first")
        return self.trained.predict(data, horizon, levels, future)

    def _held_windows(self, data: SeriesSet) -> int:
        """One block for validation, unless no series is left long enough to train on then."""
        longest = max(len(series) for series in data)
        return 1 if longest >= 3 * self.horizon + 1 else 0


def usual_options(model: str) -> dict[str, Any]:
    """Return what a model that is trained on the spot is made with: deciles (of a model of points), series of all sizes
    weighed alike, and a linear map beside it where the model can have one."""
    from ..core.model_place import known_options

    usual: dict[str, Any] = {"loss_units": "window", "dropout": 0.1}
    if _default(model, "head") in ("point", None):
        usual["head"] = "quantiles"
    found = known_options(model, usual)
    decoder = _default(model, "decoder")
    if decoder == "flatten" and known_options(model, {"linear_skip": True}):
        found["linear_skip"] = True
    return found


def _default(model: str, field: str) -> Any:
    from ..core.registry import find_model

    entry = find_model(model)
    return None if entry is None else getattr(entry.config(), field, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages of Lightning that are about how it runs."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
