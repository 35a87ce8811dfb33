"""``longscan timeseries detect``: how unexpected each value of a table is."""

from __future__ import annotations

from types import SimpleNamespace

from ...core.cli import Parser
from ...core.errors import UserError
from .backtest import _warn_of_seen_windows
from .forecast import _set_threads, _trained
from .options import add_data_arguments, add_model_arguments, check_output, positive, write_frame

_DESCRIPTION = """\
Forecast every value after the training rows from what lies before it, and write how far it lies from the forecast in
units of the forecast's own spread. A value is called an anomaly above a threshold that a share --rate of the last third
of the training rows exceeds; neither the model nor the threshold sees the rows that are scored (a checkpoint may have
been trained on them, which is said then).

Writes CSV: unique_id, ds, y, expected, score, threshold, anomaly.
"""


#: Steps read at least where nothing else is asked for: two rows of a series without a season have no scale.
_LEAST = 16


def detect(argv: list[str]) -> int:
    """``longscan timeseries detect``."""
    arguments = _parser().parse_args(argv)
    output = check_output(arguments.output)
    _set_threads(arguments)
    from ..anomalies import score_anomalies
    from ..naming import find_forecaster
    from .inputs import read_data

    trained = _trained(arguments)
    data = read_data(arguments, None if trained is None else trained.card).univariate()
    horizon = arguments.horizon
    if data.frequency is None:
        raise UserError(f"{data.source}: irregular series have no next stamp; give --frequency")
    forecaster = trained or find_forecaster(
        arguments.model,
        lookback=arguments.lookback or 2 * max(horizon, data.season, _LEAST // 2),
        horizon=horizon,
        season=data.season_length,
        device=arguments.device,
        batch_size=arguments.batch_size,
        train_steps=arguments.train_steps,
        seed=arguments.seed,
    )
    _warn_of_seen_windows([forecaster], data, SimpleNamespace(cutoffs=lambda rows: [arguments.train_rows or rows // 2]))
    table = score_anomalies(data, forecaster, horizon, arguments.train_rows, arguments.rate)
    write_frame(output, table)
    flagged = int(table["anomaly"].sum())
    print(f"{len(table)} values of {len(data)} series scored, {flagged} anomalies -> {output}")
    if table["score"].notna().any():
        worst = table.loc[table["score"].idxmax()]
        print(f"highest: {worst['score']:.1f}, {worst['unique_id']} at {worst['ds']}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="longscan timeseries detect", description=_DESCRIPTION)
    parser.add_argument("--model", default="ridge-nlinear", metavar="NAME_OR_PATH", help="[%(default)s]")
    parser.add_argument("--train-rows", type=positive, help="of each series [half of it]")
    parser.add_argument("--horizon", type=positive, default=1, help="rows forecast at a time [%(default)s]")
    parser.add_argument("--lookback", type=positive, help="steps read, of baselines and models trained here [two "
                        f"seasons, {_LEAST} at least]")  # fmt: skip
    parser.add_argument("--rate", type=float, default=0.01, help="share of false alarms [%(default)s]")
    add_data_arguments(parser)
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="CSV to write")
    return parser
