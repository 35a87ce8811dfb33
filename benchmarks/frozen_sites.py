"""``python -m benchmarks.frozen_sites MODEL``: splice sites from a pretrained model of DNA whose weights stay.

Of 2,000 training windows of ``splice_sites_200``, the hidden sequence at the twelve bases around the middle and its
means over four stretches, standardised; a logistic regression on these, and its MCC on the validation windows for four
strengths of the penalty.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import matthews_corrcoef
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import longscan
from longscan.genomics.data import SequenceTableDataModule
from longscan.genomics.tokenizer import DNATokenizer

AROUND = slice(94, 106)
STRETCHES = (slice(60, 97), slice(103, 140), slice(0, 60), slice(140, 200))


def features(model: torch.nn.Module, symbols: np.ndarray) -> np.ndarray:
    """Windows (count, 200) to (count, 16 * d_model) float32."""
    found = []
    with torch.inference_mode():
        for ids in torch.from_numpy(symbols).long().split(100):
            hidden = model.forward_features(ids).float()
            means = [hidden[:, stretch].mean(1) for stretch in STRETCHES]
            found.append(torch.cat([hidden[:, AROUND].flatten(1), *means], dim=1))
    return torch.cat(found).numpy()


def main() -> None:
    """Compute the features, fit and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frozen_sites", description=__doc__)
    parser.add_argument("model")
    options = parser.parse_args()
    model = longscan.from_pretrained(options.model).eval()
    data = SequenceTableDataModule(dataset="splice_sites_200", tokenizer=DNATokenizer(special_tokens="none"))
    data.setup("fit")
    chosen = np.random.default_rng(0).permutation(len(data.train_set))[:2000]
    x, y = {}, {}
    for name, samples in (
        ("train", [data.train_set[int(row)] for row in chosen]),
        ("val", [data.val_set[row] for row in range(len(data.val_set))]),
    ):
        x[name] = features(model, np.stack([sample["symbols"] for sample in samples]))
        y[name] = np.array([sample["label"] for sample in samples])
    for strength in (1e-4, 1e-3, 1e-2, 1e-1):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300)).fit(
            x["train"], y["train"]
        )
        print(f"C {strength:g}: validation MCC {matthews_corrcoef(y['val'], probe.predict(x['val'])):.3f}", flush=True)


if __name__ == "__main__":
    main()
