"""Random changes of training waveforms; each a pure function of the generator it is given."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

import numpy as np

from ...core.errors import UserError


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training clip: speed, then band, shift, gain and noise.

    Args:
        speed: play the recording at a speed drawn from (slowest, fastest), on a logarithmic scale and in steps of a
            percent: pitch and formants move with it, as between speakers (Ko et al. 2015, Interspeech, "Audio
            augmentation for speech recognition"). What no longer fits the window is lost, as much at either end.
        lowpass_probability: how often high frequencies are taken away, as by a telephone or a lower sampling rate.
        lowpass_hz: cut-off (-3 dB) frequencies that are drawn from, on a logarithmic scale: (least, greatest).
        shift_seconds: move the clip in its window by up to so much either way; what is laid bare is silence, what
            leaves the window is lost, but never more than half of the recording.
        gain_db: multiply by a gain drawn uniformly from plus or minus so many decibels.
        noise_probability: how often white noise is added.
        noise_snr_db: signal-to-noise ratios that it is drawn from, uniformly, in decibels: (least, greatest), of the
            root mean square of the clip without what pads it.
        polarity: turn the clip upside down every other time.
    """

    speed: tuple[float, float] = (1.0, 1.0)
    lowpass_probability: float = 0.0
    lowpass_hz: tuple[float, float] = (1000.0, 4000.0)
    shift_seconds: float = 0.0
    gain_db: float = 0.0
    noise_probability: float = 0.0
    noise_snr_db: tuple[float, float] = (10.0, 40.0)
    polarity: bool = False

    def __post_init__(self) -> None:
        for name in ("shift_seconds", "gain_db"):
            if getattr(self, name) < 0:
                raise UserError(f"augmentation.{name}={getattr(self, name)} must not be negative")
        if len(self.speed) != 2 or not 0.1 <= self.speed[0] <= self.speed[1] <= 10:
            raise UserError(f"augmentation.speed={list(self.speed)} must be [slowest, fastest], within 0.1 and 10")
        for name in ("noise_probability", "lowpass_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"augmentation.{name}={getattr(self, name)} must lie in [0, 1]")
        if len(self.lowpass_hz) != 2 or not 0 < self.lowpass_hz[0] <= self.lowpass_hz[1]:
            raise UserError(f"augmentation.lowpass_hz={list(self.lowpass_hz)} must be [least, greatest], above 0")
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
        move, gain, chance, ratio, sign, tempo, narrow, cutoff = generator.random(8)
        result = samples.astype(np.float32, copy=True)
        end = len(result) if end is None else end
        slowest, fastest = self.speed
        if slowest != 1 or fastest != 1:
            result, end = at_speed(result, begin, end, slowest * (fastest / slowest) ** tempo)
        if narrow < self.lowpass_probability:
            least, greatest = self.lowpass_hz
            result = lowpass(result, sample_rate, least * (greatest / least) ** cutoff)
        offset = round((2 * move - 1) * self.shift_seconds * sample_rate)
        half = (end - begin) // 2
        offset = min(max(offset, -begin - half), len(result) - end + half)
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


def at_speed(samples: np.ndarray, begin: int, end: int, speed: float) -> tuple[np.ndarray, int]:
    """Return a window (frames, channels) with its recording, ``begin`` to ``end``, played faster, and its new end.

    Args:
        samples: float32; silence outside the recording.
        begin: first frame of the recording, which stays.
        end: one past the last.
        speed: 2 for half as long; rounded to a percent.
    """
    from scipy.signal import resample_poly

    percent = round(100 * speed)
    if percent == 100 or end <= begin:
        return samples, end
    common = gcd(100, percent)
    played = resample_poly(samples[begin:end], 100 // common, percent // common, axis=0)
    room = len(samples) - begin
    excess = max(len(played) - room, 0) // 2
    played = played[excess : excess + room]
    result = np.zeros_like(samples)
    result[begin : begin + len(played)] = played
    return result, begin + len(played)


def lowpass(samples: np.ndarray, sample_rate: int, cutoff: float) -> np.ndarray:
    """Return ``samples`` (frames, channels) float32 without what lies above ``cutoff`` hertz.

    A Butterworth filter of order 8 forth and back (-3 dB at the cut-off together, no delay); what a cut-off from 0.95
    times half the sampling rate on would change is nothing.
    """
    from scipy.signal import butter, sosfiltfilt

    if cutoff >= 0.95 * sample_rate / 2:
        return samples
    # Each pass takes half of the 3 dB, so its own cut-off lies higher, by a factor on the bilinear rule's frequencies.
    warped = np.tan(np.pi * cutoff / sample_rate) * (2**0.5 - 1) ** (-1 / 8)
    once = np.arctan(warped) * sample_rate / np.pi
    filtered = sosfiltfilt(butter(4, once, fs=sample_rate, output="sos"), samples, axis=0, padtype=None)
    return filtered.astype(np.float32)


def shifted(samples: np.ndarray, offset: int) -> np.ndarray:
    """Return ``samples`` (frames, …) moved later by ``offset`` (earlier if negative), silence where laid bare."""
    result = np.zeros_like(samples)
    if offset >= 0:
        result[offset:] = samples[: max(len(samples) - offset, 0)]
    else:
        result[:offset] = samples[-offset:]
    return result
