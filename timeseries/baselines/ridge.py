"""Linear maps from lookback to horizon in closed form: deterministic, and done in seconds.

One pass over the windows sums XᵀX and XᵀY; the strength of the penalty is chosen on validation windows, whose error
follows from the same kind of sums. One map is shared by all channels (Zeng et al. 2023, arXiv:2205.13504).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ...core.errors import UserError, nearest
from ..ltsf import LTSFData

Kind = Literal["linear", "nlinear", "rlinear"]

#: Penalties tried, per window.
PENALTIES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
_EPSILON = 1e-5
#: Held-out windows from which on they say how far forecasts are off.
_ENOUGH = 30


def design(inputs: np.ndarray, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Return the regressors (windows, lookback + 1) and what is subtracted from the targets (windows, 1).

    ``linear``: [x, 1], 0. ``nlinear``: [x - x_last, 1], x_last. ``rlinear``: [x - mean, σ], mean. The last is the
    linear map between instance-normalised values, fitted with the error in the units of the data: with normalised
    targets, flat windows would outweigh all others.
    """
    if kind == "linear":
        return np.concatenate([inputs, np.ones((len(inputs), 1))], 1), np.zeros((len(inputs), 1))
    if kind == "nlinear":
        last = inputs[:, -1:]
        return np.concatenate([inputs - last, np.ones((len(inputs), 1))], 1), last
    mean = inputs.mean(1, keepdims=True)
    sigma = np.sqrt(inputs.var(1, keepdims=True) + _EPSILON)
    return np.concatenate([inputs - mean, sigma], 1), mean


@dataclass
class Moments:
    """Sums over windows: XᵀX, XᵀY, ΣY² of each step, and how many."""

    gram: np.ndarray
    cross: np.ndarray
    squares: np.ndarray
    count: int

    @classmethod
    def zeros(cls, lookback: int, horizon: int) -> Moments:
        """No window yet."""
        return cls(np.zeros((lookback + 1, lookback + 1)), np.zeros((lookback + 1, horizon)), np.zeros(horizon), 0)

    def add(self, inputs: np.ndarray, targets: np.ndarray, kind: Kind) -> None:
        """Add windows, (windows, lookback) and (windows, horizon), without missing values."""
        regressors, level = design(np.ascontiguousarray(inputs), kind)
        centred = targets - level
        self.gram += regressors.T @ regressors
        self.cross += regressors.T @ centred
        self.squares += (centred**2).sum(0)
        self.count += len(inputs)

    def errors(self, weight: np.ndarray) -> np.ndarray:
        """Mean squared error of a map over these windows at each step, (horizon,)."""
        total = self.squares - 2 * (weight * self.cross).sum(0) + (weight * (self.gram @ weight)).sum(0)
        return np.maximum(total, 0.0) / self.count


def series_scale(values: np.ndarray) -> float:
    """Mean absolute change from one observed value to the next, 1 where that is 0: the scale of MASE.

    Unlike a mean value it does not depend on where the zero of the data lies.
    """
    changes = np.abs(np.diff(values[~np.isnan(values)]))
    return (float(changes.mean()) or 1.0) if len(changes) else 1.0


class RidgeForecaster:
    """A closed-form linear forecaster.

    Attributes after ``fit``: ``weight`` float64 (lookback + 1, horizon), its last row the bias; ``penalty``, the one
    chosen; ``validation_mse`` of it; ``deviation`` float64 (horizon,), the root of the mean squared error at each step.

    Args:
        lookback: steps read.
        horizon: steps predicted.
        kind: ``linear``, ``nlinear`` (last value subtracted) or ``rlinear`` (instance-normalised).
        penalties: tried, each times the number of windows, on all weights but the bias.
        bias: whether there is a bias. Without one, forecasts of ``nlinear`` and ``rlinear`` move with the level and
            the scale of a window, as those of a model that scales each window do.

    Raises:
        UserError: an unknown kind, or sizes below 1.
    """

    def __init__(
        self,
        lookback: int,
        horizon: int,
        kind: Kind = "nlinear",
        penalties: Sequence[float] = PENALTIES,
        bias: bool = True,
    ) -> None:
        if kind not in get_args(Kind):
            raise UserError(f"kind={kind!r} is unknown ({nearest(kind, get_args(Kind))})")
        if lookback < 1 or horizon < 1:
            raise UserError(f"lookback={lookback} and horizon={horizon} must be at least 1")
        self.lookback, self.horizon, self.kind, self.penalties = lookback, horizon, kind, tuple(penalties)
        self.bias = bias
        self.weight = np.zeros((lookback + 1, horizon))
        self.penalty = float("nan")
        self.validation_mse = float("nan")
        self.deviation = np.zeros(horizon)

    def fit(self, train: Moments, validation: Moments | None = None) -> RidgeForecaster:
        """Solve for the weights; without validation windows the first of the penalties above 0 is taken.

        Raises:
            UserError: no training window.
        """
        if train.count == 0:
            raise UserError(f"no training window of lookback {self.lookback} and horizon {self.horizon}; shorten them")
        gram, cross = train.gram, train.cross
        # The bias has no penalty: it is eliminated, and the rest solved in the eigenbasis for all penalties at once.
        ratio = gram[:-1, -1:] / gram[-1, -1] * self.bias
        inner = gram[:-1, :-1] - ratio * gram[-1:, :-1]
        values, vectors = np.linalg.eigh(inner)
        rotated = vectors.T @ (cross[:-1] - ratio * cross[-1:])
        # Directions without variance get no weight (the last value minus itself, the sum of centred values).
        kept = values > values[-1] * 1e-12
        penalties = self.penalties
        if validation is None or validation.count == 0:
            penalties = tuple(p for p in self.penalties if p > 0)[:1] or self.penalties[:1]
        best, freedom = np.inf, 0.0
        for penalty in penalties:
            inverse = np.where(kept, 1 / np.where(kept, values + penalty * train.count, 1.0), 0.0)
            weight = vectors @ (inverse[:, None] * rotated)
            bias = (cross[-1:] - gram[-1:, :-1] @ weight) / gram[-1, -1] * self.bias
            weight = np.concatenate([weight, bias])
            error = float(validation.errors(weight).mean()) if validation is not None and validation.count else 0.0
            if error < best:
                best, self.weight, self.penalty, self.validation_mse = error, weight, penalty, error
                freedom = 1 + float((np.maximum(values, 0.0) * inverse).sum())
        self.deviation = np.sqrt(self._variance(train, validation, freedom))
        return self

    def _variance(self, train: Moments, validation: Moments | None, freedom: float) -> np.ndarray:
        """Return the mean squared error to expect at each step, (horizon,): that of the held-out windows, or, where
        they are few, that of the training windows, corrected for what a map of ``freedom`` parameters has learned of
        them (generalised cross-validation, Golub, Heath and Wahba 1979), and at least as large as the held-out ones'
        mean."""
        if validation is not None and validation.count >= _ENOUGH:
            return validation.errors(self.weight)
        errors = train.errors(self.weight)
        seen = 0.0 if validation is None or validation.count == 0 else float(validation.errors(self.weight).mean())
        if freedom < train.count:
            errors = errors / (1 - freedom / train.count) ** 2
        mean = float(errors.mean())
        if seen <= mean:
            return errors
        return errors * (seen / mean) if mean > 1e-9 * seen else np.full(self.horizon, seen)

    def fit_ltsf(self, data: LTSFData) -> RidgeForecaster:
        """Fit on the training windows of the protocol, the penalty chosen on its validation windows."""
        sums = []
        for split in ("train", "val"):
            moments = Moments.zeros(self.lookback, self.horizon)
            inputs, targets = data.windows(split, self.lookback, self.horizon)  # type: ignore[arg-type]
            first = inputs.shape[2] - targets.shape[2]
            for channel in range(targets.shape[2]):
                for begin in range(0, len(inputs), 8192):
                    part = slice(begin, begin + 8192)
                    moments.add(inputs[part, :, first + channel], targets[part, :, channel], self.kind)
            sums.append(moments)
        return self.fit(*sums)

    def fit_series(self, series: Iterable[np.ndarray], validation_windows: bool = True) -> RidgeForecaster:
        """Fit one map on all windows of many series, each divided by its own `series_scale`.

        Windows with a missing value are left out; the last window of each series with two or more chooses the penalty,
        and windows that share targets with it are not trained on.

        Args:
            series: float64 (time,) each, NaN where missing.
            validation_windows: whether to hold those out; without, the smallest penalty above 0 is taken.

        Raises:
            UserError: no complete window.
        """
        train, validation = (Moments.zeros(self.lookback, self.horizon) for _ in range(2))
        size = self.lookback + self.horizon
        for values in series:
            if len(values) < size:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(values / series_scale(values), size)
            complete = np.logical_not(np.isnan(windows).any(1))
            count = len(windows)
            held = validation_windows and count > self.horizon
            end = count - self.horizon if held else count
            chosen = windows[:end][complete[:end]]
            train.add(chosen[:, : self.lookback], chosen[:, self.lookback :], self.kind)
            if held and complete[-1]:
                validation.add(windows[-1:, : self.lookback], windows[-1:, self.lookback :], self.kind)
        return self.fit(train, validation)

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Forecast: (windows, lookback, channels) to (windows, horizon, channels)."""
        count, lookback, channels = inputs.shape
        if lookback != self.lookback:
            raise UserError(f"inputs of {lookback} steps, the forecaster was fitted for {self.lookback}")
        flat = inputs.transpose(0, 2, 1).reshape(count * channels, lookback)
        regressors, level = design(flat, self.kind)  # type: ignore[arg-type]
        return (regressors @ self.weight + level).reshape(count, channels, self.horizon).transpose(0, 2, 1)
