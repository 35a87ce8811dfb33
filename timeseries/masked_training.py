"""A model of missing values trained on the table itself, by hiding what it knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from ..core.device import find_device
from ..core.errors import UserError
from .data.series import SeriesSet
from .imputation import gap_patterns

#: Shares of a window's cells that are hidden in training, from least to most.
_SHARES = (0.05, 0.5)


class MaskedImputer:
    """A `SeriesImputer`: trained by ``fit`` on windows of the observed cells, or as it was trained before.

    Half of the training windows lose single cells, half runs as long as those that the table misses; the loss is the
    smooth absolute error of the cells hidden, in units of the scaled window. Nothing is chosen in training.

    Args:
        model: a trained `SeriesImputer`; None trains one.
        window: steps read at a time by a model that is trained; a series that is shorter is read whole.
        steps: of the optimiser.
        batch_size: windows per step.
        lr: peak learning rate.
        seed: of weights, windows and masks.
        device: auto, cpu, cuda, …
        options: fields of the configuration of the model that is trained.
        report: called with a line about the training.

    Raises:
        UserError: sizes out of range.
    """

    name = "SeriesImputer"

    def __init__(
        self,
        model: Any = None,
        window: int = 96,
        steps: int = 300,
        batch_size: int = 32,
        lr: float = 3e-3,
        seed: int = 0,
        device: str = "auto",
        options: dict[str, Any] | None = None,
        report: Callable[[str], None] | None = None,
    ) -> None:
        for argument, value in (("window", window), ("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise UserError(f"{argument}={value} must be at least 1")
        self.device = find_device(device)
        self.model = None if model is None else model.eval().to(self.device)
        self.window, self.steps, self.batch_size, self.lr, self.seed = window, steps, batch_size, lr, seed
        self.options, self.report = dict(options or {}), report

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """Return the imputer of a saved model.

        Raises:
            UserError: nothing there, or another kind of model.
        """
        import longscan

        from .models.imputer import SeriesImputer

        model = longscan.from_pretrained(folder)
        if not isinstance(model, SeriesImputer):
            raise UserError(f"{folder}: {type(model).__name__} is no SeriesImputer")
        return cls(model, device=device)

    def fit(self, data: SeriesSet) -> Self:
        """Train on what is observed; nothing for a model that was trained before.

        Raises:
            UserError: a channel that is never observed.
        """
        if self.model is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                self.model = self._train(data)
        return self

    def _train(self, data: SeriesSet) -> Any:
        from .models.imputer import SeriesImputer, SeriesImputerConfig

        window = min(self.window, max(len(series) for series in data))
        channels = data.channels if len(data.channels) > 1 else ()
        alike = len(data) == 1 or bool(channels)
        config: dict[str, Any] = {"variates": len(data.channels), "channels": channels, "window": window}
        config |= {"scaling": "standard" if alike else "instance"} | self.options
        model = SeriesImputer(SeriesImputerConfig(**config))
        model.fit_scaling(torch.from_numpy(np.concatenate([series.values for series in data])))
        model = model.to(self.device).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, total_steps=self.steps, pct_start=0.1)
        generator = np.random.default_rng(self.seed)
        patterns = gap_patterns(data)
        rows = np.array([max(1, len(series) - window + 1) for series in data])
        losses = []
        for _ in range(self.steps):
            chosen = generator.choice(len(data), self.batch_size, p=rows / rows.sum())
            values = np.stack([_window(data[one].values, int(generator.integers(rows[one])), window) for one in chosen])
            hidden = np.stack([_hidden(one, patterns, generator) for one in values])
            target = torch.from_numpy(values).to(self.device)
            mask = torch.from_numpy(hidden).to(self.device)
            estimate, scale = model.estimate(torch.where(mask, torch.nan, target))
            error = torch.where(mask, (estimate - target.nan_to_num()) / scale, 0.0)
            loss = torch.nn.functional.smooth_l1_loss(
                error, torch.zeros_like(error), reduction="sum"
            ) / mask.sum().clamp(1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
        if self.report is not None:
            tail = max(1, self.steps // 10)
            self.report(
                f"{self.name}: {self.steps} steps, loss {np.mean(losses[:tail]):.4f} -> {np.mean(losses[-tail:]):.4f}"
            )
        return model.eval()

    @torch.inference_mode()
    def fill(self, data: SeriesSet) -> list[np.ndarray]:
        """Fill every series; see `longscan.timeseries.imputation.Imputer`.

        Windows overlap by half, and each cell is taken from the one in which it lies nearest the middle.

        Raises:
            UserError: other channels than those of training.
        """
        assert self.model is not None, "fit it first"
        config = self.model.config
        if config.variates != len(data.channels) or (config.channels and config.channels != data.channels):
            raise UserError(
                f"{data.source}: has the channels {', '.join(data.channels)}; the model was trained on "
                f"{', '.join(config.channels) or 'one'}"
            )
        found = []
        for series in data:
            size, length = config.window, len(series)
            begins = np.unique(
                np.append(np.arange(0, max(1, length - size + 1), max(1, size // 2)), max(0, length - size))
            )
            estimate, middle = np.zeros(series.values.shape), begins + size / 2
            nearest = np.abs(np.arange(length)[:, None] + 0.5 - middle).argmin(1)
            for part in range(0, len(begins), 64):
                some = begins[part : part + 64]
                windows = np.stack([_window(series.values, int(begin), size) for begin in some])
                answer = self.model(torch.from_numpy(windows).to(self.device)).cpu().numpy()
                for number, begin in enumerate(some, start=part):
                    rows = np.flatnonzero(nearest == number)
                    estimate[rows] = answer[number - part, rows - begin]
            found.append(np.where(series.observed, series.values, estimate))
        return found


def _window(values: np.ndarray, begin: int, size: int) -> np.ndarray:
    """Return ``size`` rows from ``begin`` on, NaN behind the end."""
    part = values[begin : begin + size]
    return np.pad(part, ((0, size - len(part)), (0, 0)), constant_values=np.nan)


def _hidden(values: np.ndarray, patterns: list[tuple[int, bool]], generator: np.random.Generator) -> np.ndarray:
    """Return which observed cells of a window to hide, bool (time, channels)."""
    seen, share = ~np.isnan(values), generator.uniform(*_SHARES)
    if generator.random() < 0.5:
        return seen & (generator.random(values.shape) < share)
    cells = np.zeros_like(seen)
    while cells.mean() < share:
        length, whole = patterns[generator.integers(len(patterns))]
        length = min(length, len(values) // 2 + 1)
        begin = int(generator.integers(len(values) - length + 1))
        cells[begin : begin + length, slice(None) if whole else int(generator.integers(values.shape[1]))] = True
    return seen & cells
