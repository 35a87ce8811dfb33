"""Scaling inside a forecaster, so that it reads and gives the units of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from ...core.errors import UserError, nearest

ScalingKind = Literal["none", "standard", "instance", "robust"]

#: Added to the variance of a window, in squared standard deviations of the training rows (RevIN).
_EPSILON = 1e-5
#: A window whose deviation is below this share of its size is constant to rounding.
_CONSTANT = 1e-7
#: Robustly scaled inputs are cut here: a spike must not drown the rest (TempoPFN).
_ROBUST_LIMIT = 50.0


class Scale(NamedTuple):
    """What one window is scaled with: data = location + scale · scaled. Each (batch, 1, variates), float64."""

    location: Tensor
    scale: Tensor
    """Above 0."""
    magnitude: Tensor
    """Size of the values, above 0: what counts, which cannot be shifted, are scaled with."""


class Scaling(nn.Module):
    """Location and scale of each window and variate, over what was observed.

    - ``none``: 0 and 1.
    - ``standard``: mean and standard deviation (ddof 0) of the training rows, given to ``fit``; until then 0 and 1.
    - ``instance``: mean and standard deviation of the window (RevIN, Kim et al. 2022, ICLR). To the variance is added
      1e-5 in squared units of the training rows' deviation, where ``fit`` was called and ``variates`` is known.
    - ``robust``: median and interquartile range / 1.349 of the window (its deviation, where that range is 0); scaled
      inputs are cut at ±50.

    With ``affine`` a learned scale and shift of each variate follows, and is undone at the output.

    Buffers, stored with the weights: ``mean``, ``std`` and ``magnitude`` of the training rows, float64 (variates or
    1,), and ``fitted``.

    Args:
        kind: see above.
        variates: their number; None for a model that takes any number and treats all alike.
        affine: see above.

    Raises:
        UserError: unknown kind.
    """

    mean: Tensor
    std: Tensor
    magnitude: Tensor
    fitted: Tensor

    def __init__(self, kind: ScalingKind = "instance", variates: int | None = None, affine: bool = False) -> None:
        super().__init__()
        if kind not in get_args(ScalingKind):
            raise UserError(f"scaling={kind!r} is unknown; {nearest(kind, get_args(ScalingKind))}")
        self.kind, self.variates = kind, variates
        size = variates or 1
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("std", torch.ones(size, dtype=torch.float64))
        self.register_buffer("magnitude", torch.ones(size, dtype=torch.float64))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.weight = nn.Parameter(torch.ones(size)) if affine else None
        self.bias = nn.Parameter(torch.zeros(size)) if affine else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # half(), bfloat16() and to(dtype) take the weights alone: a level of 10000 is none of bfloat16's.
        kept = {name: getattr(self, name) for name in ("mean", "std", "magnitude")}
        super()._apply(fn, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    @property
    def constant(self) -> bool:
        """Whether the scale does not depend on the window, so that a stream needs no history to start."""
        return self.kind in ("none", "standard")

    @torch.no_grad()
    def fit(self, values: Tensor, observed: Tensor | None = None) -> None:
        """Learn mean and deviation of the training rows, of all variates together where ``variates`` is None.

        Args:
            values: (rows, variates), NaN where missing.
            observed: bool of that shape, False where missing.

        Raises:
            UserError: another number of variates, or one without a single observation.
        """
        values = values.double().to(self.mean.device)
        if self.variates is None:
            values = values.reshape(-1, 1)
            observed = None if observed is None else observed.reshape(-1, 1)
        if values.dim() != 2 or values.shape[1] != len(self.mean):
            raise UserError(f"training rows of shape {tuple(values.shape)}, expected (rows, {len(self.mean)})")
        known = known_mask(values, observed)
        if not known.any(0).all():
            raise UserError(f"variate {int(known.any(0).long().argmin())} has no observed training row; drop it")
        mean, variance, size = _moments(values, known, 0)
        std = variance.sqrt()
        self.mean.copy_(mean[0])
        self.std.copy_(torch.where(std > _CONSTANT * size, std, torch.ones_like(std))[0])
        self.magnitude.copy_(torch.where(size > 0, size, torch.ones_like(size))[0])
        self.fitted.fill_(True)

    def measure(self, values: Tensor, observed: Tensor) -> Scale:
        """Return the scale of each window.

        Args:
            values: (batch, time, variates), finite where observed.
            observed: bool of that shape.
        """
        shape = (values.shape[0], 1, values.shape[2])
        zeros = torch.zeros(shape, dtype=torch.float64, device=values.device)
        if self.kind == "none":
            return self._affine(Scale(zeros, zeros + 1, zeros + 1))
        if self.kind == "standard":
            return self._affine(Scale(zeros + self.mean, zeros + self.std, zeros + self.magnitude))
        wide = values.double()
        location, variance, magnitude = _moments(wide, observed, 1)
        any_known = observed.any(1, keepdim=True)
        magnitude = torch.where(magnitude > 0, magnitude, torch.where(any_known, 1.0, zeros + self.magnitude))
        unit = self.std if self.variates is not None else torch.zeros_like(self.std)
        spread = (variance + torch.where(self.fitted, _EPSILON, 0.0) * unit.square()).sqrt()
        if self.kind == "robust":
            points = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device=values.device)
            holed = torch.where(observed, wide, torch.nan)
            low, location, high = torch.nanquantile(holed, points, dim=1, keepdim=True).nan_to_num().unbind(0)
            width = (high - low) / 1.349
            spread = torch.where(spread > _CONSTANT * magnitude, spread, magnitude)
            spread = torch.where(width > _CONSTANT * torch.maximum(low.abs(), high.abs()), width, spread)
        else:
            spread = torch.where(spread > _CONSTANT * magnitude, spread, magnitude)
        location = torch.where(any_known, location, zeros + self.mean)
        spread = torch.where(any_known, spread, zeros + self.std)
        return self._affine(Scale(location, spread, magnitude))

    def apply(self, values: Tensor, scale: Scale) -> Tensor:  # type: ignore[override]
        """Return scaled values, float32."""
        scaled = (values.double() - scale.location) / scale.scale
        return (scaled.clamp(-_ROBUST_LIMIT, _ROBUST_LIMIT) if self.kind == "robust" else scaled).float()

    def _affine(self, scale: Scale) -> Scale:
        """(x - μ)/σ · γ + β is (x - μ')/σ' with σ' = σ/γ and μ' = μ - β σ/γ; γ counts by its size, so σ' > 0."""
        if self.weight is None or self.bias is None:
            return scale
        spread = scale.scale / (self.weight.double().abs() + _EPSILON**2)
        return Scale(scale.location - self.bias.double() * spread, spread, scale.magnitude)


def known_mask(values: Tensor, observed: Tensor | None) -> Tensor:
    """Return what is observed and finite, bool of the shape of ``values`` (``observed`` may lack the last axis)."""
    known = values.isfinite()
    if observed is None:
        return known
    observed = observed.bool()
    return known & (observed if observed.dim() == values.dim() else observed.unsqueeze(-1))


def _moments(values: Tensor, known: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance (two passes) and mean absolute value along ``axis``, which is kept; 0 where unknown."""
    values = torch.where(known, values, 0.0)
    count = known.sum(axis, keepdim=True).clamp(min=1)
    mean = values.sum(axis, keepdim=True) / count
    centred = torch.where(known, values - mean, 0.0)
    return mean, centred.square().sum(axis, keepdim=True) / count, values.abs().sum(axis, keepdim=True) / count
