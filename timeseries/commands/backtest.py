"""``longscan timeseries backtest``: forecast a table's past from rolling origins, and score it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.errors import UserError
from .forecast import _set_threads, file_name
from .options import (
    add_data_arguments,
    add_level_argument,
    add_model_arguments,
    check_folder,
    positive,
    write_frame,
)

if TYPE_CHECKING:
    import pandas as pd

    from ..data import SeriesSet

_DESCRIPTION = """\
Forecast the end of every series again and again, from origins --step rows apart, and compare with what followed.
A forecaster sees only what lies before its origin; baselines and models trained here are fitted before the first origin
(--refit: anew at later ones). Writes to a folder:

  forecasts.csv    every forecast beside what followed
  windows.csv      scores of each window          steps.csv      scores of each step ahead
  error_by_step.png, SERIES.png

MAE and RMSE are in units of the data, over all series; MASE is relative to the mean change from one season to the next
before the first origin.
"""


def backtest(argv: list[str]) -> int:
    """``longscan timeseries backtest``."""
    arguments = _parser().parse_args(argv)
    folder = check_folder(arguments.output)
    _set_threads(arguments)
    from ..backtest import RollingOrigin, cross_validation
    from .inputs import read_data

    loaded = {name: model for name in arguments.model if (model := _load(name, arguments)) is not None}
    cards = [model.card for model in loaded.values()]
    data = read_data(arguments, cards[0] if cards else None)
    print(f"{data.source}: {len(data)} series, steps of {data.frequency}, {data.report}")
    data = data.univariate()
    horizon = arguments.horizon or (cards[0].horizon if cards else data.horizon)
    if horizon is None:
        raise UserError("the horizon is not known; give --horizon")
    forecasters = [loaded.get(name) or _find(name, arguments, data, horizon) for name in arguments.model]
    origins = RollingOrigin(
        horizon,
        arguments.windows,
        arguments.step,
        refit=arguments.refit,
        context=arguments.context,
        embargo=arguments.embargo,
        short_series=arguments.short_series,
    )
    _warn_of_seen_windows(forecasters, data, origins)
    frame = cross_validation(data, forecasters, origins, level=arguments.level)
    names = [forecaster.name for forecaster in forecasters]
    _report(folder, frame, names, arguments, data, origins)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries backtest", description=_DESCRIPTION)
    parser.add_argument(
        "--model", nargs="+", default=["repeat-last", "seasonal-naive", "ridge-nlinear"], metavar="NAME_OR_PATH",
        help="checkpoints, baselines, or models that are trained here [%(default)s]",
    )  # fmt: skip
    parser.add_argument("--horizon", type=positive, help="steps ahead [of the model or the data]")
    parser.add_argument("--lookback", type=positive, help="steps read, of baselines and models trained here [two "
                        "horizons or seasons]")  # fmt: skip
    parser.add_argument("--windows", type=positive, default=3, help="origins [%(default)s]")
    parser.add_argument("--step", type=positive, help="rows between origins [the horizon]")
    parser.add_argument(
        "--refit", type=int, nargs="?", const=1, default=0, metavar="K", help="fit at every K-th origin"
    )
    parser.add_argument("--context", type=positive, help="rows of history kept [all]")
    parser.add_argument("--embargo", type=int, default=0, help="rows before an origin kept from fitting [%(default)s]")
    parser.add_argument("--pictures", type=int, default=12, metavar="N", help="of how many series [%(default)s]")
    add_level_argument(parser, "80")
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    return parser


def _load(name: str, arguments: argparse.Namespace) -> Any:
    from ..naming import load_trained, model_path

    return None if model_path(name) is None else load_trained(name, arguments.device, arguments.batch_size)


def _find(name: str, arguments: argparse.Namespace, data: SeriesSet, horizon: int) -> Any:
    from ..naming import find_forecaster

    return find_forecaster(
        name,
        lookback=arguments.lookback or 2 * max(horizon, data.season),
        horizon=horizon,
        season=data.season_length,
        device=arguments.device,
        batch_size=arguments.batch_size,
        train_steps=arguments.train_steps,
        seed=arguments.seed,
    )


def _warn_of_seen_windows(forecasters: list[Any], data: SeriesSet, origins: Any) -> None:
    """Tell where a trained model has seen what it is to forecast."""
    import sys

    import numpy as np

    for forecaster in forecasters:
        until = getattr(getattr(forecaster, "card", None), "trained_until", None)
        if until is None:
            continue
        for series in data:
            first = series.stamps[min(max(0, origins.cutoffs(len(series))[0]), len(series) - 1)]
            seen = np.datetime64(until) >= first if isinstance(until, str) else int(until) >= int(first)
            if isinstance(until, str) == (series.stamps.dtype.kind == "M") and seen:
                print(
                    f"longscan: note: {forecaster.name} was trained on stamps up to {until}, which lie within the "
                    f"windows of series {series.name!r}: its scores there are no forecasts",
                    file=sys.stderr,
                )
                break


def _report(
    folder: Path, frame: pd.DataFrame, names: list[str], arguments: argparse.Namespace, data: SeriesSet, origins: Any
) -> None:
    from ...core.report import print_table
    from ..backtest_scores import score_table
    from ..pictures import draw_backtest, draw_error_by_step

    scales = _scales(data, origins)
    write_frame(folder / "forecasts.csv", frame)
    shown = {}
    for by, file in (("window", "windows.csv"), ("step", "steps.csv"), (None, None)):
        table = score_table(frame, names, scales, arguments.level, by)
        shown[by] = table
        if file is not None:
            write_frame(folder / file, table.round(6))
    rows = [[_cell(value) for value in row] for row in shown["window"].itertuples(index=False)]
    print_table(list(shown["window"].columns), rows)
    print("\nall windows")
    print_table(
        list(shown[None].columns), [[_cell(value) for value in row] for row in shown[None].itertuples(index=False)]
    )
    by_step = {name: part["mae"].tolist() for name, part in shown["step"].groupby("model", sort=False)}
    paths = [draw_error_by_step(folder / "error_by_step.png", by_step, "mean absolute error")]
    used: set[str] = {"error_by_step"}
    level = max(arguments.level) if arguments.level else None
    for name in frame["unique_id"].unique()[: max(0, arguments.pictures)]:
        part = frame[frame["unique_id"] == name]
        paths.append(draw_backtest(folder / f"{file_name(str(name), used)}.png", part, names, level))
    print(f"written: {folder / 'forecasts.csv'}, windows.csv, steps.csv and {len(paths)} pictures")


def _scales(data: SeriesSet, origins: Any) -> dict[str, float]:
    """Return the seasonal error of each series before its first origin."""
    from ..metrics import seasonal_error

    scales = {}
    for series in data:
        cutoff = origins.cutoffs(len(series))[0]
        if cutoff > 0:
            scales[series.name] = seasonal_error(series.values[:cutoff, 0], data.season)
    return scales


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if value != value else f"{value:.4f}"
    return str(value)
