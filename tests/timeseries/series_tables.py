"""Tables of series that several tests read."""

from __future__ import annotations

import numpy as np
import pandas as pd

#: Trains on `sales`, in a second; the folder and the table are to be added.
FIT = (
    "timeseries fit --model Forecasting --model.model s4d_patch_forecaster --model.linear_start true "
    "--model.options '{d_model: 8, n_layers: 1, patch: 8, linear_skip: true, head: quantiles, loss_units: window}' "
    "--model.optimizer '{lr: 1.0e-3, weight_decay: 0.0}' --data SeriesDataModule --data.lookback 48 --data.horizon 24 "
    "--data.samples_per_epoch 64 --data.batch_size 16 --data.test_windows 1 --trainer.max_epochs 2 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false"
)


def sales(rows: int = 240, series: int = 3) -> pd.DataFrame:
    """Hourly series of different sizes with a daily season and noise."""
    generator = np.random.default_rng(0)
    time = np.arange(rows)
    parts = []
    for number in range(series):
        season = 10 * np.sin(2 * np.pi * time / 24 + number)
        values = (number + 1) * (50 + season + generator.normal(size=rows))
        stamps = pd.date_range("2024-01-01", periods=rows, freq="h")
        parts.append(pd.DataFrame({"unique_id": f"shop {number}", "ds": stamps, "y": values}))
    return pd.concat(parts, ignore_index=True)


def wide(rows: int = 400, channels: int = 3) -> pd.DataFrame:
    """A wide table whose channels lie far from 0 on scales of their own."""
    generator = np.random.default_rng(1)
    time = np.arange(rows)
    columns = {
        f"c{number}": 100 * number + (number + 1) * (np.sin(2 * np.pi * time / 24) + generator.normal(size=rows) / 4)
        for number in range(channels)
    }
    return pd.DataFrame({"date": pd.date_range("2020-01-01", periods=rows, freq="h"), **columns})
