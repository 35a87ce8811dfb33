"""``python -m benchmarks.rocket FOLDER``: classification of series, the kernel bank beside ROCKET.

FOLDER holds a folder for each problem with its ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, as
``aeon/datasets/data`` of the wheel of aeon 1.6.0 does:

    pip download --no-deps aeon==1.6.0 && unzip -q aeon-1.6.0-*.whl -d aeon
    python -m benchmarks.rocket aeon/aeon/datasets/data

ROCKET (Dempster et al. 2020, arXiv:1910.13051): random kernels of 7, 9 or 11 weights with random bias, dilation and
padding; the share of positive outputs and the maximum of each. Series of unequal length are padded with zeros behind
their end. Both read series scaled by the training file or each by itself, as a cross-validation on the training file
says (five halvings, the same for both), and end in the same ridge regression. Each test file is used once, for the
accuracy that is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from longscan.timeseries.data.classification import check_alike, class_indices, padded, problem_files, read_classes
from longscan.timeseries.data.labelled import read_ts
from longscan.timeseries.models.kernel_bank import KernelBankClassifier, KernelBankConfig
from longscan.timeseries.models.ridge_head import fit_ridge_head
from longscan.timeseries.models.scaling import Scaling

#: The classification problems in the wheel of aeon 1.6.0, those of unequal length last.
PROBLEMS = (
    "GunPoint", "ItalyPowerDemand", "ArrowHead", "OSULeaf", "ACSF1", "BasicMotions", "JapaneseVowels",
    "PickupGestureWiimoteZ",
)  # fmt: skip
SCALINGS = ("standard", "instance")


@dataclasses.dataclass(frozen=True)
class Split:
    """Series float64 (series, time, channels), mask bool (series, time), labels int64 (series,)."""

    x: Tensor
    mask: Tensor
    labels: Tensor


def load(folder: Path) -> tuple[Split, Split]:
    """Return the official training and test split of a problem."""
    train_path, test_path = problem_files(folder)
    assert test_path is not None, f"{folder}: no test file"
    train, test = read_classes(train_path), read_ts(test_path)
    check_alike(test, train)
    found = []
    for data in (train, test):
        labels = class_indices(data, train.class_names)
        assert labels is not None
        found.append(Split(*padded(list(data.values)), torch.from_numpy(labels)))
    return found[0], found[1]


def rocket(splits: list[Tensor], kernels: int, seed: int) -> list[Tensor]:
    """Return the features (series, 2 · kernels) of scaled series, float32 (series, time, channels) each.

    The kernels fit the length of the first.
    """
    generator = np.random.default_rng(seed)
    _, length, channels = splits[0].shape
    inputs = [split.transpose(1, 2).contiguous() for split in splits]
    found: list[list[Tensor]] = [[] for _ in splits]
    for _ in range(kernels):
        width = int(generator.choice((7, 9, 11)))
        width = min(width, length - 1)
        count = int(2 ** generator.uniform(0, math.log2(min(channels, width) + 1)))
        chosen = generator.choice(channels, count, replace=False)
        weights = generator.normal(size=(count, width))
        weights -= weights.mean(1, keepdims=True)
        bias = generator.uniform(-1, 1)
        dilation = int(2 ** generator.uniform(0, math.log2((length - 1) / (width - 1))))
        padding = (width - 1) * dilation // 2 if generator.integers(2) else 0
        kernel = torch.tensor(weights, dtype=torch.float32)[None]
        for features, x in zip(found, inputs, strict=True):
            y = torch.nn.functional.conv1d(x[:, chosen], kernel, dilation=dilation, padding=padding)[:, 0] + bias
            features.append(torch.stack([(y > 0).float().mean(1), y.amax(1)], 1))
    return [torch.cat(features, 1) for features in found]


def rocket_features(train: Split, test: Split, scaling: str, kernels: int, seed: int) -> list[Tensor]:
    """Scale, pad to one length, and transform both splits."""
    scaler = Scaling(scaling, train.x.shape[2])  # type: ignore[arg-type]
    scaler.fit(train.x[train.mask])
    longest = max(train.x.shape[1], test.x.shape[1])
    scaled = []
    for split in (train, test):
        known = split.x.isfinite() & split.mask[..., None]
        values = torch.where(known, split.x, 0.0)
        values = torch.where(known, scaler.apply(values, scaler.measure(values, known)), 0.0).float()
        scaled.append(torch.nn.functional.pad(values, (0, 0, 0, longest - values.shape[1])))
    return rocket(scaled, kernels, seed)


def bank_features(train: Split, test: Split, scaling: str, kernels: int, seed: int) -> list[Tensor]:
    """Transform both splits by a kernel bank fitted to the first."""
    torch.manual_seed(seed)
    model = KernelBankClassifier(
        KernelBankConfig(
            num_classes=int(train.labels.max()) + 1,
            variates=train.x.shape[2],
            scaling=scaling,  # type: ignore[arg-type]
            kernels=kernels,
            length=train.x.shape[1],
        )
    )
    model.fit(train.x, train.labels, train.mask)
    with torch.inference_mode():
        return [model.forward_features(split.x, split.mask) for split in (train, test)]


def accuracy(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Regress on training features and return the share of test series that is right."""
    head = fit_ridge_head(train, labels, int(labels.max()) + 1)
    return float(((test.double() @ head.weight.T + head.bias).argmax(1) == truth).double().mean())


def cross_validation(features: Tensor, labels: Tensor, halvings: int = 5) -> float:
    """Return the mean accuracy on one half of each class by a regression on the other."""
    scores = []
    for seed in range(halvings):
        generator, held = np.random.default_rng(seed), torch.zeros(len(labels), dtype=torch.bool)
        for one in labels.unique():
            rows = generator.permutation(np.flatnonzero(labels.numpy() == int(one)))
            held[rows[: len(rows) // 2]] = True
        scores.append(accuracy(features[~held], labels[~held], features[held], labels[held]))
    return float(np.mean(scores))


METHODS = {"kernel bank": bank_features, "ROCKET": rocket_features}


def main() -> None:
    """Measure and print a row for each problem, and the means."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rocket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", nargs="+", default=PROBLEMS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kernels", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table: dict[str, list[list[float]]] = {name: [] for name in options.methods}
    for problem in options.problems:
        train, test = load(options.folder / problem)
        line = [f"{problem:22}{len(train.labels):5}{len(test.labels):6}"]
        for name in options.methods:
            transform = METHODS[name]
            begun = time.perf_counter()
            scores = {one: cross_validation(transform(train, train, one, options.kernels, 0)[0], train.labels)
                      for one in SCALINGS}  # fmt: skip
            scaling = max(scores, key=lambda one: scores[one])
            found = []
            for seed in options.seeds:
                one, two = transform(train, test, scaling, options.kernels, seed)
                found.append(accuracy(one, train.labels, two, test.labels))
            table[name].append(found)
            line.append(f"{name} {np.mean(found):.4f} [{min(found):.4f}, {max(found):.4f}] {scaling:8} cv "
                        f"{scores[scaling]:.3f} {time.perf_counter() - begun:4.0f} s")  # fmt: skip
        print("  ".join(line), flush=True)
    for name, rows in table.items():
        means = np.mean(rows, 0)
        print(f"{name:12} mean over {len(rows)} problems: {means.mean():.4f} [{means.min():.4f}, {means.max():.4f}]")


if __name__ == "__main__":
    main()
