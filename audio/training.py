"""The training verbs of the audio domain."""

from __future__ import annotations


def _run(verb: str, argv: list[str]) -> int:
    from ..core.training.callbacks import ExportModel
    from ..core.training.cli import run_training
    from ..core.training.data import ResumableDataModule
    from ..core.training.module import TrainingModule
    from . import tasks  # noqa: F401  (so that configurations can name the classes in it)
    from .data import autoregressive, classification, compression, effects, waveforms  # noqa: F401  (likewise)

    return run_training(
        verb,
        argv,
        domain="audio",
        task_base=TrainingModule,
        data_base=ResumableDataModule,
        callbacks=[ExportModel],
    )


def fit(argv: list[str]) -> int:
    """``longscan audio fit``: train."""
    return _run("fit", argv)


def validate(argv: list[str]) -> int:
    """``longscan audio validate``: measure on validation data."""
    return _run("validate", argv)


def test(argv: list[str]) -> int:
    """``longscan audio test``: measure on test data."""
    return _run("test", argv)


def predict(argv: list[str]) -> int:
    """``longscan audio predict``: write what the task says of recordings."""
    return _run("predict", argv)
