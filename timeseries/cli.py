"""``longscan timeseries``: the commands of the time-series domain."""

from __future__ import annotations

from ..core.cli import Verb, run_verb

_COMMANDS = "longscan.timeseries.commands"
VERBS = (
    Verb("fit", "train a model", "longscan.timeseries.training:fit"),
    Verb("validate", "measure a model on validation windows", "longscan.timeseries.training:validate"),
    Verb("test", "measure a model on test windows", "longscan.timeseries.training:test"),
    Verb(
        "predict", "forecasts of a checkpoint for the data of its configuration", "longscan.timeseries.training:predict"
    ),
    Verb("forecast", "forecasts with intervals of a table, as CSV and fan charts", f"{_COMMANDS}.forecast:forecast"),
    Verb("backtest", "forecast a table's past from rolling origins, and score it", f"{_COMMANDS}.backtest:backtest"),
    Verb("detect", "how unexpected each value of a table is, as CSV", f"{_COMMANDS}.detect:detect"),
    Verb("classify", "classes of whole series of a .ts file, as TSV", f"{_COMMANDS}.classify:classify"),
    Verb("impute", "a table with its gaps and empty cells filled, as CSV", f"{_COMMANDS}.impute:impute"),
    Verb("evaluate", "scores under the LTSF, M4 and GIFT-Eval protocols", f"{_COMMANDS}.evaluate:evaluate"),
)


def main(argv: list[str]) -> int:
    """Run a command of ``longscan timeseries``."""
    return run_verb("longscan timeseries", "Forecasting, with honest baselines.", VERBS, argv)
