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
from .transforms import ImageAugmentation, evaluation_transform, seeded, training_transform


class ImageDataset(Dataset):
    """Images as pixels; see `ImageClassificationDataModule` for the arguments.

    Asked for a `SampleKey` (or an index, which is epoch 0), it gives ``{"image": uint8 (channels, height, width)}``
    with ``"label"`` where there are labels, and ``"name"`` and ``"index"`` where ``named``. A sample is a pure
    function of ``(seed, key)``.

    With ``cache``, images that are not changed at random are kept as the transform gives them, and a list of keys is
    answered by one batch (``__getitems__``).
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
        self._decoded = [images.read(index, channels) for index in range(len(images))] if cache and random else None
        self._pixels: Tensor | None = None
        if cache and not random and not named and len(images):
            self._pixels = torch.stack(
                [torch.as_tensor(transform(images.read(index, channels))) for index in range(len(images))]
            )
            self.__getitems__ = self._batch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        sample: dict[str, Any] = {"image": self._image(key)}
        if self.labels is not None:
            sample["label"] = int(self.labels[key.index])
        if self.named:
            sample |= {"name": str(self.images.names[key.index]), "index": key.index}
        return sample

    def _image(self, key: SampleKey) -> Tensor:
        if self._pixels is not None:
            return self._pixels[key.index]
        image = self.images.read(key.index, self.channels) if self._decoded is None else self._decoded[key.index]
        if not self.random:
            return self.transform(image)
        with seeded(int(sample_generator(self.seed, key).integers(2**63))):
            return self.transform(image)

class ImageClassificationDataModule(ImagesDataModule):
    """Images with a class.

    A batch is ``{"input_ids": uint8 (batch, channels, height, width), "labels": int64 (batch,)}``; the task normalises
    it on the model's device. In prediction it also has ``"name"`` (list of str) and ``"index"`` (int64), and no labels.

    Args:
        augmentation: of training images; none where None.
        class_names: names of the classes in the order of their indices; those of the source where None.
        options: those of `ImagesDataModule`.

    Raises:
        UserError: an argument out of range; in ``setup``, anything wrong with the images.
    """

    def __init__(
        self, augmentation: ImageAugmentation | None = None, class_names: list[str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.augmentation, self._class_names = augmentation, class_names
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

    def make_dataset(self, images: Images, name: str) -> ImageDataset:
        """Return the images of a split, with the class of each."""
        how: dict[str, Any] = {"interpolation": self.interpolation, "crop_pct": self.crop_pct}
        random = name == "train" and self.augmentation is not None
        if random and self.augmentation is not None:
            transform = training_transform(self.img_size, self.channels, self.augmentation, self.mean, **how)
        else:
            transform = evaluation_transform(self.img_size, self.channels, **how)
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

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples to a batch."""
        batch: dict[str, Any] = {"input_ids": torch.stack([sample["image"] for sample in samples])}
        if "label" in samples[0]:
            batch["labels"] = torch.tensor([sample["label"] for sample in samples], dtype=torch.int64)
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch
