"""Samples as integer codes: μ-law and linear quantisation, over a fixed range or the range of each clip.

SaShiMi (Goel et al. 2022, arXiv:2202.09729) models audio as codes of 8 bits. Its published models stretch each clip
between its minimum and maximum first (``range="minmax"``), which needs the whole clip, moves its zero level and loses
its loudness. A stream is quantised over a fixed range, the default here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np

from ..core.errors import UserError, nearest

Law = Literal["mu", "linear", "mu_rounded"]
Range = Literal["fixed", "minmax", "peak"]


@dataclass(frozen=True)
class Quantizer:
    """Turns samples into codes and back; all arithmetic in float32, as published.

    With μ = 2^bits - 1, ``"mu"`` compresses x to y = sign(x) log(1 + μ|x|) / log(1 + μ) and takes
    trunc((y + 1)/2 · (2^bits - 0.01) + 0.005); code c is read as v = c/2^(bits-1) - 1, x = sign(v) ((1 + μ)^|v| - 1)/μ.
    ``"linear"`` is the same without the compression. The codes of silence are `zero` and 0.0 in both directions.
    ``"mu_rounded"`` is the other μ-law of the same code base (Speech Commands): trunc((y + 1)/2 · μ + 0.5), read as
    v = 2c/μ - 1.

    Args:
        bits: of a code, 2 to 16.
        law: how codes are spaced.
        range: what spans the codes: ``"fixed"``: [-1, 1], samples beyond are taken for ±1; ``"minmax"``: from the
            least to the greatest sample of each clip (the published convention: a constant clip becomes code 0);
            ``"peak"``: ± the largest magnitude of each clip.
    """

    bits: int = 8
    law: Law = "mu"
    range: Range = "fixed"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise UserError(f"bits={self.bits} of a code must lie between 2 and 16")
        for name, allowed in (("law", get_args(Law)), ("range", get_args(Range))):
            if getattr(self, name) not in allowed:
                raise UserError(f"{name}={getattr(self, name)!r} is unknown ({nearest(getattr(self, name), allowed)})")

    @property
    def levels(self) -> int:
        """Number of codes, 2^bits."""
        return 1 << self.bits

    @property
    def zero(self) -> int:
        """The code of silence, and the first input of an autoregressive model."""
        return self.levels // 2

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Return the codes of one clip: int64 of the shape of ``samples`` (frames, …), which are floats.

        The range of ``"minmax"`` and ``"peak"`` is that of the whole array.
        """
        x = self._scaled(np.asarray(samples, dtype=np.float32))
        levels = np.float32(self.levels)
        if self.law == "mu_rounded":
            return (((_compress(x, self.levels - 1) + 1) / 2) * (levels - 1) + np.float32(0.5)).astype(np.int64)
        # The published code adds 1e-8, which keeps the sign of nothing but avoids the logarithm's corner.
        y = x if self.law == "linear" else _compress(x, self.levels - 1, np.float32(1e-8))
        unit = y if self.law == "linear" and self.range == "minmax" else (y + 1) / 2
        return (unit * (levels - np.float32(0.01)) + np.float32(0.005)).astype(np.int64)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the samples of codes: float32 in [-1, 1], of the shape of ``codes``, which are integers.

        Raises:
            UserError: a code that there is not.
        """
        codes = np.asarray(codes)
        if codes.size and (codes.min() < 0 or codes.max() >= self.levels):
            wrong = codes.min() if codes.min() < 0 else codes.max()
            raise UserError(f"codes of {self.bits} bits lie between 0 and {self.levels - 1}; found {wrong}")
        return self.table[codes]

    @cached_property
    def table(self) -> np.ndarray:
        """The sample of each code, float32 (levels,)."""
        codes = np.arange(self.levels, dtype=np.float32)
        if self.law == "mu_rounded":
            return _expand(codes / np.float32(self.levels - 1) * 2 - 1, self.levels - 1)
        v = codes / np.float32(self.levels / 2) - 1
        return v if self.law == "linear" else _expand(v, self.levels - 1)

    def _scaled(self, x: np.ndarray) -> np.ndarray:
        if self.range == "fixed":
            return np.clip(x, -1, 1)
        if x.size == 0:
            return x
        if self.range == "peak":
            peak = np.abs(x).max()
            return x / peak if peak > 0 else x
        low, high = x.min(), x.max()
        if self.law == "mu_rounded":
            # Without the published 1e-6 in other ranges; a constant clip there is 0/0, here it is its lowest code.
            return (2 * (x - low) / (high - low) - 1) if high > low else np.full_like(x, -1)
        unit = (x - low) / (high - low + np.float32(1e-6))
        return unit if self.law == "linear" else np.float32(-1) + np.float32(2) * unit


def _compress(x: np.ndarray, mu: int, epsilon: np.float32 | float = 0.0) -> np.ndarray:
    return np.sign(x) * np.log1p(np.float32(mu) * np.abs(x + np.float32(epsilon))) / np.log1p(np.float32(mu))


def _expand(v: np.ndarray, mu: int) -> np.ndarray:
    """Return the samples of compressed values; computed in float64, since the table is small."""
    wide = v.astype(np.float64)
    return (np.sign(wide) * ((1.0 + mu) ** np.abs(wide) - 1) / mu).astype(np.float32)


def autoregressive_pair(codes: np.ndarray, quantizer: Quantizer) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets of next-sample prediction: the codes one later, beginning with `Quantizer.zero`, and
    the codes themselves; int64 (frames,)."""
    inputs = np.empty_like(codes)
    inputs[:1] = quantizer.zero
    inputs[1:] = codes[:-1]
    return inputs, codes
