"""Synthetic series as a data module: drawn where the model trains, anew for every batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..core.errors import UserError
from ..core.training.data import ResumableDataModule, SampleKey
from .priors import WEIGHTS, SeriesPools, augment, draw_mixture, find_prior, hide, mix
from .priors.draws import chance, log_uniform, uniform

#: Targets further from the history's mean than so many of its deviations say nothing of it, and are left out.
_FARTHEST = 12.0
_TRAIN, _VALIDATION = 0, 1


class DrawKeys(Dataset):
    """The places of windows that are yet to be drawn: a sample is its key alone, int64 (stream, epoch, index)."""

    def __init__(self, stream: int, count: int) -> None:
        self.stream, self.count = stream, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: SampleKey | int) -> np.ndarray:
        key = key if isinstance(key, SampleKey) else SampleKey(0, key)
        if not 0 <= key.index < self.count:
            raise IndexError(f"window {key.index} of {self.count}")
        return np.array([self.stream, key.epoch, key.index], dtype=np.int64)


class SyntheticDataModule(ResumableDataModule):
    """Windows of series drawn from a mixture of generators, see `longscan.timeseries.priors`.

    No series is read: they are drawn on the device of the training. In each epoch there are ``pools`` of ``pool_size``
    series, each of one generator, drawn when first needed; a batch takes pieces of series from some pools, mixes and
    augments them. All this follows from ``seed``, the epoch and the batch's place in it, so a batch is the same
    whatever the number of workers, and after a restart (on the same kind of device). Validation windows have seeds of
    their own, the same in every epoch.

    A training batch has one length of history and one horizon, drawn from ``lookbacks`` and ``horizons``; some
    histories begin late or have gaps. A validation window has the longest of both.

    A batch is ``{"input_ids": float32 (batch, lookback, 1), "observed": bool of that shape, "labels": float32 (batch,
    horizon, 1), "label_mask": bool of that shape, "index": int64 (batch,)}``; values of mean about 0 and deviation
    about 1, times a factor for each series.

    Args:
        lookbacks: lengths of history and their weights.
        horizons: horizons and their weights.
        samples_per_epoch: training windows per epoch.
        val_samples: validation windows.
        weights: of the generators by name; the usual mixture where None.
        groups: pools that a batch takes from.
        pools: in each epoch.
        pool_size: series in a pool.
        options: those of `ResumableDataModule`.

    Raises:
        UserError: an argument out of range, or an unknown generator.
    """

    def __init__(
        self,
        lookbacks: Mapping[int, float] | None = None,
        horizons: Mapping[int, float] | None = None,
        samples_per_epoch: int = 512_000,
        val_samples: int = 2048,
        weights: Mapping[str, float] | None = None,
        groups: int = 16,
        pools: int = 96,
        pool_size: int = 2048,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.lookbacks = dict(lookbacks or {96: 0.1, 192: 0.15, 384: 0.2, 672: 0.25, 1008: 0.3})
        self.horizons = dict(horizons or {12: 0.15, 24: 0.15, 48: 0.3, 96: 0.4})
        self.weights = dict(weights or WEIGHTS)
        for name, lengths in (("lookbacks", self.lookbacks), ("horizons", self.horizons)):
            if min(lengths) < 1 or min(lengths.values()) < 0 or sum(lengths.values()) <= 0:
                raise UserError(f"{name}={lengths}: need lengths of 1 or more with weights, some of them positive")
        if min(self.lookbacks) < 24:
            raise UserError(f"lookbacks={self.lookbacks}: histories need 24 steps or more")
        sizes = {"samples_per_epoch": samples_per_epoch, "val_samples": val_samples, "groups": groups}
        for name, count in (sizes | {"pools": pools, "pool_size": pool_size}).items():
            if count < 1:
                raise UserError(f"{name}={count} must be at least 1")
        for name in self.weights:
            find_prior(name)
        self.samples_per_epoch, self.val_samples, self.groups = samples_per_epoch, val_samples, groups
        self.pools = SeriesPools(self.weights, pools, pool_size, self.lookback + self.horizon, self.seed)
        self._validation: dict[tuple[int, int, str], dict[str, Tensor]] = {}

    @property
    def lookback(self) -> int:
        """Steps of the longest history."""
        return max(self.lookbacks)

    @property
    def horizon(self) -> int:
        """The longest horizon."""
        return max(self.horizons)

    def setup(self, stage: str | None = None) -> None:
        """Say how many windows there are."""
        self.train_set = DrawKeys(_TRAIN, self.samples_per_epoch)
        self.val_set = DrawKeys(_VALIDATION, self.val_samples)

    def collate(self, samples: list[Any]) -> dict[str, Any]:
        """Return the keys of a batch; the series follow on the device."""
        return {"keys": torch.from_numpy(np.stack(samples))}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Draw the windows of a batch of keys, for Lightning on the device of the model."""
        return self.draw(batch["keys"], device)

    def draw(self, keys: Tensor, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return the windows of keys (batch, 3), a function of the first key and their number."""
        stream, epoch, index = keys[0].tolist()
        where = torch.device(device)
        state = np.random.SeedSequence([self.seed, stream, epoch, index]).generate_state(2)
        with torch.no_grad(), torch.autocast(where.type, enabled=False):
            if stream == _TRAIN:
                return self._train_batch(keys, where, epoch, int(state[0]), np.random.default_rng(int(state[1])))
            place = (index, len(keys), str(where))
            if place not in self._validation:
                self._validation[place] = self._validation_batch(keys, where, int(state[0]))
            return dict(self._validation[place])

    def _train_batch(
        self, keys: Tensor, device: torch.device, epoch: int, seed: int, plan: np.random.Generator
    ) -> dict[str, Tensor]:
        lookback, horizon = (_chosen(plan, lengths) for lengths in (self.lookbacks, self.horizons))
        generator = torch.Generator(device).manual_seed(seed)
        series = self.pools.take(epoch, plan, len(keys), lookback + horizon, self.groups, generator)
        return _batch(augment(mix(series, generator), generator), lookback, keys, generator)

    def _validation_batch(self, keys: Tensor, device: torch.device, seed: int) -> dict[str, Tensor]:
        series = draw_mixture(len(keys), self.lookback + self.horizon, seed, device, self.weights, self.groups)
        return _batch(series, self.lookback, keys, torch.Generator(device).manual_seed(seed + 1))

    def __getstate__(self) -> dict[str, Any]:
        # What is drawn stays where it is: workers hand out keys alone.
        return super().__getstate__() | {"pools": None, "_validation": {}}


def _batch(series: Tensor, lookback: int, keys: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Cut series into past and future, hide some of the past, and give each a level and a scale."""
    count = len(series)
    observed = hide(count, lookback, generator)
    past, target, known = _window(series, observed, lookback)
    size = log_uniform(generator, (count, 1), 1e-2, 1e4)
    shift = size * uniform(generator, (count, 1), 0, 20) * chance(generator, (count, 1), 0.5)
    return {
        "input_ids": torch.where(observed, past * size + shift, 0.0).unsqueeze(-1),
        "observed": observed.unsqueeze(-1),
        "labels": (target * size + shift).unsqueeze(-1),
        "label_mask": known.unsqueeze(-1),
        "index": keys[:, 2].to(series.device),
    }


def _window(series: Tensor, observed: Tensor, lookback: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return past, target, and which targets count."""
    past, target = series[:, :lookback], series[:, lookback:]
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(observed, past, 0.0).sum(1, keepdim=True) / count
    spread = (torch.where(observed, past - mean, 0.0).square().sum(1, keepdim=True) / count).sqrt()
    return past, target, (target - mean).abs() <= _FARTHEST * spread


def _chosen(plan: np.random.Generator, lengths: Mapping[int, float]) -> int:
    values: Sequence[int] = list(lengths)
    weights = np.array([lengths[value] for value in values], dtype=np.float64)
    return int(plan.choice(values, p=weights / weights.sum()))
