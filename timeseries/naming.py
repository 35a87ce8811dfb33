"""Forecasters by what users call them: a baseline, a checkpoint, a registered model."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import UserError, nearest
from .baselines.forecasters import BASELINES, make_baseline

if TYPE_CHECKING:
    from ..core.registry import ModelEntry
    from .trained import TrainedForecaster


#: Arguments of training that have a place of their own.
_GIVEN = ("lookback", "horizon")


def find_forecaster(
    name: str,
    *,
    lookback: int,
    horizon: int,
    season: int | None = None,
    device: str = "auto",
    batch_size: int = 256,
    train_steps: int = 300,
    seed: int = 0,
    training: Mapping[str, Any] | None = None,
) -> Any:
    """Return a forecaster; see `longscan.timeseries.forecasts.Forecaster`.

    Args:
        name: a baseline; a checkpoint, a run or a model's folder; a registered model, with its weights where it has
            some, else trained by ``fit``.
        lookback: steps read, of baselines and of models that are trained.
        horizon: steps predicted, likewise.
        season: steps per season; that of the data where None.
        device: of models.
        batch_size: windows at a time.
        train_steps: optimiser steps of a model that is trained.
        seed: of one that is trained.
        training: further arguments of `longscan.timeseries.trainable.TrainableForecaster`.

    Raises:
        UserError: an unknown name, with the nearest; a model that is no forecaster.
    """
    if name in BASELINES:
        return make_baseline(name, lookback=lookback, horizon=horizon, season=season)
    place = model_path(name)
    if place is not None:
        from .trained import load_forecaster

        return load_forecaster(place, None, device, batch_size)
    entry = _entry(name)
    if entry is None:
        if "/" in name or Path(name).suffix:
            raise UserError(f"--model {name}: no such file or folder, and no name of a model or baseline")
        raise UserError(f"--model {name}: no such model or baseline; {nearest(name, known_names())}")
    if not _forecasts(entry):
        raise UserError(f"--model {name}: {entry.architecture} is no forecaster; {nearest(name, known_names())}")
    if entry.pretrained:
        from .trained import load_forecaster

        return load_forecaster(entry.name, entry.name, device, batch_size)
    from .trainable import TrainableForecaster

    settings: dict[str, Any] = {"max_steps": train_steps, "seed": seed, "device": device, "eval_batch_size": batch_size}
    arguments = [name for name in signature(TrainableForecaster).parameters if name not in ("model", *_GIVEN)]
    for argument in training or {}:
        if argument not in arguments:
            raise UserError(f"{entry.name}: its training has no argument {argument!r}; {nearest(argument, arguments)}")
    return TrainableForecaster(entry.name, lookback, horizon, **settings | dict(training or {}))


def load_trained(name: str, device: str = "auto", batch_size: int = 256) -> TrainedForecaster:
    """Load a checkpoint or folder.

    Raises:
        UserError: nothing there, or no forecaster.
    """
    place = model_path(name)
    if place is None:
        raise UserError(f"--model {name}: no such checkpoint or folder")
    from .trained import load_forecaster

    return load_forecaster(place, None, device, batch_size)


def model_path(name: str) -> Path | None:
    """Return the path of weights that ``name`` is, None where it is none."""
    path = Path(name).expanduser()
    return path if path.exists() else None


def runs_of(name: str) -> list[str]:
    """Return the runs that a name means: those of each seed where it is a folder that ``fit --seeds`` wrote, else
    itself."""
    path = model_path(name)
    if path is None or not path.is_dir() or (path / "model").is_dir():
        return [name]
    seeds = sorted(path.glob("seed*/model"), key=lambda one: (len(one.parent.name), one.parent.name))
    return [str(one.parent) for one in seeds] or [name]


def known_names() -> list[str]:
    """Return the baselines and the registered forecasters."""
    from ..core.registry import find_model, list_models

    _register()
    entries = [find_model(name) for name in list_models(domain="timeseries")]
    return [*BASELINES, *(entry.name for entry in entries if entry is not None and _forecasts(entry))]


def _entry(name: str) -> ModelEntry | None:
    from ..core.registry import find_model

    _register()
    entry = find_model(name.replace("-", "_")) or find_model(name)
    return entry if entry is not None and entry.domain == "timeseries" else None


def _forecasts(entry: ModelEntry) -> bool:
    """Whether a registered model is a forecaster: not one of classes, say."""
    from ..core.registry import find_architecture
    from .models.base import Forecaster

    return issubclass(find_architecture(entry.architecture).model, Forecaster)


def _register() -> None:
    import longscan

    longscan.list_models()  # registers the models of every domain
