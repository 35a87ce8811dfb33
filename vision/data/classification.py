"""Classification of images: pixels, with the class of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.errors import UserError
from ...core.training.data import SampleKey, sample_generator
from .batch_augmentation import BatchAugmentation
from .images import Images
from .sourced import ImagesDataModule
from .stacked import StackedImages, stacked_pixels
from .transforms import ImageAugmentation, evaluation_transform, seeded, training_transform


class ImageDataset(Dataset):
    """Images as pixels; see `ImageClassificationDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"image": uint8 (channels, height, width)}``
    with ``"label"`` where there are labels, and ``"name"`` and ``"index"`` where ``named``. A sample is a pure
    function of ``(seed, key)``.
    """

    def __init__(
        self,
        images: Images,
        labels: np.ndarray | None,
        transform: Callable[[Any], Tensor],
        *,
        channels: int = 3,
        random: bool = False,
        cache: bool = False,
        named: bool = False,
        seed: int = 0,
    ) -> None:
        self.images, self.labels, self.transform = images, labels, transform
        self.channels, self.random, self.named, self.seed = channels, random, named, seed
        self._decoded = [images.read(index, channels) for index in range(len(images))] if cache else None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        image = self.images.read(key.index, self.channels) if self._decoded is None else self._decoded[key.index]
        if self.random:
            with seeded(int(sample_generator(self.seed, key).integers(2**63))):
                pixels = self.transform(image)
        else:
            pixels = self.transform(image)
        sample: dict[str, Any] = {"image": pixels}
        if self.labels is not None:
            sample["label"] = int(self.labels[key.index])
        if self.named:
            sample |= {"name": str(self.images.names[key.index]), "index": key.index}
        return sample


class ImageClassificationDataModule(ImagesDataModule):
    """Images with a class.

    A batch is ``{"input_ids": uint8 (batch, channels, height, width), "labels": int64 (batch,)}``; the task normalises
    it on the model's device. In prediction it also has ``"name"`` (list of str) and ``"index"`` (int64), and no labels.

    Args:
        augmentation: of training images, each by itself, in the loader processes; none where None.
        batch_augmentation: of training images in whole batches, on the model's device: with a GPU many times faster.
            Needs ``cache``, since images come from memory then; without loader processes (``num_workers: 0``).
        class_names: names of the classes in the order of their indices; those of the source where None.
        options: those of `ImagesDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the images.
    """

    def __init__(
        self,
        augmentation: ImageAugmentation | None = None,
        class_names: list[str] | None = None,
        batch_augmentation: BatchAugmentation | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.augmentation, self._class_names = augmentation, class_names
        self.batch_augmentation = batch_augmentation
        self._fill: Tensor | None = None
        if batch_augmentation is not None:
            if augmentation is not None:
                raise UserError("augmentation and batch_augmentation exclude each other; give one")
            if not self.cache:
                raise UserError("batch_augmentation takes images from memory; set data.cache true")
        if class_names is not None and len(set(class_names)) < len(class_names):
            raise UserError("class_names: a name occurs twice; every class needs its own")
        if class_names is not None and not all(name.strip() for name in class_names):
            raise UserError("class_names: a name is empty; every class needs one")

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their indices.

        Raises:
            UserError: there are no labelled images, or only one class.
        """
        whole = self.whole()
        if whole is None or whole.labels is None or whole.class_names is None:
            raise UserError("the classes are unknown without labelled images; give folder, archive or dataset")
        names = list(whole.class_names)
        if len(names) < 2:
            raise UserError(f"{whole.origin}: only one class, {names[0]!r}; classification needs at least two")
        if self._class_names is not None and len(self._class_names) != len(names):
            raise UserError(f"class_names has {len(self._class_names)} names, {whole.origin} has {len(names)} classes")
        return names if self._class_names is None else list(self._class_names)

    @property
    def num_classes(self) -> int:
        """Number of classes, as `class_names`."""
        return len(self.class_names)

    def make_dataset(self, images: Images, name: str) -> ImageDataset | StackedImages:
        """Return the images of a split, with the class of each."""
        how: dict[str, Any] = {"interpolation": self.interpolation, "crop_pct": self.crop_pct}
        random = name == "train" and self.augmentation is not None
        if random and self.augmentation is not None:
            transform = training_transform(self.img_size, self.channels, self.augmentation, self.mean, **how)
        else:
            transform = evaluation_transform(self.img_size, self.channels, **how)
        if self.cache and not random and name != "predict":
            whole = self.crop_pct == 1
            pixels = stacked_pixels(images, self.channels, self.img_size, whole, transform)
            return StackedImages(pixels, images.labels, keyed=name == "train" and self.batch_augmentation is not None)
        return ImageDataset(
            images,
            None if name == "predict" else images.labels,
            transform,
            channels=self.channels,
            random=random,
            cache=self.cache and name != "predict",
            named=name == "predict",
            seed=self.seed,
        )

    def on_after_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        """Augment a training batch, where it is now."""
        if self.batch_augmentation is None or "epoch" not in batch:
            return batch
        images = batch["input_ids"]
        if self._fill is None or self._fill.device != images.device:
            self._fill = torch.tensor(self.mean, device=images.device) * 255
        images = self.batch_augmentation(images, batch.pop("index"), batch.pop("epoch"), self.seed, self._fill)
        return batch | {"input_ids": images}

    def collate(self, samples: list[dict[str, Any]] | dict[str, Any]) -> dict[str, Any]:
        """Stack samples to a batch, which those of `StackedImages` are already."""
        if isinstance(samples, dict):
            return samples
        batch: dict[str, Any] = {"input_ids": torch.stack([sample["image"] for sample in samples])}
        if "label" in samples[0]:
            batch["labels"] = torch.tensor([sample["label"] for sample in samples], dtype=torch.int64)
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch
