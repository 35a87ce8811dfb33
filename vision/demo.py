"""The vision part of ``longscan demo``: handwritten digits, beside logistic regression measured in the same run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.demo import read_metrics, run_step
from ..core.report import Section

#: How the images are split, and what that means for people.
SPLITS = {"random": "a fifth of each class, by the same writers", "sorted": "the last fifth, by other writers"}


def run(output: Path) -> list[Section]:
    """Train on two splits in ``output`` and return what the report shows.

    Raises:
        UserError: if a step fails; what went wrong was printed by it.
    """
    from . import training  # which loads lightning

    rows: list[Sequence[str]] = []
    for number, (split, meaning) in enumerate(SPLITS.items(), 1):
        print(f"{number}/3  training a small Vim, and logistic regression, on digits; in the test: {meaning}")
        folder = output / split
        argv = ["--config", "vision/quickstart", "--data.split", split, "--output", str(folder)]
        run_step(training.fit, "vision fit", argv)
        run_step(training.test, "vision test", ["--ckpt_path", str(folder / "checkpoints" / "best.ckpt")])
        found = read_metrics(folder / "test")["test/accuracy"]
        rows.append((meaning, f"{baseline(split):.3f}", f"{found:.3f}"))
    print("3/3  which pixels the model's answer depends on")
    # Of the harder split: a digit of other writers.
    digit, saliency = write_digit(output / "digit.png"), output / "saliency.png"
    how = ["--model", str(output / "sorted" / "model"), "--method", "integrated", "--pixels"]
    _saliency([str(digit), *how, "--output", str(saliency)])
    longscan = "uv run longscan" if "UV" in os.environ else "longscan"  # as it was started
    model = output / "sorted" / "model"
    return [
        Section(
            "Vision: handwritten digits",
            [
                "Images of 8 × 8 pixels (scikit-learn's digits). The Vim was trained on nine tenths of the training "
                "images, the others chose its best epoch; logistic regression had all of them."
            ],
            ("test images", "logistic regression", "Vim"),
            rows,
            [
                (output / "sorted" / "test" / "confusion_test.png", "Confusion matrix, other writers"),
                (saliency, "A digit, and what speaks for the class that was found"),
                (output / "sorted" / "learning_curves.png", "Training"),
            ],
            [
                "# go on with",
                f"{longscan} vision classify IMAGES --model {model} --output classes.tsv",
                f"{longscan} vision embed IMAGES --model {model} --output features.parquet",
                f"{longscan} vision fit --config vision/cifar10_vim --data.archive CIFAR --output runs/cifar10   # GPU",
            ],
        )
    ]


def baseline(split: str) -> float:
    """Return the test accuracy of logistic regression on pixels between 0 and 1, trained on all training images."""
    from sklearn.linear_model import LogisticRegression

    from .data import ImageClassificationDataModule

    parts = ImageClassificationDataModule(dataset="digits", channels=1, split=split, val_fraction=0.0).splits()  # type: ignore[arg-type]
    pixels = {
        name: np.stack([np.asarray(part.read(row, 1)).ravel() / 255 for row in range(len(part))])
        for name, part in parts.items()
    }
    model = LogisticRegression(C=1.0, max_iter=1000).fit(pixels["train"], parts["train"].labels)
    return float(model.score(pixels["test"], parts["test"].labels))


def write_digit(path: Path, index: int = 1700) -> Path:
    """Write one of the digits as a picture and return its path."""
    from ..core.files import replacing
    from .data.archives import read_digits

    with replacing(path) as temporary:
        read_digits().read(index, 1).save(temporary)
    return path


def _saliency(argv: list[str]) -> None:
    from .commands.saliency import saliency

    saliency(argv)
