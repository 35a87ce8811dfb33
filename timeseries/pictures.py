"""Pictures of forecasts. matplotlib is imported only when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..core.files import replacing
from .data.series import Series
from .forecasts import Forecast

_FORECAST = "tab:blue"


def draw_fan(
    path: str | Path,
    series: Series,
    forecast: Forecast,
    *,
    channels: Sequence[str] = ("y",),
    actual: np.ndarray | None = None,
    context: int | None = None,
    title: str | None = None,
) -> Path:
    """Draw the end of a history, the forecast after it, and its central intervals as a fan; return the path.

    Args:
        path: PNG to write, whole or not at all.
        series: history.
        forecast: of the steps after it.
        channels: one row of the picture for each.
        actual: what followed, (horizon, channels), where it is known.
        context: steps of history shown; four horizons where None.
        title: above the picture; the name of the series where None.
    """
    shown = max(4 * len(forecast.stamps), 24) if context is None else context
    figure, rows = _figure(len(channels), (9.0, 2.6 if len(channels) > 1 else 3.6))
    stamps = series.stamps[-shown:]
    for index, axes in enumerate(rows):
        axes.plot(stamps, series.values[-shown:, index], color="black", linewidth=1, label="observed")
        if forecast.quantiles is not None:
            _fan(axes, forecast, index)
        axes.plot(forecast.stamps, forecast.point[:, index], color=_FORECAST, linewidth=1.3, label="forecast")
        if actual is not None:
            axes.plot(forecast.stamps, actual[:, index], color="black", linestyle=":", linewidth=1.2, label="followed")
        axes.axvline(series.stamps[-1], color="grey", linewidth=0.6)
        axes.grid(alpha=0.25)
        if len(channels) > 1:
            axes.set_ylabel(channels[index])
    rows[0].set_title(series.name if title is None else title)
    rows[0].legend(loc="upper left", fontsize=8)
    return _save(figure, path)


def _fan(axes: Any, forecast: Forecast, index: int) -> None:
    """Shade the interval between each pair of opposite levels, the widest lightest."""
    assert forecast.quantiles is not None
    levels = np.asarray(forecast.levels)
    for low in levels[levels < 0.5]:
        opposite = np.flatnonzero(np.isclose(levels, 1 - low))
        if len(opposite) == 0:
            continue
        first = int(np.flatnonzero(levels == low)[0])
        lower, upper = forecast.quantiles[first, :, index], forecast.quantiles[opposite[0], :, index]
        share = f"{100 * (1 - 2 * low):.4g} %"
        axes.fill_between(forecast.stamps, lower, upper, color=_FORECAST, alpha=0.15 + 0.2 * low, lw=0, label=share)


def draw_backtest(path: str | Path, frame: pd.DataFrame, models: Sequence[str], level: float | None = None) -> Path:
    """Draw the windows of one series: what happened, what each model said, and where each window began.

    Args:
        path: PNG to write.
        frame: rows of one series of `longscan.timeseries.backtest.cross_validation`, its columns named ds and y.
        models: names.
        level: of the interval that is shaded for the first model; None for none.
    """
    figure, (axes,) = _figure(1, (9.0, 3.6))
    observed = frame.drop_duplicates("ds").sort_values("ds")
    axes.plot(observed["ds"], observed["y"], color="black", linewidth=1, label="observed")
    for number, model in enumerate(models):
        for window, part in frame.groupby("window"):
            label = model if window == frame["window"].min() else None
            axes.plot(part["ds"], part[model], color=f"C{number}", linewidth=1.1, label=label)
            if level is not None and number == 0:
                low, high = part[f"{model}-lo-{level:g}"], part[f"{model}-hi-{level:g}"]
                axes.fill_between(part["ds"], low, high, color="C0", alpha=0.15, lw=0)
    for cutoff in frame["cutoff"].unique():
        axes.axvline(cutoff, color="grey", linewidth=0.6)
    axes.set_title(str(frame["unique_id"].iloc[0]))
    axes.legend(loc="upper left", fontsize=8)
    axes.grid(alpha=0.25)
    return _save(figure, path)


def draw_error_by_step(path: str | Path, errors: Mapping[str, Sequence[float]], label: str) -> Path:
    """Draw the error of each model at each step ahead.

    Args:
        path: PNG to write.
        errors: name -> value of each step.
        label: of the vertical axis.
    """
    figure, (axes,) = _figure(1, (6.5, 3.4))
    for name, values in errors.items():
        axes.plot(np.arange(1, len(values) + 1), values, linewidth=1.2, label=name)
    axes.set_xlabel("steps ahead")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    return _save(figure, path)


def _figure(rows: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0], size[1] * rows), layout="constrained")
    FigureCanvasAgg(figure)
    first = figure.add_subplot(rows, 1, 1)
    return figure, [first, *(figure.add_subplot(rows, 1, row, sharex=first) for row in range(2, rows + 1))]


def _save(figure: Any, path: str | Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return Path(path)
