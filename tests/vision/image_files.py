"""Made-up images and the small model that several tests train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

#: Trains a small Vim on images of `write_classes`, in seconds; data.folder and the output are to be added.
FIT = (
    "vision fit --config vision/quickstart --data.dataset null --data.img_size 8 --data.augmentation null "
    "--data.cache false --data.crop_pct 1.0 "
    "--data.batch_size 8 --data.eval_batch_size 16 --trainer.max_epochs 4 --trainer.accelerator cpu "
    "--trainer.enable_progress_bar false "
    "--model.options '{embed_dim: 16, depth: 1, patch_size: 2, d_state: 4, global_pool: avg}' "
)


def write_image(path: Path, size: tuple[int, int] = (8, 8), level: int = 0, mode: str = "RGB") -> np.ndarray:
    """Write noise (width, height) around a grey level as an image and return its pixels; the name decides the noise."""
    generator = np.random.default_rng(list(path.name.encode()))
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    values = (generator.integers(0, 60, shape) + level).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return values


def write_classes(folder: Path, count: int = 20, classes: tuple[str, ...] = ("dark", "light")) -> Path:
    """Write ``count`` images of each class in class folders; each class is brighter than the one before it."""
    for number, name in enumerate(classes):
        for index in range(count):
            write_image(folder / name / f"{index:02d}.png", level=number * 190 // max(1, len(classes) - 1))
    return folder


def write_pairs(folder: Path, count: int = 10, size: tuple[int, int] = (24, 16)) -> Path:
    """Write images of a bright rectangle and their masks of 0 and 1."""
    for index in range(count):
        mask = np.zeros((size[1], size[0]), np.uint8)
        mask[4:12, 2 + index : 12 + index] = 1
        image = np.random.default_rng(index).integers(0, 60, (size[1], size[0], 3)).astype(np.uint8)
        image[mask == 1] += 150
        for kind, values in (("images", image), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{index}.png")
    return folder
