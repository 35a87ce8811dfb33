"""``longscan timeseries evaluate``: the published protocols, baselines beside every model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.cli import Parser
from .forecast import _set_threads
from .options import add_model_arguments, check_folder, numbers_argument, positive, write_frame, write_text

_DESCRIPTION = """\
Score models under a published protocol, and write scores.csv and scores.json with four decimals.

ltsf  long-term forecasting: MSE and MAE of values scaled by the training rows, over every window of the test split
      (none is dropped). FILE has a column date; its name (ETTh1, exchange_rate, weather, …) chooses the splits.
m4    FILE is Hourly-train.csv and the like, with Hourly-test.csv beside it: sMAPE, MASE and OWA as the competition
      computed them, and WQL and the coverage of 80 % intervals.
gift  GIFT-Eval: MASE and WQL pooled over windows at the end of each series, and relative to the seasonal naive
      forecast. FILE is a long or wide table, .tsf or M4.

A model is a checkpoint or its folder, where {horizon} stands for each of the horizons; a baseline (repeat-last,
seasonal-naive, naive2, ridge-nlinear, ridge-rlinear, ridge-linear); or, with m4 and gift, the name of a model, which is
then trained on FILE. The baselines of the protocol are scored in any case.
"""

#: Scored in any case; the last one is what a model has to beat.
BASELINES = {
    "ltsf": ("repeat-last", "seasonal-naive", "ridge-nlinear"),
    "m4": ("naive2", "seasonal-naive"),
    "gift": ("repeat-last", "seasonal-naive"),
}


def evaluate(argv: list[str]) -> int:
    """``longscan timeseries evaluate``."""
    arguments = _parser().parse_args(argv)
    folder = check_folder(arguments.output)
    _set_threads(arguments)
    from ... import __version__
    from ..protocols import gift_rows, ltsf_rows, m4_rows

    names = list(dict.fromkeys([*BASELINES[arguments.protocol], *arguments.model]))
    rows = {"ltsf": ltsf_rows, "m4": m4_rows, "gift": gift_rows}[arguments.protocol](arguments, names)
    result = {
        "protocol": arguments.protocol,
        "data": arguments.data,
        "longscan": __version__,
        "scores": [{name: _rounded(value) for name, value in row.items() if value is not None} for row in rows],
    }
    _write(folder, result)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries evaluate", description=_DESCRIPTION)
    parser.add_argument("--protocol", choices=tuple(BASELINES), required=True)
    parser.add_argument("--data", required=True, metavar="FILE", help="or ETTh1, which ships")
    parser.add_argument("--model", nargs="*", default=[], metavar="NAME_OR_PATH", help="any number of them")
    parser.add_argument("--horizons", type=numbers_argument, help="[96,192,336,720; m4, gift: of the data]")
    parser.add_argument("--lookback", type=positive, help="of baselines and models trained here [336; m4, gift: "
                        "two seasons or horizons]")  # fmt: skip
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="ltsf [%(default)s]")
    parser.add_argument("--name", help="ltsf: data set whose splits are meant [the file's name]")
    parser.add_argument("--features", choices=("M", "S", "MS"), default="M", help="ltsf: all channels, the target "
                        "alone, or all in and the target out [%(default)s]")  # fmt: skip
    parser.add_argument("--target", help="ltsf: the target channel [OT, or the last]")
    parser.add_argument("--test", metavar="FILE", help="m4: what followed [-test in place of -train]")
    parser.add_argument("--group", help="m4: Hourly, Weekly, … [by the file's name]")
    parser.add_argument("--layout", choices=("long", "wide", "m4", "tsf"), help="gift: of the table [found]")
    parser.add_argument("--frequency", help="gift: step between stamps [inferred]")
    parser.add_argument("--windows", type=positive, help="gift: windows of each series [a tenth of it, 1 to 20]")
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to write to")
    return parser


def _write(folder: Path, result: dict[str, Any]) -> None:
    import pandas as pd

    from ...core.report import print_table

    frame = pd.DataFrame(result["scores"])
    shown = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    print_table(list(frame.columns), shown)
    write_frame(folder / "scores.csv", frame)
    write_text(folder / "scores.json", json.dumps(result, indent=2) + "\n")
    print(f"written: {folder / 'scores.csv'}, {folder / 'scores.json'}")


def _rounded(value: Any) -> Any:
    """Four decimals; JSON has no NaN: what is undefined is null."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if value == value else None


def _cell(value: Any) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
