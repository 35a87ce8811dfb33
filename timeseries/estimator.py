"""Forecasting from Python with the conventions of the field: fit, predict, cross_validation, save, load."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pandas as pd

from ..core.errors import UserError
from .backtest import RollingOrigin, cross_validation
from .baselines.forecasters import BASELINES
from .data import Columns, Policy, SeriesSet, make_series, read_future, read_series
from .data.series import Series
from .forecasts import forecast_table, interval_levels
from .frequency import parse_frequency

#: Names of the files of a saved estimator.
_SETTINGS, _HISTORY = "estimator.json", "history.parquet"


class TimeSeriesForecaster:
    """A forecaster of long tables (``unique_id, ds, y`` and covariates).

    ::

        forecaster = TimeSeriesForecaster("s4d_patch_forecaster", horizon=24, lookback=168)
        forecaster.fit(df)
        forecaster.predict(level=[80, 95])                  # unique_id, ds, the model, model-lo-80, model-hi-80, …
        forecaster.cross_validation(df, n_windows=3)
        forecaster.save("folder"); TimeSeriesForecaster.load("folder").predict()

    Args:
        model: a baseline (``seasonal-naive``, ``ridge-nlinear``, …), a registered model, which ``fit`` trains, or a
            checkpoint or its folder, which is used as it is.
        horizon: steps to forecast.
        lookback: steps read; two horizons or seasons where None.
        frequency: of the stamps; inferred where None.
        columns: names of the columns, and covariates.
        policy: about imperfect data.
        season: steps per season; that of the frequency where None.
        device: auto, cpu, cuda, …
        seed: of the training.
        training: further arguments of `longscan.timeseries.trainable.TrainableForecaster`, such as ``options``,
            ``max_steps``, ``lr``, ``batch_size``, ``calendar``.

    Raises:
        UserError: sizes out of range, or (from ``fit``) an unknown model.
    """

    def __init__(
        self,
        model: str = "s4d_patch_forecaster",
        horizon: int = 24,
        lookback: int | None = None,
        *,
        frequency: str | int | None = None,
        columns: Columns = Columns(),  # noqa: B008  # frozen
        policy: Policy = Policy(),  # noqa: B008  # frozen
        season: int | None = None,
        device: str = "auto",
        seed: int = 0,
        **training: Any,
    ) -> None:
        if horizon < 1 or (lookback is not None and lookback < 1):
            raise UserError(f"horizon={horizon} and lookback={lookback} must be at least 1")
        self.model, self.horizon, self.lookback, self.frequency = model, horizon, lookback, frequency
        self.columns, self.policy, self.season = columns, policy, season
        self.device, self.seed, self.training = device, seed, training
        self.forecaster: Any = None
        self.data: SeriesSet | None = None

    # Learning and forecasting

    def fit(self, df: Any, *, static: Any = None) -> Self:
        """Read a table and learn from it.

        Args:
            df: pandas, polars or Arrow table, or a path.
            static: table of static properties, one row for each series.

        Raises:
            UserError: anything wrong with the table; names the series and the row.
        """
        self.data = self._read(df, static)
        self.forecaster = self._make(self.data).fit(self.data)
        return self

    def predict(
        self,
        h: int | None = None,
        *,
        df: Any = None,
        level: Sequence[float] = (),
        quantiles: Sequence[float] = (),
        future: Any = None,
        static: Any = None,
    ) -> pd.DataFrame:
        """Forecast the steps after each series, in original units.

        Args:
            h: steps; those of training where None.
            df: histories to forecast from; those of ``fit`` where None.
            level: central intervals in percent; columns ``model-lo-80``, ``model-hi-80``.
            quantiles: in (0, 1); columns ``model-q0.1``.
            future: table of the covariates that are known in advance, a row for each series and step.
            static: as in ``fit``, for ``df``.

        Raises:
            UserError: it was not fitted, or anything wrong with the tables.
        """
        if self.forecaster is None or self.data is None:
            raise UserError("the forecaster is not fitted yet; call fit first")
        data = self.data if df is None else self._read(df, static)
        steps = self.horizon if h is None else h
        if steps < 1:
            raise UserError(f"h={steps} must be at least 1")
        known = read_future(future, data, steps, self.columns) if data.future_names or future is not None else None
        levels = {*(interval_levels(level) if level else ()), *quantiles}
        forecasts = self.forecaster.predict(data, steps, tuple(sorted(levels)), known)
        return forecast_table(forecasts, self.forecaster.name, level=level, quantiles=quantiles, columns=self.columns)

    def cross_validation(
        self,
        df: Any,
        h: int | None = None,
        *,
        n_windows: int = 1,
        step_size: int | None = None,
        refit: bool | int = False,
        level: Sequence[float] = (),
        static: Any = None,
    ) -> pd.DataFrame:
        """Forecast from rolling origins, learning only from what lies before them; what ``fit`` learned is left alone.

        Returns series, stamp, ``cutoff``, ``step``, target, the columns of `predict`, and ``window``.

        Args:
            df: as in ``fit``.
            h: steps; those of training where None.
            n_windows: origins, the last of which lies ``h`` rows before the end.
            step_size: rows between origins; ``h`` where None.
            refit: learn anew at each origin, or at every so-many-th.
            level: as in ``predict``.
            static: as in ``fit``.

        Raises:
            UserError: series too short, or anything wrong with the table.
        """
        data = self._read(df, static)
        origins = RollingOrigin(self.horizon if h is None else h, n_windows, step_size, refit=refit)
        return cross_validation(data, [self._make(data)], origins, level=level, columns=self.columns)

    # Files

    def save(self, folder: str | Path) -> Path:
        """Write settings, weights and the histories of ``fit`` to a folder, and return it.

        Raises:
            UserError: it was not fitted.
        """
        from ..core.files import replacing

        if self.forecaster is None or self.data is None:
            raise UserError("the forecaster is not fitted yet; call fit first")
        folder = Path(folder)
        trained = getattr(self.forecaster, "trained", self.forecaster)
        if hasattr(trained, "card"):
            trained.model.save_pretrained(folder)
            trained.card.write(folder)
        elif self.forecaster is not trained or self.model not in BASELINES:
            raise UserError(f"{self.model}: cannot be saved")
        with replacing(folder / _HISTORY) as path:
            _history_frame(self.data).to_parquet(path)
        with replacing(folder / _SETTINGS) as path:
            path.write_text(json.dumps(self._settings(), indent=2) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, device: str = "auto") -> TimeSeriesForecaster:
        """Return the estimator that ``save`` wrote, ready to predict.

        Raises:
            UserError: a folder that ``save`` did not write.
        """
        from ..core.checkpoint_files import read_json

        folder = Path(folder)
        if not (folder / _SETTINGS).is_file():
            raise UserError(f"{folder}: no estimator was saved there; {_SETTINGS} is missing")
        settings = read_json(folder / _SETTINGS)
        described = settings.pop("data")
        columns = Columns(**{name: _tuple(value) for name, value in settings.pop("columns").items()})
        found = cls(columns=columns, policy=Policy(**settings.pop("policy")), device=device, **settings)
        found.data = _history_set(pd.read_parquet(folder / _HISTORY), described)
        if found.model in BASELINES:
            found.forecaster = found._make(found.data).fit(found.data)
            return found
        from .trained import load_forecaster

        found.forecaster = load_forecaster(folder, described["name"], device)
        return found

    # How

    def _read(self, df: Any, static: Any) -> SeriesSet:
        options: dict[str, Any] = {} if static is None else {"static": static}
        data = read_series(df, "long", frequency=self.frequency, columns=self.columns, policy=self.policy, **options)
        return data if self.season is None else data.replace(data.series, season_length=self.season)

    def _make(self, data: SeriesSet) -> Any:
        """Return a fresh forecaster."""
        from .naming import find_forecaster

        lookback = self.lookback or 2 * max(self.horizon, data.season)
        return find_forecaster(
            self.model, lookback=lookback, horizon=self.horizon, season=self.season, device=self.device,
            seed=self.seed, training=self.training,
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        import dataclasses

        assert self.data is not None
        settings = {
            "model": self.model,
            "horizon": self.horizon,
            "lookback": self.lookback,
            "frequency": self.frequency,
            "season": self.season,
            "seed": self.seed,
            **self.training,
        }
        data = self.data
        return settings | {
            "columns": dataclasses.asdict(self.columns),
            "policy": dataclasses.asdict(self.policy),
            "data": {
                "name": self.forecaster.name,
                "frequency": None if data.frequency is None else data.frequency.value,
                "season": data.season,
                "categories": {name: list(values) for name, values in data.categories.items()},
                "timezone": data.timezone,
                "source": data.source,
                "static": {series.name: series.static.tolist() for series in data},
                "historic_names": list(data.historic_names),
                "future_names": list(data.future_names),
                "static_names": list(data.static_names),
            },
        }


def _history_frame(data: SeriesSet) -> pd.DataFrame:
    parts = []
    for series in data:
        part = pd.DataFrame({"series": series.name, "stamp": series.stamps, "value": series.values[:, 0]})
        for kind, names, values in (
            ("historic", data.historic_names, series.historic),
            ("future", data.future_names, series.future),
        ):
            for index, name in enumerate(names):
                part[f"{kind}:{name}"] = values[:, index]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _history_set(frame: pd.DataFrame, described: Mapping[str, Any]) -> SeriesSet:
    found: list[Series] = []
    names = {kind: tuple(described[f"{kind}_names"]) for kind in ("historic", "future", "static")}
    import dataclasses

    import numpy as np

    for name, part in frame.groupby("series", sort=False):
        stamps = part["stamp"].to_numpy()
        stamps = stamps.astype("datetime64[us]") if stamps.dtype.kind == "M" else stamps
        series = make_series(str(name), stamps, part["value"].to_numpy(dtype=np.float64))
        covariates = {
            kind: part[[f"{kind}:{column}" for column in names[kind]]].to_numpy(dtype=np.float64)
            for kind in ("historic", "future")
        }
        found.append(dataclasses.replace(series, static=np.array(described["static"][str(name)]), **covariates))
    return SeriesSet(
        tuple(found),
        None if described["frequency"] is None else parse_frequency(described["frequency"]),
        historic_names=names["historic"],
        future_names=names["future"],
        static_names=names["static"],
        categories={name: tuple(values) for name, values in described["categories"].items()},
        timezone=described["timezone"],
        source=described["source"],
        season_length=described["season"],
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
