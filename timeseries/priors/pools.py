"""Pools of drawn series that many batches take pieces of: to draw a thousand costs little more than to draw one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .curves import scaled
from .draws import integers
from .registry import find_prior

_POOL_STREAM = 2


class SeriesPools:
    """Pools of one generator each, drawn when they are first asked for and kept until another epoch is.

    Every pool is a function of ``(seed, epoch, number)`` (on one kind of device), whatever was asked for before it.

    Args:
        weights: of the generators by name; the pools are shared out in these proportions, anew in each epoch.
        pools: their number.
        size: series in a pool.
        length: steps of a series.
        seed: of all draws.
    """

    def __init__(self, weights: Mapping[str, float], pools: int, size: int, length: int, seed: int) -> None:
        self.weights, self.pools, self.size, self.length, self.seed = dict(weights), pools, size, length, seed
        self._kept: dict[tuple[int, str], Tensor] = {}
        self._epoch = -1

    def generators(self, epoch: int) -> list[str]:
        """Return the generator of each pool: each as often as its weight says, rounded up or down by chance."""
        names = list(self.weights)
        ends = np.cumsum([self.weights[name] for name in names])
        start = np.random.default_rng([self.seed, _POOL_STREAM, epoch]).uniform()
        points = (start + np.arange(self.pools)) / self.pools * ends[-1]
        return [names[min(index, len(names) - 1)] for index in np.searchsorted(ends, points, side="right")]

    def pool(self, epoch: int, number: int, device: torch.device) -> Tensor:
        """Return the series of a pool, float32 (size, length) of mean 0 and deviation 1."""
        if epoch != self._epoch:
            self._kept, self._epoch = {}, epoch
        key = (number, str(device))
        if key not in self._kept:
            seed = int(np.random.SeedSequence([self.seed, _POOL_STREAM, epoch, number]).generate_state(1)[0])
            prior = find_prior(self.generators(epoch)[number])
            series = prior(self.size, self.length, torch.Generator(device).manual_seed(seed))
            self._kept[key] = scaled(series.nan_to_num(0.0, 0.0, 0.0))
        return self._kept[key]

    def take(
        self, epoch: int, plan: np.random.Generator, count: int, length: int, groups: int, generator: torch.Generator
    ) -> Tensor:
        """Return ``count`` pieces of ``length`` steps from ``groups`` pools, float32 (count, length), in random order.

        Args:
            epoch: whose pools.
            plan: chooses the pools, and where in each the pieces begin.
            count: of series; each pool gives equally many.
            length: steps, at most those of the pools.
            groups: number of pools.
            generator: chooses the series in a pool.
        """
        groups = min(groups, self.pools, count)
        parts = []
        for index, number in enumerate(plan.choice(self.pools, groups, replace=False).tolist()):
            pool = self.pool(epoch, number, generator.device)
            rows = integers(generator, (count // groups + (index < count % groups),), 0, self.size - 1)
            begin = int(plan.integers(self.length - length + 1))
            parts.append(pool[rows, begin : begin + length])
        series = torch.cat(parts)
        return series[torch.randperm(count, generator=generator, device=generator.device)]
