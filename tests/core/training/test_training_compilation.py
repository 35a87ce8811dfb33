"""A compiled model learns what it learns without, under the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from toy_training import VOCABULARY, ToyData

import longscan
from longscan.core.training.callbacks import CompileModel
from longscan.core.training.optimizer import OptimizerConfig
from longscan.core.training.tasks import LanguageModelTask


def fitted(folder: Path, callbacks: list[Any]) -> LanguageModelTask:
    """A small Mamba after one epoch."""
    pl.seed_everything(3)
    model = longscan.create_model(
        "LanguageModel", vocab_size=VOCABULARY, backbone={"d_model": 8, "layers": ["mamba"], "repeat": 1}
    )
    task = LanguageModelTask(model, OptimizerConfig(lr=1e-2))
    trainer = pl.Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(task, ToyData(batch_size=4, seed=5))
    return task


def test_training_is_the_same(tmp_path: Path) -> None:
    plain = fitted(tmp_path, []).state_dict()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = fitted(tmp_path, [CompileModel(backend="aot_eager")]).state_dict()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert torch._dynamo.utils.counters["graph_break"] == {}
    assert plain.keys() == compiled.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, atol=1e-5, rtol=1e-4)
