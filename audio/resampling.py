"""Changing the sample rate: with an anti-aliasing filter, or by leaving samples out as rate-transfer tests do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

# torchaudio's own defaults, named here because crops depend on them.
_ZERO_CROSSINGS, _ROLLOFF = 6, 0.99


@dataclass(frozen=True)
class Crop:
    """Which frames of a file to resample for a crop of the result.

    Args:
        start: first frame of the file.
        frames: how many of the file.
        skip: frames of the resampled part before the crop.
    """

    start: int
    frames: int
    skip: int


def check_torchaudio() -> None:
    """Check that resampling is possible.

    Raises:
        UserError: torchaudio is missing.
    """
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError) as error:
        raise UserError(f"resampling needs torchaudio ({error}); pip install 'longscan[audio]'") from error


def resampled_length(frames: int, rate: int, new_rate: int) -> int:
    """Return how many frames :func:`resample` makes of ``frames``."""
    return -(-frames * new_rate // rate)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Change the sample rate with a windowed-sinc filter that cuts off at the lower of the two Nyquist frequencies.

    Args:
        samples: float32 (frames, channels) or (frames,).
        rate: their rate in hertz.
        new_rate: the rate wanted.

    Returns:
        float32, ``ceil(frames * new_rate / rate)`` frames.

    Raises:
        UserError: torchaudio is missing.
    """
    if rate == new_rate:
        return samples
    check_torchaudio()
    import torch

    waveform = torch.from_numpy(np.ascontiguousarray(samples.T, dtype=np.float32))
    return np.ascontiguousarray(_filtered(waveform, rate, new_rate).numpy().T)


def at_a_fraction(samples: Tensor, factor: int) -> Tensor:
    """Return a batch at its rate divided by ``factor``, with the filter of :func:`resample`.

    Args:
        samples: (batch, frames, channels), any device.
        factor: at least 1.

    Raises:
        UserError: torchaudio is missing.
    """
    check_torchaudio()
    return _filtered(samples.movedim(1, -1).contiguous(), factor, 1).movedim(-1, 1).contiguous()


def _filtered(waveform: Tensor, rate: int, new_rate: int) -> Tensor:
    from torchaudio.functional import resample as filtered

    return filtered(waveform, rate, new_rate, lowpass_filter_width=_ZERO_CROSSINGS, rolloff=_ROLLOFF)


def crop_for_resampling(start: int, frames: int, length: int, rate: int, new_rate: int) -> Crop:
    """Return what to read of a file of ``length`` frames so that a resampled crop is that of the whole.

    The part begins at a frame where a frame of the result falls too, and has the reach of the filter on both sides.

    Args:
        start: first frame of the crop, at ``new_rate``.
        frames: frames of the crop, at ``new_rate``.
        length: frames of the file.
        rate: rate of the file in hertz.
        new_rate: rate of the crop.
    """
    divisor = math.gcd(rate, new_rate)
    period, new_period = rate // divisor, new_rate // divisor
    reach = math.ceil(_ZERO_CROSSINGS * period / (min(period, new_period) * _ROLLOFF))
    margin = -(-reach // period)
    first = max(start // new_period - margin, 0)
    last = min((-(-(start + frames) // new_period) + margin) * period, length)
    return Crop(first * period, last - first * period, start - first * new_period)


def decimate(samples: np.ndarray, factor: int) -> np.ndarray:
    """Keep every ``factor``-th frame, without any filter: what is above the new Nyquist frequency folds back.

    This is how the published zero-shot tests at half the rate make their input (Gu et al. 2022, arXiv:2111.00396,
    section 4.3): the model then runs with ``rate=factor``. For anything else use :func:`resample`.

    Raises:
        UserError: a factor below 1.
    """
    if factor < 1:
        raise UserError(f"decimation={factor} must be at least 1")
    return samples[::factor]
