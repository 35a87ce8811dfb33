"""The second loss of fine-tuning: masked bases, predicted as in pretraining."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import longscan
from longscan.genomics.data import SequenceTableDataModule
from longscan.genomics.data.augmentation import SequenceAugmentation
from longscan.genomics.tasks import SequenceClassification
from longscan.genomics.tokenizer import MASK, A, DNATokenizer, T

LINE = (
    "genomics fit --config quickstart_finetune --model.options '{d_model: 8, n_layer: 1, pooling: center}' "
    "--output run --data.limit_train 8 --data.batch_size 4 --trainer.max_epochs 1 --trainer.limit_val_batches 1 "
    "--trainer.accelerator cpu --trainer.enable_progress_bar false "
)


def module(**options: Any) -> SequenceTableDataModule:
    data = SequenceTableDataModule(
        "splice_sites_200", limit_train=40, tokenizer=DNATokenizer(special_tokens="sep"), batch_size=8, **options
    )
    data.setup("fit")
    return data


def test_targets_are_the_bases_that_were_masked() -> None:
    masked = module(augmentation=SequenceAugmentation(masked=0.25, mutated=0.1))
    plain = module()
    rows = range(8)
    batch, truth = (data.collate([data.train_set[i] for i in rows]) for data in (masked, plain))
    hidden = batch["input_ids"] == MASK
    assert 0.2 < hidden.float().mean() < 0.3
    assert torch.equal(batch["masked_targets"][hidden], truth["input_ids"][hidden])
    assert (batch["masked_targets"][hidden] >= A).all()
    assert (batch["masked_targets"][hidden] <= T).all()
    assert (batch["masked_targets"][~hidden] == -100).all()
    assert "masked_targets" not in truth


def test_targets_of_sequences_that_are_cut() -> None:
    data = module(augmentation=SequenceAugmentation(masked=0.5), max_length=61, long_sequences="center")
    samples = [data.train_set[i] for i in range(3)]
    batch = data.collate(samples)
    for row, sample in enumerate(samples):
        begin = (len(sample["symbols"]) - 60) // 2
        whole = np.where(sample["symbols"] == MASK, sample["unmasked"].astype(int), -100)
        assert batch["masked_targets"][row, :60].tolist() == whole[begin : begin + 60].tolist()


@pytest.mark.parametrize("model", ["caduceus_ph_1k_d118", "caduceus_ps_1k_d118"])
def test_the_loss_is_the_sum(model: str) -> None:
    options: dict[str, Any] = {"d_model": 8, "n_layer": 1}
    task = SequenceClassification(model, masked_loss_weight=0.5, label_smoothing=0.1)
    classifier: Any = longscan.create_model(model, head="classification", num_classes=3, **options)
    task.model = classifier
    reader: Any = longscan.create_model(model, **options)
    reader.load_state_dict(classifier.state_dict(), strict=False)
    data = module(augmentation=SequenceAugmentation(masked=0.25))
    batch = data.collate([data.train_set[i] for i in range(5)])
    hidden = batch["masked_targets"] != -100
    classes = functional.cross_entropy(classifier(batch["input_ids"]), batch["labels"], label_smoothing=0.1)
    tokens = functional.cross_entropy(reader(batch["input_ids"])[hidden], batch["masked_targets"][hidden])
    torch.testing.assert_close(task.loss(batch), classes + 0.5 * tokens)
    task.loss(batch).backward()
    assert classifier.embedding.weight.grad[A : T + 1].abs().min() > 0  # as targets: their inputs alone give some zeros


def test_a_run_with_it(command: Any) -> None:
    outcome = command(LINE + "--data.augmentation.masked 0.25 --model.masked_loss_weight 0.5")
    assert outcome.status == 0, outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model.masked_loss_weight 0.5", "set data.augmentation.masked"),
        ("--model.masked_loss_weight -1 --data.augmentation.masked 0.2", "masked_loss_weight is -1"),
        (
            "--model.masked_loss_weight 0.5 --data.augmentation.masked 0.2 --model.options.conjoin true",
            "Caduceus is not; leave it 0",
        ),
        (
            "--model.masked_loss_weight 0.5 --data.augmentation.masked 0.2 --model.model hyenadna_tiny_1k "
            "--model.options '{d_model: 8, n_layer: 1}'",
            "HyenaDNA is not; leave it 0",
        ),
    ],
)
def test_mistakes(command: Any, options: str, message: str) -> None:
    outcome = command(LINE + options)
    assert outcome.status == 2
    assert message in outcome.err.splitlines()[-1]
