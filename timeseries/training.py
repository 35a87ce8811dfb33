"""The training verbs of the time-series domain."""

from __future__ import annotations


def _run(verb: str, argv: list[str]) -> int:
    from ..core.training.callbacks import ExportModel
    from ..core.training.cli import run_training
    from ..core.training.data import ResumableDataModule
    from ..core.training.module import TrainingModule
    from . import tasks, zero_shot_task  # noqa: F401  (so that configurations can name the classes in them)
    from .data import classification, ltsf_windows, series_windows  # noqa: F401  (likewise)
    from .tasks.predictions import WindowTable

    return run_training(
        verb,
        argv,
        domain="timeseries",
        task_base=TrainingModule,
        data_base=ResumableDataModule,
        callbacks=[ExportModel, tasks.ValidateFirst],
        prediction_writer=WindowTable,
    )


def fit(argv: list[str]) -> int:
    """``longscan timeseries fit``: train."""
    return _run("fit", argv)


def validate(argv: list[str]) -> int:
    """``longscan timeseries validate``: measure on validation windows."""
    return _run("validate", argv)


def test(argv: list[str]) -> int:
    """``longscan timeseries test``: measure on test windows."""
    return _run("test", argv)


def predict(argv: list[str]) -> int:
    """``longscan timeseries predict``: write what the task says of the windows to predict."""
    return _run("predict", argv)
