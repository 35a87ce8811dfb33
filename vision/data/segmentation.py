"""Segmentation: images and the class of every pixel."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import ResumableDataModule, SampleKey, sample_generator
from ...core.training.hold_out import chosen_rows
from ...core.training.metrics import IGNORED
from ..card import IMAGENET_MEAN, IMAGENET_STD
from .folders import read_plain_folder
from .images import Images
from .masks import IGNORED_MASK, Pairs, read_pairs
from .sourced import check_normalisation, image_size, list_files

logger = logging.getLogger(__name__)


class PairDataset(Dataset):
    """Images and masks at one size; see `SegmentationDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"image": uint8 (channels, height, width),
    "mask": int64 (height, width)}``. A sample is a pure function of ``(seed, key)``.
    """

    def __init__(
        self,
        pairs: Pairs,
        size: tuple[int, int],
        num_classes: int,
        *,
        channels: int = 3,
        scale: tuple[float, float] | None = None,
        hflip: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.pairs, self.size, self.num_classes, self.channels = pairs, size, num_classes, channels
        self.scale, self.hflip, self.seed = scale, hflip, seed

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        from PIL import Image

        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        generator = sample_generator(self.seed, key)
        image, values = self.pairs.read(key.index, self.num_classes, self.channels)
        mask = Image.fromarray(values)
        if self.scale is not None:
            box = _crop_box(image.size, self.size, self.scale, generator)
            image, mask = image.crop(box), mask.crop(box)
        height, width = self.size
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        mask = mask.resize((width, height), Image.Resampling.NEAREST)
        if self.hflip and generator.random() < self.hflip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        target = np.asarray(mask).astype(np.int64)
        target[target == IGNORED_MASK] = IGNORED
        return {"image": image_tensor(image), "mask": torch.from_numpy(target)}


class PlainDataset(Dataset):
    """Images without masks, resized: ``{"image", "name", "index"}``."""

    def __init__(self, images: Images, size: tuple[int, int], channels: int) -> None:
        self.images, self.size, self.channels = images, size, channels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        from PIL import Image

        index = key.index if isinstance(key, SampleKey) else key
        image = self.images.read(index, self.channels).resize(self.size[::-1], Image.Resampling.BICUBIC)
        return {"image": image_tensor(image), "name": str(self.images.names[index]), "index": index}


class SegmentationDataModule(ResumableDataModule):
    """Images with masks, in ``images/`` and ``masks/`` of a folder, or of its ``train``, ``val`` and ``test``.

    A mask is a grey or palette image of the same name: the index of the class of each pixel, 255 where unknown. A batch
    is ``{"input_ids": uint8 (batch, channels, height, width), "labels": int64 (batch, height, width)}``, -100 where
    unknown. In evaluation the whole image is resized to ``img_size``, and the mask with it.

    Args:
        folder: of the pairs.
        class_names: names of the classes in the order of their indices.
        predict: a file, a folder, or a list of files.
        img_size: height and width, or one number for both.
        channels: 3 (red, green, blue) or 1 (grey).
        mean: of each channel, of values between 0 and 1; ImageNet's where None, 0.5 for grey images.
        std: the same for the standard deviation.
        scale: in training, a part of this share of the sides (lowest, highest) at a random place; None: the whole.
        hflip: in training, probability of a mirror image.
        val_fraction: share held out for validation where no validation images are given.
        test_fraction: share held out for the test where the folder has no splits.
        batch_size, eval_batch_size, num_workers, seed: as for `ImagesDataModule`.
    """

    def __init__(
        self,
        folder: str | None = None,
        class_names: list[str] | None = None,
        predict: str | list[str] | None = None,
        img_size: int | list[int] = 224,
        channels: int = 3,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        scale: tuple[float, float] | None = (0.5, 1.0),
        hflip: float = 0.5,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        *,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, eval_batch_size=eval_batch_size, num_workers=num_workers, seed=seed)
        if folder is None and predict is None:
            raise UserError("no data: give folder or predict")
        if folder is not None and (class_names is None or len(class_names) < 2):
            raise UserError("class_names is missing; give the names of at least two classes, in the order of the masks")
        if channels not in (1, 3):
            raise UserError(f"channels is {channels}; expected 3 (colour) or 1 (grey)")
        if scale is not None and not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"scale is {list(scale)}; expected 0 < lowest ≤ highest ≤ 1")
        self.folder, self._names, self.predict, self.channels = folder, class_names, predict, channels
        size = image_size(img_size)
        assert size is not None
        self.img_size = size
        self.mean = tuple(IMAGENET_MEAN if channels == 3 else (0.5,)) if mean is None else tuple(mean)
        self.std = tuple(IMAGENET_STD if channels == 3 else (0.5,)) if std is None else tuple(std)
        check_normalisation(self.mean, self.std, channels)
        for name, share in (("val_fraction", val_fraction), ("test_fraction", test_fraction), ("hflip", hflip)):
            if not 0 <= share < 1 and not (name == "hflip" and share == 1):
                raise UserError(f"{name} is {share}; expected 0 or more and less than 1")
        self.scale, self.hflip = scale, hflip
        self.val_fraction, self.test_fraction = val_fraction, test_fraction
        self.interpolation, self.crop_pct = "bicubic", 1.0
        self._splits: dict[str, Pairs] | None = None

    def whole(self) -> str | None:
        """Return where the pairs come from; None where there are only images to predict."""
        return self.folder

    @property
    def class_names(self) -> list[str]:
        """Names of the classes.

        Raises:
            UserError: they were not given.
        """
        if self._names is None:
            raise UserError("the classes are unknown; give class_names")
        return list(self._names)

    def pairs(self) -> dict[str, Pairs]:
        """Return the pairs of ``"train"``, ``"val"`` and ``"test"``, those that there are."""
        if self._splits is None:
            if self.folder is None:
                return {}
            whole = read_pairs(self.folder)
            given = np.array(whole.splits or ["train"] * len(whole), dtype=object)
            if whole.splits is None and self.test_fraction:
                given[self._held(np.arange(len(whole)), self.test_fraction, self.seed + 1)] = "test"
            if not (given == "val").any() and self.val_fraction:
                given[self._held(np.flatnonzero(given == "train"), self.val_fraction, self.seed)] = "val"
            rows = {name: np.flatnonzero(given == name) for name in ("train", "val", "test")}
            self._splits = {name: whole.select(chosen) for name, chosen in rows.items() if len(chosen)}
            counts = ", ".join(f"{len(part)} {name}" for name, part in self._splits.items())
            logger.info("%s: pairs: %s", whole.origin, counts)
        return self._splits

    def _held(self, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        if len(rows) < 2:
            raise UserError(
                f"{self.folder}: {len(rows)} pair(s) are too few to hold out {fraction:g} of them; give more"
            )
        return rows[chosen_rows(np.zeros(len(rows), dtype=np.int64), fraction, seed)]

    def setup(self, stage: str | None = None) -> None:
        """Read the lists of pairs that ``stage`` needs."""
        wanted = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ()}
        names = ("train", "val", "test") if stage is None else wanted[stage]
        parts = self.pairs() if names else {}
        for name in names:
            if name not in parts:
                if stage is not None and (name != "val" or stage == "validate"):
                    raise UserError(f"no {name} images; give a folder that has some")
                continue
            training = name == "train"
            how: dict[str, Any] = {"channels": self.channels, "seed": self.seed}
            how |= {"scale": self.scale, "hflip": self.hflip} if training else {}
            setattr(self, f"{name}_set", PairDataset(parts[name], self.img_size, len(self.class_names), **how))
        if stage in (None, "predict") and self.predict is not None:
            place = self.predict
            images = read_plain_folder(place) if isinstance(place, str) and _is_folder(place) else None
            if images is None:
                images = list_files([place] if isinstance(place, str) else place)
            self.predict_set = PlainDataset(images, self.img_size, self.channels)
        elif stage == "predict":
            raise UserError("nothing to predict; give predict, a file or a folder")

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples to a batch."""
        batch: dict[str, Any] = {"input_ids": torch.stack([sample["image"] for sample in samples])}
        if "mask" in samples[0]:
            batch["labels"] = torch.stack([sample["mask"] for sample in samples])
        else:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch


def image_tensor(image: Any) -> torch.Tensor:
    """Return a ``PIL`` image as uint8 (channels, height, width)."""
    values = np.asarray(image)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(values.reshape(*values.shape[:2], -1), -1, 0)))


def _is_folder(place: str) -> bool:
    from pathlib import Path

    return Path(place).expanduser().is_dir()


def _crop_box(
    size: tuple[int, int], target: tuple[int, int], scale: tuple[float, float], generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """A box (left, top, right, bottom) of the target's shape as large as fits, scaled by a random factor."""
    width, height = size
    largest = min(width / target[1], height / target[0]) * generator.uniform(*scale)
    wide, high = max(1, min(width, round(target[1] * largest))), max(1, min(height, round(target[0] * largest)))
    left, top = int(generator.integers(width - wide + 1)), int(generator.integers(height - high + 1))
    return left, top, left + wide, top + high
