"""Windows of waveforms without classes, for diffusion models."""

from __future__ import annotations

from typing import Any

from .classification import AudioClassificationDataModule, Normalization


class WaveformDataModule(AudioClassificationDataModule):
    """Windows of recordings: `AudioClassificationDataModule` for recordings whose classes play no part.

    A batch is ``{"input_ids": float32 (batch, frames, channels), "mask": bool (batch, frames)}``.

    Args:
        options: those of `AudioClassificationDataModule`; a folder may have its files at any depth.
    """

    needs_labels = False

    def __init__(self, length: int | None = None, normalize: Normalization = "none", **options: Any) -> None:
        super().__init__(length=length, normalize=normalize, **options)

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad samples to one batch."""
        return super().collate([{key: value for key, value in s.items() if key != "label"} for s in samples])
