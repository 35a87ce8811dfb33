"""``longscan timeseries forecast``: a table's future with intervals, as CSV and fan charts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.errors import UserError
from .options import (
    add_data_arguments,
    add_level_argument,
    add_model_arguments,
    check_folder,
    positive,
    write_frame,
    write_text,
)

if TYPE_CHECKING:
    from ..data import SeriesSet
    from ..forecasts import Forecast

_DESCRIPTION = """\
Forecast every series of a table, in its own units, and write to a folder:

  forecast.csv    series, stamp, forecast, and the lower and upper ends of the intervals
  SERIES.png      the end of the history and the forecast, for the first series (--pictures)
  selection.json  with --model auto: what the back-test said of each candidate

A model is a checkpoint or its folder; a baseline (repeat-last, seasonal-naive, naive2, ridge-nlinear, ridge-rlinear,
ridge-linear); the name of a model (`longscan models --domain timeseries`), which is trained on the table unless it has
weights; or auto, which back-tests --candidates on the end of the table and says why it chose one.
"""


def forecast(argv: list[str]) -> int:
    """``longscan timeseries forecast``."""
    arguments = _parser().parse_args(argv)
    folder = check_folder(arguments.output)
    _set_threads(arguments)
    from ..data import read_future
    from ..forecasts import forecast_table, interval_levels
    from .inputs import read_data, table_columns

    trained = _trained(arguments)
    card = None if trained is None else trained.card
    data = read_data(arguments, card)
    print(f"{data.source}: {len(data)} series, steps of {data.frequency}, {data.report}")
    if trained is None or trained.model.config.variates in (None, 1):
        data = data.univariate()
    horizon = _horizon(arguments, data, card)
    columns = table_columns(arguments, card)
    future = None
    if data.future_names or arguments.future_data is not None:
        future = read_future(arguments.future_data, data, horizon, columns, arguments.date_format)
    forecaster = trained or _named(arguments, data, horizon, folder)
    levels = interval_levels(arguments.level) if arguments.level else ()
    forecasts = forecaster.fit(data).predict(data, horizon, levels, future)
    table = forecast_table(forecasts, forecaster.name, level=arguments.level, channels=data.channels, columns=columns)
    write_frame(folder / "forecast.csv", table)
    print(f"{len(forecasts)} series, {horizon} steps by {forecaster.name} -> {folder / 'forecast.csv'}")
    for path in _draw(folder, data, forecasts, forecaster.name, arguments.pictures):
        print(f"  {path}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries forecast", description=_DESCRIPTION)
    parser.add_argument("--model", default="auto", metavar="NAME_OR_PATH", help="see above [%(default)s]")
    parser.add_argument("--horizon", type=positive, help="steps [of the model or the data, else two seasons]")
    parser.add_argument("--lookback", type=positive, help="steps read, of baselines and models trained here [two "
                        "horizons or seasons]")  # fmt: skip
    add_level_argument(parser, "80,95")
    parser.add_argument("--future-data", metavar="FILE", help="covariates of --future over the horizon")
    parser.add_argument("--candidates", nargs="+", metavar="NAME_OR_PATH", help="what auto compares")
    parser.add_argument("--windows", type=positive, default=3, help="of auto's back-test, at most [%(default)s]")
    parser.add_argument("--pictures", type=int, default=12, metavar="N", help="of how many series [%(default)s]")
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    return parser


def _set_threads(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)


def _trained(arguments: argparse.Namespace) -> Any:
    """Return the model of ``--model`` where it has weights, so that its card can tell how to read the table."""
    from ..naming import model_path

    if arguments.model == "auto" or model_path(arguments.model) is None:
        return None
    from ..naming import load_trained

    return load_trained(arguments.model, arguments.device, arguments.batch_size)


def _horizon(arguments: argparse.Namespace, data: SeriesSet, card: Any) -> int:
    if arguments.horizon is not None:
        return int(arguments.horizon)
    if card is not None:
        return int(card.horizon)
    if data.horizon is not None:
        return data.horizon
    if data.season > 1:
        return 2 * data.season
    raise UserError(f"{data.source}: steps of {data.frequency} have no season to go by; give --horizon")


def _named(arguments: argparse.Namespace, data: SeriesSet, horizon: int, folder: Path) -> Any:
    """Return the forecaster of a name, chosen by back-tests for ``auto``."""
    from ..naming import find_forecaster
    from ..selection import CANDIDATES, select

    lookback = arguments.lookback or 2 * max(horizon, data.season)

    def find(name: str) -> Any:
        return find_forecaster(
            name, lookback=lookback, horizon=horizon, season=data.season_length, device=arguments.device,
            batch_size=arguments.batch_size, train_steps=arguments.train_steps, seed=arguments.seed,
        )  # fmt: skip

    if arguments.model != "auto":
        return find(arguments.model)
    names = list(dict.fromkeys(arguments.candidates or CANDIDATES))
    selection = select(data, [(name, find(name)) for name in names], horizon, arguments.windows)
    _tell(selection, folder)
    return find(selection.chosen)


def _tell(selection: Any, folder: Path) -> None:
    import dataclasses
    import json

    from ...core.report import print_table

    if selection.trials:
        rows = [
            (trial.name, _number(trial.wql), _number(trial.mase), _number(trial.coverage_80), str(trial.windows),
             trial.problem)
            for trial in selection.trials
        ]  # fmt: skip
        print_table(("candidate", "wql", "mase", "coverage_80", "windows", "problem"), rows)
    if selection.left_out:
        print(f"too short for the back-test: {len(selection.left_out)} series ({selection.left_out[0]}, …)")
    print(f"chosen: {selection.reason}")
    plain = {
        name: [{key: _rounded(cell) for key, cell in trial.items()} for trial in value] if name == "trials" else value
        for name, value in dataclasses.asdict(selection).items()
    }
    write_text(folder / "selection.json", json.dumps(plain, indent=2) + "\n")


def _number(value: float) -> str:
    return f"{value:.4f}" if value == value else "-"


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 4) if value == value else None


def _draw(folder: Path, data: SeriesSet, forecasts: list[Forecast], model: str, count: int) -> list[Path]:
    from ..pictures import draw_fan

    paths: list[Path] = []
    used: set[str] = set()
    for series, one in list(zip(data, forecasts, strict=True))[: max(0, count)]:
        name = file_name(series.name, used)
        title = f"{series.name}: {len(one.stamps)} steps by {model}"
        paths.append(draw_fan(folder / f"{name}.png", series, one, channels=data.channels, title=title))
    return paths


def file_name(name: str, used: set[str]) -> str:
    """Return a name for a file of a series: letters, digits and ``._-`` alone, and none that was ``used``."""
    plain = re.sub(r"[^\w.-]+", "_", name).strip("._") or "series"
    found, number = plain, 1
    while found in used:
        number += 1
        found = f"{plain}-{number}"
    used.add(found)
    return found
