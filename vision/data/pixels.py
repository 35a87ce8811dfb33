"""Images as sequences of intensities, for autoregressive modelling."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ...core.training.data import SampleKey, sample_generator
from .images import Images
from .sourced import ImagesDataModule
from .transforms import evaluation_transform

#: Intensities; the code behind them begins every sequence.
LEVELS = 256
START = LEVELS


class PixelDataset(Dataset):
    """Images as codes: ``{"labels": int64 (height · width · channels,)}``, row by row, the channels of a pixel one
    after the other; with ``"name"`` and ``"index"`` where ``named``."""

    def __init__(
        self, images: Images, transform: Any, channels: int, *, hflip: float = 0.0, named: bool = False, seed: int = 0
    ) -> None:
        self.images, self.transform, self.channels = images, transform, channels
        self.hflip, self.named, self.seed = hflip, named, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        pixels = self.transform(self.images.read(key.index, self.channels))
        if self.hflip and sample_generator(self.seed, key).random() < self.hflip:
            pixels = pixels.flip(-1)
        sample: dict[str, Any] = {"labels": pixels.permute(1, 2, 0).reshape(-1).long()}
        if self.named:
            sample |= {"name": str(self.images.names[key.index]), "index": key.index}
        return sample


class PixelSequenceDataModule(ImagesDataModule):
    """Images as sequences of intensities, each to be predicted from those before it.

    A batch is ``{"input_ids": int64 (batch, length), "labels": int64 (batch, length)}`` with length = height · width ·
    channels: labels are intensities 0 … 255, row by row, the channels of a pixel one after the other; inputs are the
    same one later, beginning with the code 256. In prediction there are also ``"name"`` and ``"index"``.

    Args:
        hflip: probability of a mirror image in training.
        options: those of `ImagesDataModule`; classes play no part.
    """

    def __init__(self, hflip: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.hflip = hflip

    @property
    def vocab_size(self) -> int:
        """Number of codes."""
        return LEVELS + 1

    def make_dataset(self, images: Images, name: str) -> PixelDataset:
        """Return the sequences of a split."""
        how: dict[str, Any] = {"interpolation": self.interpolation, "crop_pct": self.crop_pct}
        return PixelDataset(
            images,
            evaluation_transform(self.img_size, self.channels, **how),
            self.channels,
            hflip=self.hflip if name == "train" else 0.0,
            named=name == "predict",
            seed=self.seed,
        )

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Stack samples to a batch."""
        labels = torch.stack([sample["labels"] for sample in samples])
        batch: dict[str, Any] = {"input_ids": shifted(labels), "labels": labels}
        if "name" in samples[0]:
            batch["name"] = [sample["name"] for sample in samples]
            batch["index"] = torch.tensor([sample["index"] for sample in samples], dtype=torch.int64)
        return batch


def shifted(codes: torch.Tensor) -> torch.Tensor:
    """Return the inputs that go with codes (batch, length): one later, after the start code."""
    start = torch.full((len(codes), 1), START, dtype=codes.dtype, device=codes.device)
    return torch.cat([start, codes[:, :-1]], 1)


def to_images(codes: np.ndarray, size: tuple[int, int], channels: int) -> np.ndarray:
    """Return codes (images, height · width · channels) as uint8 (images, height, width, channels)."""
    return codes.reshape(len(codes), *size, channels).astype(np.uint8)
