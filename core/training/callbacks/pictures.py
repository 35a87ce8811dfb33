"""Pictures at the end of a run: learning curves and confusion matrices. matplotlib is imported only when drawing."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor

from ...files import replacing

Curve = list[tuple[int, float]]


class LearningCurves(Callback):
    """Draw ``learning_curves.png`` from the CSV log, over all parts of a run that was resumed."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logger = next((logger for logger in trainer.loggers if isinstance(logger, CSVLogger)), None)
        if logger is None or not trainer.is_global_zero:
            return
        logger.save()
        curves = read_curves(Path(logger.root_dir))
        if any(name.endswith("loss") for name in curves):
            path = os.path.join(trainer.default_root_dir, "learning_curves.png")
            draw_curves(curves, path)
            self.written = [path]


def read_curves(folder: Path) -> dict[str, Curve]:
    """Read the metrics under ``folder`` (``version_*/metrics.csv``) as (step, value) points by name.

    A step that was repeated after a resume counts as last seen.
    """
    points: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("version_*/metrics.csv"), key=lambda path: int(path.parent.name[8:])):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        points.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(curve.items()) for name, curve in points.items()}


def draw_curves(curves: dict[str, Curve], path: str) -> None:
    """Draw losses, the other validation metrics and the learning rate over the steps."""
    plt = _pyplot()
    losses = [name for name in curves if name.endswith("loss")]
    others = [name for name in curves if name.startswith("val/") and name not in losses]
    panels = [("loss", losses), ("validation", others), ("learning rate", [n for n in curves if n == "train/lr"])]
    panels = [(title, names) for title, names in panels if names]
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.6), squeeze=False)
    for axis, (title, names) in zip(axes[0], panels, strict=True):
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            axis.plot(steps, values, label=name, marker="." if name.startswith("val/") else None, linewidth=1)
        axis.set_xlabel("step")
        axis.set_title(title)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    _save(figure, path)


class ConfusionPicture(Callback):
    """Draw the confusion matrices that a task keeps in ``confusion``, one file per evaluation set."""

    def __init__(self) -> None:
        self.written: list[str] = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw(trainer, pl_module)

    def _draw(self, trainer: pl.Trainer, pl_module: Any) -> None:
        matrices = getattr(pl_module, "confusion", {})
        if not trainer.is_global_zero:
            return
        for (stage, name), matrix in matrices.items():
            file = f"confusion_{stage}.png" if name == stage else f"confusion_{stage}_{name}.png"
            path = os.path.join(trainer.default_root_dir, file.replace(os.sep, "_"))
            draw_confusion(matrix, path, names=pl_module.class_names(), title=f"{name} set")
            self.written.append(path)


def draw_confusion(matrix: Tensor, path: str, *, names: list[str] | None, title: str) -> None:
    """Draw counts (true class, predicted class), shaded by the share of each true class."""
    plt = _pyplot()
    classes = len(matrix)
    shares = matrix / matrix.sum(1, keepdim=True).clamp(min=1)
    side = min(max(3.2, 0.6 * classes + 1.6), 14)
    figure, axis = plt.subplots(figsize=(side, side))
    axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    if classes <= 20:
        for row in range(classes):
            for column in range(classes):
                shade = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, int(matrix[row, column]), ha="center", va="center", color=shade, fontsize=8)
        labels = names or [str(index) for index in range(classes)]
        axis.set_xticks(range(classes), labels, rotation=45, ha="right")
        axis.set_yticks(range(classes), labels)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(title)
    _save(figure, path)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg", force=False)
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: str) -> None:
    figure.tight_layout()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    _pyplot().close(figure)
