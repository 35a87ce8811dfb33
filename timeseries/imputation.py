"""Missing values filled in: interpolation, forecasts bent to meet what follows, models trained by masking; and how far
each is off on cells that were hidden from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np

from ..core.errors import UserError
from .data.series import SeriesSet


class Imputer(Protocol):
    """Anything that is fitted to series with holes and fills them; ``name`` stands beside its errors."""

    name: str

    def fit(self, data: SeriesSet) -> Self:
        """Learn from what is observed."""
        ...

    def fill(self, data: SeriesSet) -> list[np.ndarray]:
        """Return the values of each series, float64 (time, channels), finite; observed ones as they are."""
        ...


class LinearInterpolation:
    """A line between the neighbours; the nearest value before the first and after the last observed one."""

    name = "linear interpolation"

    def fit(self, data: SeriesSet) -> Self:
        """Nothing to learn."""
        return self

    def fill(self, data: SeriesSet) -> list[np.ndarray]:
        """Fill every series; see `Imputer`."""
        return [_lines(series.values) for series in data]


class SeasonalInterpolation:
    """Linear interpolation of what the mean of each place in the season leaves.

    Args:
        season: steps per season; that of the data where None.
    """

    name = "seasonal interpolation"

    def __init__(self, season: int | None = None) -> None:
        self.season = season

    def fit(self, data: SeriesSet) -> Self:
        """Nothing to learn."""
        return self

    def fill(self, data: SeriesSet) -> list[np.ndarray]:
        """Fill every series; see `Imputer`."""
        season = data.season if self.season is None else self.season
        found = []
        for series in data:
            profile = _profile(series.values, season)[np.arange(len(series)) % season]
            filled = _lines(series.values - profile) + profile
            found.append(np.where(series.observed, series.values, filled))
        return found


class BridgedForecasts:
    """A forecaster's continuation over each gap, bent by a line so that it meets the value behind the gap.

    A gap without ``history`` rows before it, or longer than ``longest``, is interpolated.

    Args:
        forecaster: see `longscan.timeseries.forecasts.Forecaster`; is given series of one channel.
        history: rows given to the forecaster.
        longest: steps that it can forecast.
    """

    def __init__(self, forecaster: Any, history: int, longest: int) -> None:
        if longest < 2:
            raise UserError(
                f"{forecaster.name}: forecasts {longest} step; a gap needs at least one more than it is long"
            )
        self.forecaster, self.history, self.longest = forecaster, history, longest
        self.name = f"{forecaster.name}, bridged"

    def fit(self, data: SeriesSet) -> Self:
        """Fit the forecaster to the interpolated series."""
        self.forecaster.fit(_filled_set(data.univariate(), LinearInterpolation()))
        return self

    def fill(self, data: SeriesSet) -> list[np.ndarray]:
        """Fill every series; see `Imputer`."""
        single = data.univariate()
        lines = _filled_set(single, LinearInterpolation())
        filled = [series.values[:, 0].copy() for series in lines]
        jobs: dict[int, list[tuple[int, int, int]]] = {}
        for number, series in enumerate(single):
            for begin, end in _runs(~series.observed[:, 0]):
                if begin >= self.history and end - begin < self.longest:
                    steps = min(self.longest, 1 << (end - begin).bit_length())  # few lengths, so few batches
                    jobs.setdefault(steps, []).append((number, begin, end))
        for steps, gaps in jobs.items():
            histories = [lines[number].rows(begin - self.history, begin) for number, begin, _ in gaps]
            forecasts = self.forecaster.predict(lines.replace(histories), steps)
            for (number, begin, end), forecast in zip(gaps, forecasts, strict=True):
                ahead, size = forecast.point[: end - begin + 1, 0], end - begin
                if end < len(filled[number]):
                    miss = single[number].values[end, 0] - ahead[size]
                    ahead = ahead + miss * np.arange(1, len(ahead) + 1) / (size + 1)
                filled[number][begin:end] = ahead[:size]
        count = len(data.channels)
        return [np.stack(filled[begin : begin + count], 1) for begin in range(0, len(filled), count)]


class Held(NamedTuple):
    """Cells that were hidden: to choose by, and to report errors on."""

    data: SeriesSet
    """The series without them."""
    choose: list[np.ndarray]
    """bool (time, channels) for each series."""
    report: list[np.ndarray]
    """Likewise, other cells."""


def hide_cells(data: SeriesSet, share: float = 0.1, seed: int = 0) -> Held | None:
    """Hide observed cells in runs as long as those that the series miss, of all channels where those miss whole rows.

    Where nothing is missing single cells are hidden. The runs go to the two sets of cells in turn. None where too few
    values are observed to hide any.

    Args:
        data: series.
        share: of the observed cells, about.
        seed: of the places.

    Raises:
        UserError: a share outside of (0, 0.5].
    """
    if not 0 < share <= 0.5:
        raise UserError(f"share {share:g} must lie above 0 and at most at 0.5")
    generator = np.random.default_rng(seed)
    patterns = gap_patterns(data)
    hidden: list[list[np.ndarray]] = []
    for series in data:
        seen, sets = series.observed, [np.zeros(series.values.shape, dtype=bool) for _ in range(2)]
        wanted, taken, turn = int(share * seen.sum()), 0, 0
        for _ in range(20 * wanted):
            if taken >= wanted:
                break
            length, whole = patterns[generator.integers(len(patterns))]
            length = min(length, max(1, int(share * len(series))))
            begin = int(generator.integers(max(1, len(series) - length + 1)))
            columns = slice(None) if whole else int(generator.integers(seen.shape[1]))
            cells = np.zeros_like(seen)
            cells[begin : begin + length, columns] = True
            cells &= seen & ~sets[0] & ~sets[1]
            if not cells.any():
                continue
            sets[turn] |= cells
            taken, turn = taken + int(cells.sum()), 1 - turn
        hidden.append(sets)
    if any(not any(sets[number].any() for sets in hidden) for number in range(2)):
        return None
    left = [_without(series, sets[0] | sets[1]) for series, sets in zip(data, hidden, strict=True)]
    if any(not series.observed.any(0).all() for series in left):
        return None
    return Held(data.replace(left), [sets[0] for sets in hidden], [sets[1] for sets in hidden])


def gap_patterns(data: SeriesSet) -> list[tuple[int, bool]]:
    """Return length and whether all channels miss, of every run of missing cells; a single cell where none misses."""
    found = []
    for series in data:
        missing = ~series.observed
        whole = np.asarray(missing.all(1))
        if missing.shape[1] > 1:
            found += [(end - begin, True) for begin, end in _runs(whole)]
            missing = missing & ~whole[:, None]
        for column in missing.T:
            found += [(end - begin, False) for begin, end in _runs(column)]
    return found or [(1, False)]


class Errors(NamedTuple):
    """How far an imputer is off on hidden cells."""

    mae: float
    rmse: float
    scaled_mae: float
    """In standard deviations of each series' channel, so that large channels do not drown small ones."""
    cells: int


def measure_errors(filled: Sequence[np.ndarray], data: SeriesSet, cells: Sequence[np.ndarray]) -> Errors:
    """Compare fillings with the values that were hidden.

    Args:
        filled: of each series, (time, channels).
        data: series with nothing hidden.
        cells: bool (time, channels) for each series: those to compare.
    """
    differences, scaled = [], []
    for values, series, chosen in zip(filled, data, cells, strict=True):
        spread = np.nanstd(np.where(series.observed.any(0), series.values, 0.0), 0)
        difference = np.abs(values - series.values)
        differences.append(difference[chosen])
        scaled.append((difference / np.where(spread > 0, spread, 1.0))[chosen])
    error, relative = np.concatenate(differences), np.concatenate(scaled)
    return Errors(float(error.mean()), float(np.sqrt((error**2).mean())), float(relative.mean()), len(error))


def _lines(values: np.ndarray) -> np.ndarray:
    """Interpolate each column, (time, columns); 0 where a column is never observed."""
    time, result = np.arange(len(values)), values.copy()
    for column in result.T:
        known = ~np.isnan(column)
        column[:] = np.interp(time, time[known], column[known]) if known.any() else 0.0
    return result


def _profile(values: np.ndarray, season: int) -> np.ndarray:
    """Return the mean of each place in the season, (season, columns); the overall mean where it is never observed."""
    known = ~np.isnan(values)
    place = np.arange(len(values)) % season
    total, count = np.zeros((season, values.shape[1])), np.zeros((season, values.shape[1]))
    np.add.at(total, place, np.where(known, values, 0.0))
    np.add.at(count, place, known)
    mean = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(count > 0, total / np.maximum(count, 1), mean)


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end (without it) of each run of True, of bool (time,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _without(series: Any, cells: np.ndarray) -> Any:
    import dataclasses

    return dataclasses.replace(series, values=np.where(cells, np.nan, series.values))


def _filled_set(data: SeriesSet, imputer: Imputer) -> SeriesSet:
    import dataclasses

    values = imputer.fill(data)
    return data.replace([dataclasses.replace(one, values=two) for one, two in zip(data, values, strict=True)])
