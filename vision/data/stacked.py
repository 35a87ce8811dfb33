"""Small images as one array in memory, from which whole batches are taken at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...core.training.data import SampleKey
from .images import Images

#: Images that take more stay in the host's memory.
MOST_BYTES = 2**30


class StackedImages(Dataset):
    """Images as they are after the transform, uint8 (images, channels, height, width).

    A list of keys is answered by one batch, ``{"input_ids", "labels"}`` as `ImageClassificationDataModule` gives them,
    and where ``keyed`` also ``"index"``, int64 (batch,), and ``"epoch"``, one number: what an augmentation of the batch
    has to know.
    """

    def __init__(self, pixels: Tensor, labels: np.ndarray | None, *, keyed: bool = False) -> None:
        self.pixels, self.keyed = pixels, keyed
        self.labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64)

    def move(self, device: torch.device) -> bool:
        """Keep the images on ``device``, where batches are then taken and never copied, unless they are too many;
        return whether they are there."""
        if self.pixels.numel() > MOST_BYTES:
            return False
        self.pixels = self.pixels.to(device)
        self.labels = None if self.labels is None else self.labels.to(device)
        return True

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        batch = self.__getitems__([key])
        sample = {"image": batch["input_ids"][0]}
        return sample if self.labels is None else sample | {"label": int(batch["labels"][0])}

    def __getitems__(self, keys: Sequence[SampleKey | int]) -> dict[str, Any]:
        index = torch.tensor([key.index if isinstance(key, SampleKey) else key for key in keys], dtype=torch.int64)
        if self.pixels.is_cuda:
            # From pinned memory the host need not wait until the device has done all that was asked of it before.
            index = index.pin_memory().to(self.pixels.device, non_blocking=True)
        batch: dict[str, Any] = {"input_ids": self.pixels[index]}
        if self.labels is not None:
            batch["labels"] = self.labels[index]
        if self.keyed:
            batch |= {"index": index, "epoch": keys[0].epoch if isinstance(keys[0], SampleKey) else 0}
        return batch


def stacked_pixels(
    images: Images, channels: int, size: tuple[int, int], whole: bool, transform: Callable[[Any], Tensor]
) -> Tensor:
    """Return images after a transform that draws nothing, uint8 (images, channels, height, width).

    Args:
        images: at least one.
        channels: 3 or 1.
        size: what the transform brings them to.
        whole: it takes images whole, so that those of this size stay as they are.
        transform: of a ``PIL`` image.
    """
    kept = images.pixels(channels) if whole and images.pixel_size == size else None
    if kept is not None:
        return torch.from_numpy(np.ascontiguousarray(kept.transpose(0, 3, 1, 2)))
    return torch.stack([torch.as_tensor(transform(images.read(index, channels))) for index in range(len(images))])
