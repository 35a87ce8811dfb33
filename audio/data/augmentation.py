"""Random changes of training waveforms; each a pure function of the generator it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training clip: shift, then gain, then noise.

    Args:
        shift_seconds: move the clip in its window by up to so much either way; what is laid bare is silence, what
            leaves the window is lost.
        gain_db: multiply by a gain drawn uniformly from plus or minus so many decibels.
        noise_probability: how often white noise is added.
        noise_snr_db: signal-to-noise ratios that it is drawn from, uniformly, in decibels: (least, greatest), of the
            root mean square of the clip without what pads it.
        polarity: turn the clip upside down every other time.
    """

    shift_seconds: float = 0.0
    gain_db: float = 0.0
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    polarity: bool = False

    def __post_init__(self) -> None:
        for name in ("shift_seconds", "gain_db"):
            if getattr(self, name) < 0:
                raise UserError(f"augmentation.{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.noise_probability <= 1:
            raise UserError(f"augmentation.noise_probability={self.noise_probability} must lie in [0, 1]")
        if len(self.noise_snr_db) != 2 or self.noise_snr_db[0] > self.noise_snr_db[1]:
            raise UserError(f"augmentation.noise_snr_db={list(self.noise_snr_db)} must be [least, greatest]")

    def __call__(
        self,
        samples: np.ndarray,
        sample_rate: int,
        generator: np.random.Generator,
        begin: int = 0,
        end: int | None = None,
    ) -> tuple[np.ndarray, int, int]:
        """Return a changed copy of ``samples`` (frames, channels), float32, and where the recording now lies in it.

        Args:
            samples: the window.
            sample_rate: in hertz.
            generator: decides.
            begin: first frame that is recording, not padding.
            end: one past the last; the end of the window where None.
        """
        # Every number is drawn whatever the settings, so that one setting does not change what another draws.
        move, gain, chance, ratio, sign = generator.random(5)
        result = samples.astype(np.float32, copy=True)
        end = len(result) if end is None else end
        offset = round((2 * move - 1) * self.shift_seconds * sample_rate)
        if offset:
            result = shifted(result, offset)
            begin, end = (int(np.clip(place + offset, 0, len(result))) for place in (begin, end))
        factor = 10 ** ((2 * gain - 1) * self.gain_db / 20)
        if self.polarity and sign < 0.5:
            factor = -factor
        if factor != 1:
            result *= np.float32(factor)
        if chance < self.noise_probability and end > begin:
            least, greatest = self.noise_snr_db
            level = float(np.sqrt(np.mean(np.square(result[begin:end], dtype=np.float64))))
            level *= 10 ** (-(least + ratio * (greatest - least)) / 20)
            result += np.float32(level) * generator.standard_normal(result.shape, dtype=np.float32)
        return result, begin, end


def shifted(samples: np.ndarray, offset: int) -> np.ndarray:
    """Return ``samples`` (frames, …) moved later by ``offset`` (earlier if negative), silence where laid bare."""
    result = np.zeros_like(samples)
    if offset >= 0:
        result[offset:] = samples[: max(len(samples) - offset, 0)]
    else:
        result[:offset] = samples[-offset:]
    return result
