"""``longscan timeseries impute``: a table with its holes filled, in its own units."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ...core.cli import Parser
from ...core.errors import UserError
from .forecast import _set_threads
from .options import add_data_arguments, add_model_arguments, check_folder, check_output, positive, write_frame

if TYPE_CHECKING:
    from ..card import TimeSeriesCard
    from ..data import SeriesSet

_DESCRIPTION = """\
Fill the empty cells and the missing rows of a table, long or wide, and write the same table with every other cell as it
was. Before, a share of the observed cells (--hide) is hidden, in runs as long as those that are missing; each method
fills them without having seen them, and the errors on half of them are printed, in units of the data. With auto the
other half chooses the method.

  linear    a line between the neighbours
  seasonal  the same, of what the mean of each place in the season leaves
  masked    S4D in both directions over windows of the table, trained here by hiding cells, added to the line
  PATH      a model that --save wrote; or a forecaster (also by name, such as ridge-nlinear), whose continuation over
            each gap is bent to meet the value behind it
"""

_PLAIN = ("linear", "seasonal")


def impute(argv: list[str]) -> int:
    """``longscan timeseries impute``."""
    arguments = _parser().parse_args(argv)
    for name, allowed in (("gaps", "mask"), ("missing", "mask"), ("irregular", "error")):
        if getattr(arguments, name) not in (allowed, "error"):
            raise UserError(f"--{name} {getattr(arguments, name)}: impute fills what is missing itself; leave it out")
    if arguments.save is not None and arguments.model not in ("masked", "auto"):
        raise UserError(
            f"--save keeps a model trained here; it goes with --model masked or auto, not {arguments.model}"
        )
    output = check_output(arguments.output)
    cells = None if arguments.cells is None else check_output(arguments.cells, "--cells")
    save = None if arguments.save is None else check_folder(arguments.save, "--save")
    _set_threads(arguments)
    from .inputs import read_data

    if arguments.layout in ("m4", "tsf") or arguments.data.endswith(".tsf"):
        raise UserError(f"{arguments.data}: impute writes a table like the one it reads; give a long or wide one")
    card, makers = _makers(arguments)
    data = read_data(arguments, card)
    print(f"{data.source}: {len(data)} series, steps of {data.frequency}, {data.report}")
    for series in data:
        if not series.observed.any(0).all():
            channel = data.channels[int(series.observed.any(0).argmin())]
            raise UserError(
                f"{data.source}: series {series.name!r}: {channel} is never observed, so nothing tells its values; "
                "drop it"
            )
    missing = sum(int((~series.observed).sum()) for series in data)
    if missing == 0:
        print("nothing is missing: errors are measured, and the table is written as it is")
    chosen = _compare(data, makers, arguments)
    values = chosen.fill(data)
    table, filled = _table(arguments, data, values)
    write_frame(output, table)
    print(f"{len(filled)} values filled by {chosen.name} -> {output}")
    if cells is not None:
        write_frame(cells, filled)
        print(f"which ones -> {cells}")
    if save is not None and getattr(chosen, "model", None) is not None:
        print(f"model -> {chosen.model.save_pretrained(save)}")
    return 0


def _compare(data: SeriesSet, makers: dict[str, Any], arguments: argparse.Namespace) -> Any:
    """Print the errors of every method on hidden cells, and return the one asked for, or chosen."""
    from ...core.report import print_table
    from ..imputation import hide_cells, measure_errors

    made = {name: make(data) for name, make in makers.items()}
    held = hide_cells(data, arguments.hide, arguments.seed)
    if held is None:
        chosen = "linear" if arguments.model == "auto" else arguments.model
        print(f"too few values are observed to hide {arguments.hide:.0%} of them, so errors are not measured")
        return made[chosen].fit(data)
    fillings = {name: imputer.fit(held.data).fill(held.data) for name, imputer in made.items()}
    rows = []
    for name, filled in fillings.items():
        errors = measure_errors(filled, data, held.report)
        rows.append((made[name].name, f"{errors.mae:.4g}", f"{errors.rmse:.4g}", f"{errors.scaled_mae:.4f}"))
    print(f"{sum(int(part.sum()) for part in held.report)} hidden cells:")
    print_table(("", "MAE", "RMSE", "MAE / deviation"), rows)
    if arguments.model == "auto":
        own = {name: measure_errors(filled, data, held.choose).scaled_mae for name, filled in fillings.items()}
        chosen = min(own, key=lambda name: own[name])
        print(f"chosen: {made[chosen].name}, the least error on the other half ({own[chosen]:.4f} deviations)")
        return made[chosen]
    return made[arguments.model]


def _makers(arguments: argparse.Namespace) -> tuple[TimeSeriesCard | None, dict[str, Any]]:
    """Return the card of a forecaster that was trained before, and for each method what makes it of the data."""
    from ..imputation import LinearInterpolation, SeasonalInterpolation
    from ..naming import model_path

    makers: dict[str, Any] = {"linear": lambda data: LinearInterpolation()}
    if arguments.model != "linear":
        makers["seasonal"] = lambda data: SeasonalInterpolation()
    if arguments.model in ("masked", "auto"):
        makers["masked"] = lambda data: _masked(arguments)
    if arguments.model in makers or arguments.model == "auto":
        return None, makers
    place = model_path(arguments.model)
    if place is not None and _is_imputer(place):
        from ..masked_training import MaskedImputer

        loaded = MaskedImputer.load(place, arguments.device)
        return None, makers | {arguments.model: lambda data: loaded}
    from .forecast import _trained

    trained = _trained(arguments)
    if trained is not None and len(trained.card.channels) > 1:
        raise UserError(f"--model {arguments.model}: forecasts several channels together; gaps are filled one by one")

    def bridged(data: SeriesSet) -> Any:
        from ..imputation import BridgedForecasts, gap_patterns
        from ..naming import find_forecaster

        longest = 1 + max(length for length, _ in gap_patterns(data))
        if trained is not None:
            return BridgedForecasts(trained, trained.card.lookback, trained.card.horizon)
        lookback = 2 * max(longest, data.season, 8)
        steps = 1 << longest.bit_length()
        forecaster = find_forecaster(
            arguments.model, lookback=lookback, horizon=steps, season=data.season_length, device=arguments.device,
            batch_size=arguments.batch_size, train_steps=arguments.train_steps, seed=arguments.seed,
        )  # fmt: skip
        return BridgedForecasts(forecaster, lookback, steps)

    return (None if trained is None else trained.card), makers | {arguments.model: bridged}


def _masked(arguments: argparse.Namespace) -> Any:
    from ..masked_training import MaskedImputer

    return MaskedImputer(
        window=arguments.window, steps=arguments.train_steps, seed=arguments.seed, device=arguments.device,
        report=print,
    )  # fmt: skip


def _is_imputer(place: Any) -> bool:
    """Whether a folder's configuration says that it is a `SeriesImputer`."""
    from ...core.checkpoint_files import read_json

    file = place / "config.json"
    return file.is_file() and read_json(file).get("architecture") == "SeriesImputer"


def _table(arguments: argparse.Namespace, data: SeriesSet, values: Any) -> Any:
    from ..data.reading import find_layout
    from ..datasets import DATASETS, dataset_path
    from ..imputed_table import filled_table
    from .inputs import table_columns

    columns = table_columns(arguments)
    source = dataset_path(arguments.data) if arguments.data in DATASETS else arguments.data
    wide_time = arguments.time_column or "date"
    long = (arguments.layout or find_layout(source, {"columns": columns, "time": wide_time})) == "long"
    return filled_table(
        source, data, values, time=columns.time if long else wide_time, columns=columns if long else None,
        date_format=arguments.date_format,
    )  # fmt: skip


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries impute", description=_DESCRIPTION)
    parser.add_argument("--model", default="auto", metavar="NAME_OR_PATH",
                        help="linear, seasonal, masked, a path or a forecaster's name, or auto, the best of the first "
                        "three [%(default)s]")  # fmt: skip
    parser.add_argument("--hide", type=float, default=0.1, metavar="SHARE",
                        help="of the observed cells, hidden to measure errors, at most 0.5 [%(default)s]")  # fmt: skip
    parser.add_argument("--window", type=positive, default=96, help="steps that masked reads at a time [%(default)s]")
    parser.add_argument("--save", metavar="DIR", help="folder for the model that masked trains")
    parser.add_argument(
        "--cells", metavar="FILE", help="CSV of the cells that were filled: series, stamp, channel, value"
    )
    add_data_arguments(parser, help="CSV, TSV or Parquet file, long or wide")
    add_model_arguments(parser)
    parser.set_defaults(gaps="mask")
    parser.add_argument("--output", required=True, metavar="FILE", help="CSV to write")
    return parser
