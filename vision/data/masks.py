"""Pairs of an image and its mask, by the names of their files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import UserError
from .decoding import decode_image
from .folders import image_files, require_folder, split_folders

#: Value of a mask where the class is unknown.
IGNORED_MASK = 255


@dataclass(frozen=True)
class Pairs:
    """Images and their masks.

    Args:
        origin: folder that they are in.
        images: files of images.
        masks: file of the mask of each.
        splits: ``"train"``, ``"val"`` or ``"test"`` of each; None where the folder has none.
    """

    origin: str
    images: list[Path]
    masks: list[Path]
    splits: list[str] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> Pairs:
        """Return some of the pairs."""
        chosen = rows.tolist()
        return Pairs(
            self.origin,
            [self.images[row] for row in chosen],
            [self.masks[row] for row in chosen],
            None if self.splits is None else [self.splits[row] for row in chosen],
        )

    def read(self, index: int, num_classes: int, channels: int = 3) -> tuple[Any, np.ndarray]:
        """Return an image (``PIL.Image.Image``) and its mask, uint8 (height, width): class indices, 255 unknown.

        Raises:
            UserError: either cannot be read, their sizes differ, or the mask has a value that is no class.
        """
        path, place = self.images[index], self.masks[index]
        image = decode_image(path, str(path), channels)
        mask = read_mask(place)
        if mask.shape != (image.height, image.width):
            raise UserError(
                f"{place}: the mask has {mask.shape[1]} x {mask.shape[0]} pixels, its image {path.name} "
                f"{image.width} x {image.height}; make them equal"
            )
        known = mask[mask != IGNORED_MASK]
        if known.size and int(known.max()) >= num_classes:
            raise UserError(
                f"{place}: has the value {int(known.max())}, but there are {num_classes} classes (0 to "
                f"{num_classes - 1}, {IGNORED_MASK} unknown); set class_names or mend the mask"
            )
        return image, mask


def read_mask(path: Path) -> np.ndarray:
    """Return a mask of class indices, uint8 (height, width), of a grey or palette image.

    Raises:
        UserError: it cannot be read, or is a colour image.
    """
    from PIL import Image

    decode_image(path, str(path), 1)  # tells what is wrong with a damaged one
    with Image.open(path) as image:
        if image.mode not in ("L", "P", "1"):
            raise UserError(
                f"{path}: a mask needs class indices in a grey or palette image of 8 bits, not {image.mode}"
            )
        return np.array(image, dtype=np.uint8)


def read_pairs(folder: str | Path) -> Pairs:
    """Return the pairs of ``images/NAME`` and ``masks/NAME`` (endings may differ), or of these folders in ``train``,
    ``val`` and ``test``.

    Raises:
        UserError: a folder is missing or empty, or an image has no mask or the other way round.
    """
    root = require_folder(folder)
    splits = split_folders(root)
    if not splits:
        images, masks = _pairs(root)
        return Pairs(str(root), images, masks)
    all_images, all_masks, given = [], [], []
    for split, place in splits.items():
        images, masks = _pairs(place)
        all_images += images
        all_masks += masks
        given += [split] * len(images)
    return Pairs(str(root), all_images, all_masks, given)


def _pairs(root: Path) -> tuple[list[Path], list[Path]]:
    found: dict[str, dict[str, Path]] = {}
    for kind in ("images", "masks"):
        files = image_files(require_folder(root / kind))
        if not files:
            raise UserError(f"{root / kind}: has no images; add some")
        names = [file.relative_to(root / kind).with_suffix("").as_posix() for file in files]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{root / kind}: two files are called {twice}, but for their endings; remove one")
        found[kind] = dict(zip(names, files, strict=True))
    for one, other, what in (("images", "masks", "image"), ("masks", "images", "mask")):
        lonely = sorted(set(found[one]) - set(found[other]))
        if lonely:
            raise UserError(
                f"{found[one][lonely[0]]}: the {what} has no counterpart in {root / other}; add or remove it"
            )
    names = sorted(found["images"])
    return [found["images"][name] for name in names], [found["masks"][name] for name in names]
