"""Features of waveforms for models that do not read raw samples, through torchaudio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import UserError
from .resampling import check_torchaudio


@dataclass(frozen=True)
class MelFeatures:
    """Logarithms of mel energies: frames are centred on multiples of the hop, the signal being reflected at its ends.

    Args:
        mels: number of mel bands.
        window: samples of a frame, and of its Fourier transform.
        hop: samples between frames.
        floor: added to energies before the logarithm.
    """

    mels: int = 80
    window: int = 512
    hop: int = 128
    floor: float = 1e-6

    def __post_init__(self) -> None:
        if min(self.mels, self.window, self.hop) < 1 or self.floor <= 0:
            raise UserError("features: mels, window and hop must be at least 1, and floor positive")

    def __call__(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Return features, float32 (1 + frames // hop, mels · channels), of ``samples`` float32 (frames, channels).

        Raises:
            UserError: torchaudio is missing, or the clip is too short to be reflected.
        """
        if len(samples) <= self.window // 2:
            raise UserError(f"a clip of {len(samples)} samples is too short for a mel window of {self.window}; pad it")
        import torch

        energies = self._transform(sample_rate)(torch.from_numpy(np.ascontiguousarray(samples.T)))
        return (energies + self.floor).log().permute(2, 0, 1).flatten(1).numpy()

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Return the feature frames that samples ``begin`` to ``end`` fall into."""
        return -(-begin // self.hop), max(-(-begin // self.hop), 1 + (end - 1) // self.hop)

    def _transform(self, sample_rate: int) -> Any:
        check_torchaudio()
        key = (self, sample_rate)
        if key not in _TRANSFORMS:
            from torchaudio.transforms import MelSpectrogram

            _TRANSFORMS[key] = MelSpectrogram(sample_rate, n_fft=self.window, hop_length=self.hop, n_mels=self.mels)
        return _TRANSFORMS[key]


_TRANSFORMS: dict[tuple[MelFeatures, int], Any] = {}


@dataclass(frozen=True)
class SpecAugment:
    """Masks over bands and over frames of features (Park et al. 2019, arXiv:1904.08779), without time warping.

    Args:
        band_masks: how many runs of bands are masked.
        band_width: the most bands of a run.
        frame_masks: how many runs of frames are masked.
        frame_width: the most frames of a run.
        frame_share: the largest share of all frames that one run may take.
    """

    band_masks: int = 2
    band_width: int = 16
    frame_masks: int = 2
    frame_width: int = 20
    frame_share: float = 1.0

    def __call__(self, features: np.ndarray, seed: int) -> np.ndarray:
        """Return a copy of ``features`` (frames, bands) in which masked places have the mean of all; a pure function
        of ``seed``."""
        check_torchaudio()
        import torch
        from torchaudio.functional import mask_along_axis

        result = torch.from_numpy(np.ascontiguousarray(features)).clone()[None]
        fill = float(result.mean())
        # torchaudio draws from the global generator; the fork leaves that as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for _ in range(self.band_masks):
                result = mask_along_axis(result, self.band_width, fill, 2)
            for _ in range(self.frame_masks):
                result = mask_along_axis(result, self.frame_width, fill, 1, p=self.frame_share)
        return result[0].numpy()
