"""The classifiers that ship: what they get right of the first windows of the test sets, offline, on a CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import longscan
from longscan.genomics.data import SequenceTableDataModule
from longscan.genomics.tokenizer import DNATokenizer

#: Of the first 400 windows; the whole tests (docs/zoo.md) have 0.957, 0.964, 0.881, 0.985 and 0.909.
MEASURED = [
    ("splice_caduceus", "splice_sites_200", "test", 0.94),
    ("coding_caduceus", "coding_vs_intergenic_200", "test", 0.94),
    ("coding_caduceus", "coding_vs_intergenic_200", "test_arenosa", 0.85),
    ("coding_mamba_s4d", "coding_vs_intergenic_200", "test", 0.97),
    ("coding_mamba_s4d", "coding_vs_intergenic_200", "test_arenosa", 0.88),
]


@pytest.mark.parametrize(("name", "dataset", "split", "least"), MEASURED)
def test_accuracy(name: str, dataset: str, split: str, least: float) -> None:
    data = SequenceTableDataModule(dataset=dataset, tokenizer=DNATokenizer(special_tokens="none"))
    data.setup("fit")
    data.setup("test")
    samples = [data.test_set[split][row] for row in range(400)]
    model = longscan.from_pretrained(name, local_files_only=True).eval()
    assert list(model.config.class_names) == data.class_names
    with torch.inference_mode():
        ids = torch.from_numpy(np.stack([sample["symbols"] for sample in samples])).long()
        found = model(ids).argmax(-1).numpy()
    accuracy = (found == np.array([sample["label"] for sample in samples])).mean()
    print(f"{name} {split}: {accuracy:.4f}")
    assert accuracy >= least
