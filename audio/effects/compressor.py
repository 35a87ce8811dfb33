"""A dynamic range compressor: the feed-forward design with a smoothed gain in decibels.

After Giannoulis, Massberg and Reiss, "Digital dynamic range compressor design: a tutorial and analysis" (J. Audio Eng.
Soc. 60(6), 2012): level of each sample in decibels, static curve with a soft knee (equation 4), "smooth branching" peak
detector of the gain reduction (equation 16 applied in the log domain, figure 7c), make-up gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...core.errors import UserError

_FLOOR_DB = -120.0


@dataclass(frozen=True)
class Compressor:
    """What a compressor is set to.

    A step of the gain reduction from 0 to r has come to r (1 - 1/e) after ``attack`` seconds, and a fall to 0 to r/e
    after ``release`` seconds.

    Args:
        threshold: in decibels of full scale, above which it compresses.
        ratio: decibels of input for each decibel of output above the threshold.
        attack: time constant while the reduction grows, in seconds; 0 is at once.
        release: time constant while it falls, in seconds.
        knee: width of the soft knee around the threshold, in decibels; 0 is a hard one.
        makeup: gain after compression, in decibels.
    """

    threshold: float = -20.0
    ratio: float = 4.0
    attack: float = 0.005
    release: float = 0.1
    knee: float = 6.0
    makeup: float = 0.0

    def __post_init__(self) -> None:
        if not self.ratio >= 1:
            raise UserError(f"ratio={self.ratio} of a compressor must be at least 1")
        for name in ("attack", "release", "knee"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}={getattr(self, name)} of a compressor must not be negative")


def level(samples: np.ndarray) -> np.ndarray:
    """Return the level of each sample in decibels of full scale, float64, at least -120."""
    return 20 * np.log10(np.maximum(np.abs(np.asarray(samples, dtype=np.float64)), 10 ** (_FLOOR_DB / 20)))


def static_reduction(levels: np.ndarray, settings: Compressor) -> np.ndarray:
    """Return by how many decibels a steady input of each level is turned down: float64, 0 or more.

    With x the level over the threshold, R the ratio and W the knee: 0 for 2x ≤ -W, (1 - 1/R)(x + W/2)²/(2W) inside the
    knee, (1 - 1/R) x for 2x ≥ W.
    """
    over = np.asarray(levels, dtype=np.float64) - settings.threshold
    slope, knee = 1 - 1 / settings.ratio, settings.knee
    reduction = slope * np.maximum(over, 0)
    if knee > 0:
        inside = np.abs(2 * over) < knee
        reduction = np.where(inside, slope * (over + knee / 2) ** 2 / (2 * knee), reduction)
    return reduction


def compress(
    samples: np.ndarray, sample_rate: float, settings: Compressor, state: float = 0.0
) -> tuple[np.ndarray, float]:
    """Compress a signal, all in float64; in blocks, with the state handed on, the result is the same.

    Args:
        samples: (frames,), or (frames, channels), which are turned down together by the loudest of them.
        sample_rate: in hertz.
        settings: of the compressor.
        state: gain reduction in decibels at the sample before the first.

    Returns:
        The compressed signal, float64 of the same shape, and the state after it.
    """
    samples = np.asarray(samples, dtype=np.float64)
    loudest = samples if samples.ndim == 1 else np.abs(samples).max(1)
    wanted = static_reduction(level(loudest), settings)
    reduction = _smoother()(
        wanted, _coefficient(settings.attack, sample_rate), _coefficient(settings.release, sample_rate), float(state)
    )
    gain = 10 ** ((settings.makeup - reduction) / 20)
    result = samples * (gain if samples.ndim == 1 else gain[:, None])
    return result, float(reduction[-1]) if len(reduction) else float(state)


def _coefficient(seconds: float, sample_rate: float) -> float:
    """Return the pole of a one-pole smoother with this time constant."""
    return math.exp(-1 / (seconds * sample_rate)) if seconds > 0 else 0.0


@cache
def _smoother() -> Any:
    """Return the smoother, compiled: which pole applies depends on the last output, so that no scan can do it."""
    from numba import njit

    @njit(cache=True)
    def smooth(wanted: np.ndarray, attack: float, release: float, state: float) -> np.ndarray:
        reduction = np.empty_like(wanted)
        for t in range(len(wanted)):
            pole = attack if wanted[t] > state else release
            state = pole * state + (1 - pole) * wanted[t]
            reduction[t] = state
        return reduction

    return smooth
