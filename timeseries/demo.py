"""The time-series part of ``longscan demo``: a state-space forecaster beside the baselines that it has to beat."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.demo import run_step
from ..core.report import Section

_HORIZON = 96
_BASELINES = ("repeat-last", "seasonal-naive", "ridge-nlinear")


def run(output: Path) -> list[Section]:
    """Run the quick-start configuration in ``output`` and return what the report shows.

    Raises:
        UserError: if a step fails; what went wrong was printed by it.
    """
    from . import training  # which loads lightning
    from .commands.backtest import backtest
    from .commands.evaluate import evaluate
    from .commands.forecast import forecast

    run, scores, windows, future = (output / name for name in ("run", "scores", "backtest", "forecast"))
    print("1/4  training S4D over patches of hourly electricity data (ETTh1), beside a linear map")
    run_step(training.fit, "timeseries fit", ["--config", "timeseries/quickstart", "--output", str(run)])
    print("2/4  scoring it and the baselines on every window of the test set")
    model = str(run / "model")
    protocol = ["--protocol", "ltsf", "--data", "ETTh1", "--horizons", str(_HORIZON)]
    evaluate([*protocol, "--model", model, "--output", str(scores)])
    print("3/4  back-testing them on the last weeks of the file")
    tested = ["--data", "ETTh1", "--horizon", str(_HORIZON), "--lookback", "336", "--windows", "7"]
    backtest([*tested, "--model", model, *_BASELINES, "--pictures", "7", "--output", str(windows)])
    print("4/4  forecasting the four days after the end of the file")
    forecast(["--data", "ETTh1", "--model", model, "--output", str(future)])

    found = json.loads((scores / "scores.json").read_text())["scores"]
    longscan = "uv run longscan" if "UV" in os.environ else "longscan"  # as it was started
    return [
        Section(
            "Time series: long-term forecasting",
            [
                f"Seven channels of an electricity transformer, {_HORIZON} hours ahead from 336 past ones: mean "
                "squared and absolute errors of scaled values over every window of the test split of the long-term "
                "protocol. The model is trained for seconds, and its epoch chosen on validation windows; "
                "ridge-nlinear is the closed-form linear forecast, which much larger models in the literature do not "
                "beat."
            ],
            ("model", "MSE", "MAE", "windows"),
            [(_title(row["model"]), f"{row['mse']:.4f}", f"{row['mae']:.4f}", str(row["windows"])) for row in found],
            [(run / "learning_curves.png", "Training")],
        ),
        Section(
            "Time series: back-test and forecast",
            [
                "Seven forecasts one after the other at the end of the file, which no model was trained on, in the "
                "units of the data, and a forecast of what follows the file. The coverage is the share of what "
                "happened that lay within the 80 % intervals."
            ],
            ("model", "MAE", "MASE", "coverage of 80 %"),
            _backtested(windows / "windows.csv"),
            [
                (future / "series.png", "The end of the file, and the four days after it with intervals"),
                (windows / "error_by_step.png", "Back-test: error by hours ahead"),
                (windows / "OT.png", "Back-test: oil temperature"),
            ],
            [
                "# go on with",
                f"{longscan} timeseries forecast --data TABLE.csv --model auto --horizon 24 --output forecast",
                f"{longscan} timeseries backtest --data TABLE.csv --horizon 24 --output backtest",
                f"{longscan} timeseries evaluate {' '.join(protocol)} --model {model} --output scores",
                f"{longscan} timeseries fit --config timeseries/ltsf_etth1_s4d --output runs/etth1    # longer",
            ],
        ),
    ]


def _title(name: str) -> str:
    return name if name in _BASELINES else "S4D and a linear map"


def _backtested(path: Path) -> list[Sequence[str]]:
    """Return the mean over windows of each model's scores."""
    rows: dict[str, list[dict[str, Any]]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            rows.setdefault(row["model"], []).append(row)

    def mean(name: str, column: str) -> float:
        return sum(float(row[column]) for row in rows[name]) / len(rows[name])

    return [
        (_title(name), f"{mean(name, 'mae'):.3f}", f"{mean(name, 'mase'):.3f}", f"{mean(name, 'coverage_80'):.3f}")
        for name in rows
    ]
