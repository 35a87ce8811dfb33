"""The periods of a series, found in the series itself, and what it was one period ago."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Periods(NamedTuple):
    """Candidates, in a fixed order: see :func:`find_periods`."""

    steps: Tensor
    """int64 (series, 3), at least 1."""
    strength: Tensor
    """(series, 3): the autocorrelation at that lag, 0 where nothing was found."""


@torch.no_grad()
def find_periods(values: Tensor, observed: Tensor) -> Periods:
    """Return three candidates for the period of each series, which may agree.

    The first is the largest peak of the autocorrelation of the differences (sharp seasons, whatever the trend); the
    second that of the values less a line (smooth seasons); the third the shortest peak of the first kind that has 0.6
    of the height of the largest. A peak is higher than both its neighbours and less than half of what was observed.
    Longer lags count for less, by a quarter at the full length.

    Args:
        values: (series, time), finite.
        observed: bool of that shape.
    """
    with torch.autocast(values.device.type, enabled=False):
        known = observed.to(torch.float32)
        values = values.float()
        both = known[:, 1:] * known[:, :-1]
        differences = F.pad((values[:, 1:] - values[:, :-1]) * both, (1, 0))
        sharp = _autocorrelation(_centred(differences, F.pad(both, (1, 0))), F.pad(both, (1, 0)))
        smooth = _autocorrelation(_less_line(values, known), known)
        length = values.shape[1]
        lag = torch.arange(length, device=values.device)
        span = length - observed.int().argmax(1, keepdim=True)
        weight = 1 - 0.25 * lag / span.clamp(min=1)
        allowed = (lag >= 2) & (lag * 2 <= span)
        found = []
        for correlation in (sharp, smooth):
            found.append(_tallest(correlation, correlation * weight, allowed))
        peaks = _peaks(sharp, allowed) & (sharp > 0)
        high = peaks & (sharp >= 0.6 * torch.where(peaks, sharp, 0.0).amax(1, keepdim=True))
        some = high.any(1)
        steps = torch.where(some, high.int().argmax(1), 1)
        found.append((steps, torch.where(some, sharp.gather(1, steps[:, None])[:, 0], 0.0)))
        return Periods(torch.stack([one for one, _ in found], 1), torch.stack([other for _, other in found], 1))


def one_period_before(series: Tensor, period: Tensor) -> Tensor:
    """Return ``series`` (series, time) shifted later by ``period`` (series,), its first values as they are, 0."""
    time = torch.arange(series.shape[1], device=series.device)
    source = time - period[:, None]
    return torch.where(source >= 0, series.gather(1, source.clamp(min=0)), 0.0)


def last_period(series: Tensor, period: Tensor, horizon: int, back: int = 1) -> Tensor:
    """Return the ``back``-th last period of ``series`` (series, time), repeated over ``horizon`` steps; where that is
    before the series, its first value."""
    length = series.shape[1]
    ahead = torch.arange(horizon, device=series.device) % period[:, None]
    return series.gather(1, (length - back * period[:, None] + ahead).clamp(min=0))


def _tallest(correlation: Tensor, weighted: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor]:
    peaks = _peaks(correlation, allowed)
    height, lag = torch.where(peaks, weighted, -1.0).max(1)
    some = height > 0
    steps = torch.where(some, lag, 1)
    return steps, torch.where(some, correlation.gather(1, steps[:, None])[:, 0], 0.0)


def _peaks(correlation: Tensor, allowed: Tensor) -> Tensor:
    before, after = F.pad(correlation, (1, 0))[:, :-1], F.pad(correlation, (0, 1))[:, 1:]
    return (correlation > before) & (correlation >= after) & allowed


def _autocorrelation(values: Tensor, known: Tensor) -> Tensor:
    """Return the correlation of (series, time), 0 where not ``known``, with itself at lags 0 … time - 1."""
    length = values.shape[1]
    spectrum = torch.fft.rfft(torch.stack([values, known]), n=2 * length)
    products, pairs = torch.fft.irfft(spectrum.abs().square(), n=2 * length)[..., :length]
    mean = products / pairs.clamp(min=1)
    return mean / mean[:, :1].clamp(min=1e-12)


def _centred(values: Tensor, known: Tensor) -> Tensor:
    mean = (values * known).sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1)
    return (values - mean) * known


def _less_line(values: Tensor, known: Tensor) -> Tensor:
    """Return values less the line of least squares, 0 where not ``known``."""
    time = torch.linspace(-1, 1, values.shape[1], device=values.device).expand_as(values)
    time, centred = _centred(time, known), _centred(values, known)
    slope = (time * centred).sum(1, keepdim=True) / time.square().sum(1, keepdim=True).clamp(min=1e-6)
    return centred - slope * time
