"""The linear forecasters of Zeng et al. 2023 (arXiv:2205.13504), trained by gradient descent.

Parameters carry the published names, so that published state dictionaries load.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import UserError, nearest

Initialization = Literal["mean", "torch"]


class _LinearMaps(nn.Module):
    """What the three share: maps from lookback to horizon, one for all channels or one for each.

    Args:
        lookback: steps read.
        horizon: steps predicted.
        channels: number of them, needed with ``individual``.
        individual: a map for each channel.
        initialization: ``mean``: all weights 1 / lookback, so that training begins at the mean of the window;
            ``torch``: the library's default, uniform in ±1/√lookback.

    Raises:
        UserError: sizes below 1, an unknown initialisation, or ``individual`` without ``channels``.
    """

    names: tuple[str, ...] = ("Linear",)

    def __init__(
        self,
        lookback: int,
        horizon: int,
        channels: int | None = None,
        individual: bool = False,
        initialization: Initialization = "mean",
    ) -> None:
        super().__init__()
        if lookback < 1 or horizon < 1:
            raise UserError(f"lookback={lookback} and horizon={horizon} must be at least 1")
        if initialization not in get_args(Initialization):
            known = nearest(initialization, get_args(Initialization))
            raise UserError(f"initialization={initialization!r} is unknown ({known})")
        if individual and channels is None:
            raise UserError("individual maps need the number of channels; give channels")
        self.lookback, self.horizon, self.channels = lookback, horizon, channels
        for name in self.names:
            maps = [nn.Linear(lookback, horizon) for _ in range(channels if individual and channels else 1)]
            if initialization == "mean":
                for one in maps:
                    nn.init.constant_(one.weight, 1 / lookback)
            self.add_module(name, nn.ModuleList(maps) if individual else maps[0])

    def apply_maps(self, name: str, series: Tensor) -> Tensor:
        """Map (batch, channels, lookback) to (batch, channels, horizon)."""
        maps = getattr(self, name)
        if isinstance(maps, nn.ModuleList):
            return torch.stack([one(series[:, channel]) for channel, one in enumerate(maps)], 1)
        return maps(series)

    def prepare(self, inputs: Tensor, mask: Tensor | None) -> Tensor:
        """Check sizes, and return the inputs without gaps as (batch, channels, lookback)."""
        if inputs.dim() != 3 or inputs.shape[1] != self.lookback:
            shape = tuple(inputs.shape)
            raise ValueError(f"inputs of shape {shape}, expected (batch, {self.lookback}, channels)")
        return (inputs if mask is None else fill_forward(inputs, mask)).transpose(1, 2)


class Linear(_LinearMaps):
    """ŷ = W x + b."""

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Forecast.

        Args:
            inputs: (batch, lookback, channels).
            mask: bool (batch, lookback) or (batch, lookback, channels), False where missing.

        Returns (batch, horizon, channels).
        """
        return self.apply_maps("Linear", self.prepare(inputs, mask)).transpose(1, 2)


class NLinear(_LinearMaps):
    """ŷ = W (x - l) + b + l, with l the last value, without gradient."""

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Forecast; see `Linear.forward`."""
        series = self.prepare(inputs, mask)
        last = series[..., -1:].detach()
        return (self.apply_maps("Linear", series - last) + last).transpose(1, 2)


class DLinear(_LinearMaps):
    """ŷ = W_s s + b_s + W_t t + b_t, with the trend t a moving average over 25 steps and s = x - t.

    The series is lengthened by 12 copies of its first and last values for the average.
    """

    names = ("Linear_Seasonal", "Linear_Trend")
    kernel = 25

    def forward(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Forecast; see `Linear.forward`."""
        series = self.prepare(inputs, mask)
        half = self.kernel // 2
        trend = functional.avg_pool1d(functional.pad(series, (half, half), mode="replicate"), self.kernel, 1)
        seasonal = self.apply_maps("Linear_Seasonal", series - trend)
        return (seasonal + self.apply_maps("Linear_Trend", trend)).transpose(1, 2)


def fill_forward(inputs: Tensor, mask: Tensor) -> Tensor:
    """Replace what is missing by the last observed value, before the first one by that, and 0 where there is none.

    Args:
        inputs: (batch, time, channels).
        mask: bool (batch, time) or (batch, time, channels), False where missing.
    """
    mask = (mask if mask.dim() == 3 else mask[..., None]).expand_as(inputs)
    steps = torch.arange(inputs.shape[1], device=inputs.device)[None, :, None]
    latest = torch.where(mask, steps, -1).cummax(1).values
    first = mask.to(torch.int8).argmax(1, keepdim=True)
    filled = inputs.gather(1, torch.where(latest >= 0, latest, first))
    return torch.where(mask.any(1, keepdim=True), filled, 0.0)
