"""Evaluation batches of one length each, and predictions in the order of the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longscan.core.training.callbacks import PredictionTable
from longscan.core.training.data import EvaluationLoader, LengthBatches, ResumableDataModule, SampleKey

LENGTHS = np.array([5, 3, 5, 4, 3, 5, 5, 3])


def batches(**options: Any) -> list[list[int]]:
    return [[key.index for key in batch] for batch in LengthBatches(LENGTHS, 3, **options)]


def test_every_sample_once_with_its_like() -> None:
    found = batches()
    assert found == [[0, 2, 5], [1, 4, 7], [3], [6]]
    assert all(len(set(LENGTHS[batch])) == 1 for batch in found)
    assert len(LengthBatches(LENGTHS, 3)) == 4
    assert next(iter(LengthBatches(LENGTHS, 3)))[0] == SampleKey(0, 0)


def test_samples_of_one_length_stay_in_order() -> None:
    found = [[key.index for key in batch] for batch in LengthBatches(np.full(7, 9), 3)]
    assert found == [[0, 1, 2], [3, 4, 5], [6]]


def test_several_processes_have_as_many_batches() -> None:
    parts = [batches(rank=rank, world_size=3) for rank in range(3)]
    assert parts == [[[0, 2, 5], [6]], [[1, 4, 7], [0, 2, 5]], [[3], [1, 4, 7]]]
    padding = [
        [LengthBatches(LENGTHS, 3, rank=rank, world_size=3).is_padding(i) for i in range(2)] for rank in range(3)
    ]
    assert padding == [[False, False], [False, True], [False, True]]


class Sized(ResumableDataModule):
    """Samples that are rows of ones as long as LENGTHS says."""

    def setup(self, stage: str | None = None) -> None:
        self.val_set = self.predict_set = _Rows()

    def evaluation_lengths(self, dataset: Any) -> np.ndarray:
        return LENGTHS

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        index, rows = zip(*samples, strict=True)
        return {"input_ids": torch.stack(rows), "index": torch.tensor(index)}


class _Rows:
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, key: SampleKey) -> tuple[int, torch.Tensor]:
        return key.index, torch.ones(LENGTHS[key.index])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_stacks_without_padding(workers: int) -> None:
    data = Sized(batch_size=3, num_workers=workers)
    data.setup()
    for _ in range(2):
        found = list(data.predict_dataloader())
        assert [batch["index"].tolist() for batch in found] == [[0, 2, 5], [1, 4, 7], [3], [6]]
        assert [batch["input_ids"].shape[1] for batch in found] == [5, 3, 4, 5]
    assert len(data.val_dataloader()[0]) == 4
    sampler = LengthBatches(LENGTHS, 3, rank=2, world_size=3)
    last = list(EvaluationLoader(data._loader(_Rows(), sampler, None, persistent=False), sampler))
    assert [batch["padding"].tolist() for batch in last] == [[False], [True] * 3]


class _Trainer:
    world_size = 1


class _Task:
    def prediction_columns(self) -> list[str]:
        return ["name"]

    def prediction_rows(self, prediction: Any, batch: Any) -> list[list[str]]:
        return [[f"row{value}"] for value in prediction]


def table(path: Path, order: list[list[int]], *, indexed: bool = True) -> list[str]:
    """What the callback makes of batches with these samples; what it has written after each is in ``seen``."""
    callback: Any = PredictionTable(str(path))
    callback.on_predict_start(_Trainer(), _Task())
    for number, batch in enumerate(order):
        content = {"index": torch.tensor(batch)} if indexed else {}
        callback.on_predict_batch_end(_Trainer(), _Task(), batch, content, number)
    callback.on_predict_end(_Trainer(), _Task())
    return path.read_text().splitlines()


def test_predictions_are_written_in_the_order_of_the_samples(tmp_path: Path) -> None:
    order = [[0, 2, 5], [1, 4, 7], [3], [6]]
    assert table(tmp_path / "a", order) == ["name", *(f"row{i}" for i in range(8))]
    assert table(tmp_path / "b", [[4], [1, 0]]) == ["name", "row0", "row1", "row4"]
    assert table(tmp_path / "c", [[4], [1, 0]], indexed=False) == ["name", "row4", "row1", "row0"]
