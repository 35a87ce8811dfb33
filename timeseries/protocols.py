"""Rows of scores of several models under the long-term, M4 and GIFT-Eval protocols."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import UserError
from .baselines.forecasters import BASELINES, ltsf_baseline
from .data import read_m4, read_series
from .data.series import SeriesSet
from .datasets import DATASETS, dataset_path
from .evaluation import evaluate_gift, evaluate_m4
from .forecasts import Forecaster
from .ltsf import HORIZONS, LTSFData, evaluate_ltsf, load_ltsf
from .metrics import gift, relative_score
from .naming import find_forecaster, load_trained, model_path, runs_of

Rows = list[dict[str, Any]]


def ltsf_rows(arguments: argparse.Namespace, names: Sequence[str]) -> Rows:
    """Return model, lookback, horizon, MSE, MAE, windows, of several seeds also the least and the most MSE, and MSE
    relative to `ridge-nlinear` of the same horizon."""
    data = load_ltsf(arguments.data, name=arguments.name, features=arguments.features, target=arguments.target)
    usual = (24, 36, 48, 60) if data.name == "illness" else HORIZONS
    horizons = arguments.horizons or usual
    for name in names:
        _check_ltsf_name(name, horizons)
    for horizon in horizons:
        data.window_count(arguments.split, arguments.lookback or 336, horizon)  # an error now, not after other horizons
    rows: Rows = []
    by_run: dict[str, list[list[tuple[float, float]]]] = {}
    for horizon in horizons:
        for name in names:
            found = []
            for run in runs_of(name.replace("{horizon}", str(horizon))):
                forecaster, lookback = _ltsf_model(run, arguments, data, horizon)
                found.append(evaluate_ltsf(forecaster, data, lookback, horizon, arguments.split, arguments.batch_size))
            place = {"model": name, "lookback": lookback, "horizon": horizon}
            rows.append(place | _over_runs([(score.mse, score.mae) for score in found], found[0].windows))
            by_run.setdefault(name, []).append([(score.mse, score.mae) for score in found])
    rows.sort(key=lambda row: names.index(row["model"]))
    if len(horizons) > 1:
        for name in names:
            own = [row for row in rows if row["model"] == name]
            place = {"model": name, "lookback": own[0]["lookback"], "horizon": "mean"}
            windows = sum(row["windows"] for row in own)
            rows.append(place | _over_runs(np.mean(by_run[name], 0).tolist(), windows))
    return _against(rows, "ridge-nlinear", "mse")


def _check_ltsf_name(name: str, horizons: Sequence[int]) -> None:
    """Find out before anything is computed that a model cannot be scored."""
    if name in BASELINES:
        return
    for horizon in horizons:
        place = model_path(name.replace("{horizon}", str(horizon)))
        if place is None:
            raise UserError(
                f"--model {name}: neither a checkpoint nor a baseline ({', '.join(BASELINES)}); models are trained "
                "under this protocol by `longscan timeseries fit`, and then scored by their folder"
            )


def _ltsf_model(
    name: str, arguments: argparse.Namespace, data: LTSFData, horizon: int
) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """Return what forecasts scaled windows, and how many steps it reads."""
    if name in BASELINES:
        lookback = arguments.lookback or 336
        if name == "seasonal-naive":
            lookback = max(lookback, data.frequency.season_length)
        return ltsf_baseline(name, data, lookback, horizon), lookback
    trained = load_trained(name, arguments.device, arguments.batch_size)
    return trained.ltsf_forecaster(data, horizon), trained.card.lookback


def _over_runs(scores: Sequence[Sequence[float]], windows: int) -> dict[str, Any]:
    """Return the mean over runs of MSE and MAE, and of several runs how far the former lies apart."""
    mse, mae = np.mean(scores, 0).tolist()
    found: dict[str, Any] = {"mse": mse, "mae": mae, "windows": windows}
    if len(scores) > 1:
        found |= {"runs": len(scores), "least_mse": min(s[0] for s in scores), "most_mse": max(s[0] for s in scores)}
    return found


def _against(rows: Rows, baseline: str, metric: str) -> Rows:
    """Say of each row how it stands to the baseline of the same horizon."""
    reference = {row["horizon"]: row[metric] for row in rows if row["model"] == baseline}
    for row in rows:
        ratio = row[metric] / reference[row["horizon"]]
        row[f"relative_{metric}"] = ratio
        row["verdict"] = "-" if row["model"] == baseline else "beats it" if ratio < 1 else f"does not beat {baseline}"
    return rows


def m4_rows(arguments: argparse.Namespace, names: Sequence[str]) -> Rows:
    """Return model, sMAPE, MASE, OWA, windows (one of each series), and of models with quantiles WQL and the coverage
    of 80 % intervals."""
    train, test = read_m4(arguments.data, _m4_test(arguments), arguments.group)
    assert test is not None
    horizon = _only_horizon(arguments, len(test[0]))
    test = test.replace([series.rows(0, horizon) for series in test])
    lookback = arguments.lookback or 2 * max(horizon, train.season)
    rows: Rows = []
    for name in names:
        found = []
        for run in runs_of(name):
            points, pooled = evaluate_m4(train, test, _forecaster(run, arguments, lookback, horizon, train))
            score = {"smape": points.smape, "mase": points.mase, "owa": points.owa, "windows": points.series}
            found.append(score if pooled is None else score | {"wql": pooled.wql, "coverage_80": pooled.coverage_80})
        means = {metric: float(np.mean([one[metric] for one in found])) for metric in found[0]}
        row: dict[str, Any] = {"model": name, **means, "windows": len(train)}
        if len(found) > 1:
            owa = [one["owa"] for one in found]
            row |= {"runs": len(found), "least_owa": min(owa), "most_owa": max(owa)}
        rows.append(row)
    return rows


def _m4_test(arguments: argparse.Namespace) -> Path:
    if arguments.test is not None:
        return Path(arguments.test)
    train = Path(arguments.data)
    if "-train" not in train.name:
        raise UserError(f"--data {train}: has no -train in its name, by which to find what followed; give --test")
    return train.with_name(train.name.replace("-train", "-test"))


def _only_horizon(arguments: argparse.Namespace, longest: int) -> int:
    if arguments.horizons is None:
        return longest
    if len(arguments.horizons) > 1 or arguments.horizons[0] > longest:
        raise UserError(f"--horizons {','.join(map(str, arguments.horizons))}: M4 has one, of up to {longest} steps")
    return int(arguments.horizons[0])


def gift_rows(arguments: argparse.Namespace, names: Sequence[str]) -> Rows:
    """Return model, horizon, MASE, WQL, coverage, windows, and the ratios to seasonal naive; with several horizons
    their geometric means."""
    if "naive2" in names:
        raise UserError("naive2 has no quantiles, which GIFT-Eval scores; use seasonal-naive")
    source = dataset_path(arguments.data) if arguments.data in DATASETS else arguments.data
    options = {} if arguments.frequency is None else {"frequency": _frequency(arguments.frequency)}
    data = read_series(source, arguments.layout, **options)
    horizons = arguments.horizons or _gift_horizons(data)
    rows: Rows = []
    for horizon in horizons:
        lookback = arguments.lookback or 2 * max(horizon, data.season)
        for name in names:
            forecaster = _forecaster(name, arguments, lookback, horizon, data)
            score = evaluate_gift(data, forecaster, horizon, arguments.windows)
            rows.append({"model": name, "horizon": horizon, "mase": score.mase, "wql": score.wql,
                         "coverage_80": score.coverage_80, "windows": score.windows})  # fmt: skip
    reference = {row["horizon"]: row for row in rows if row["model"] == "seasonal-naive"}
    for row in rows:
        for metric in ("mase", "wql"):
            row[f"relative_{metric}"] = row[metric] / reference[row["horizon"]][metric]
    rows.sort(key=lambda row: names.index(row["model"]))
    if len(horizons) > 1:
        for name in names:
            own = [row for row in rows if row["model"] == name]
            ratios = {
                f"relative_{metric}": relative_score(
                    [row[metric] for row in own], [reference[row["horizon"]][metric] for row in own]
                )
                for metric in ("mase", "wql")
            }
            windows = sum(row["windows"] for row in own)
            rows.append({"model": name, "horizon": "geometric mean", "windows": windows, **ratios})
    return rows


def _gift_horizons(data: SeriesSet) -> tuple[int, ...]:
    if data.horizon is not None:
        return (data.horizon,)
    unit = None if data.frequency is None or data.frequency.is_integer else data.frequency.offset.rule_code
    found = gift.HORIZONS.get("" if unit is None else unit.partition("-")[0])
    if found is None:
        raise UserError(f"{data.source}: GIFT-Eval names no horizon for steps of {data.frequency}; give --horizons")
    return (found,)


def _forecaster(name: str, arguments: argparse.Namespace, lookback: int, horizon: int, data: SeriesSet) -> Forecaster:
    return find_forecaster(
        name,
        lookback=lookback,
        horizon=horizon,
        season=data.season_length,
        device=arguments.device,
        batch_size=arguments.batch_size,
        train_steps=arguments.train_steps,
        seed=arguments.seed,
    )


def _frequency(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
