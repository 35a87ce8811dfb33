"""The training verbs of the DNA domain."""

from __future__ import annotations


def _run(verb: str, argv: list[str]) -> int:
    from ..core.training.callbacks import ExportModel
    from ..core.training.cli import run_training
    from ..core.training.data import ResumableDataModule
    from ..core.training.module import TrainingModule
    from . import prompting, target_tasks, tasks  # noqa: F401  (so that configurations can name the classes in them)
    from .data import benchmarks, classification, pretraining  # noqa: F401  (likewise)

    return run_training(
        verb,
        argv,
        domain="genomics",
        task_base=TrainingModule,
        data_base=ResumableDataModule,
        callbacks=[ExportModel],
    )


def fit(argv: list[str]) -> int:
    """``longscan genomics fit``: pretrain or fine-tune."""
    return _run("fit", argv)


def validate(argv: list[str]) -> int:
    """``longscan genomics validate``: measure on validation data."""
    return _run("validate", argv)


def test(argv: list[str]) -> int:
    """``longscan genomics test``: measure on test data."""
    return _run("test", argv)


def predict(argv: list[str]) -> int:
    """``longscan genomics predict``: write classes and probabilities; ``genomics/predict`` is the default config."""
    named = any(word.split("=")[0] in ("--config", "-c", "--ckpt_path", "--help", "-h") for word in argv)
    return _run("predict", argv if named else ["--config", "genomics/predict", *argv])
