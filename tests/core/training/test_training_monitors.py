"""A model is neither chosen nor stopped by the test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from toy_training import ToyData, ToyModel

from longscan.core.errors import UserError
from longscan.core.training.callbacks import BestCheckpoint
from longscan.core.training.tasks import LanguageModelTask


def fit(folder: Path, *callbacks: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=6,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[BestCheckpoint(), *callbacks],
    )
    trainer.fit(LanguageModelTask(ToyModel()), ToyData(batch_size=8))
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_early_stopping_watches_validation_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint\.monitor 'test/mcc': .*take 'val/mcc'"):
        BestCheckpoint(monitor="test/mcc", mode="max")
    with pytest.raises(UserError, match=r"EarlyStopping: monitor 'test/loss': .*take 'val/loss'"):
        fit(tmp_path, EarlyStopping(monitor="test/loss"))
    with pytest.raises(UserError, match=r"EarlyStopping: monitor: no metric is called 'val/los'; .*val/loss"):
        fit(tmp_path, EarlyStopping(monitor="val/los"))
    # An improvement by 9 nats never comes, so patience runs out after one more validation.
    trainer = fit(tmp_path, EarlyStopping(monitor="val/loss", min_delta=9, patience=1))
    assert trainer.current_epoch == 2
