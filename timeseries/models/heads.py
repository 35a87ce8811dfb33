"""Output heads: what the numbers that a network gives for each step and variate mean, and how they are scored.

Parameters live in scaled units (see ``scaling.py``), those of counts in units of the window's mean size. A raw output
of zero is a standard distribution, so that training begins with sensible intervals. Quantiles come from one inverse
distribution function for each head, which never falls: they cannot cross.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import UserError, nearest
from ..metrics.probabilistic import DECILES
from .scaling import Scale

__all__ = ["DECILES", "ForecastHead", "HeadKind", "create_head"]

HeadKind = Literal["point", "quantiles", "normal", "student_t", "negative_binomial", "samples"]

#: softplus of this is 1: a raw zero becomes a deviation of 1.
_UNIT = math.log(math.e - 1)
#: Smallest deviation, in scaled units: a likelihood must not grow without bound where a series is constant.
_FLOOR = 1e-4


class ForecastHead:
    """The interface of all heads; (…) below is (batch, horizon, variates).

    Attributes:
        size: raw numbers for each step and variate.
    """

    size: int = 1

    @property
    def centre(self) -> Tensor:
        """1 for each raw number that moves with the distribution when a constant is added to the series, else 0."""
        return torch.eye(self.size)[0]

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        """Make named parameters (…) of raw outputs (…, size)."""
        raise NotImplementedError

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        """Return the loss (…) of targets (…) in units of the data.

        Args:
            parameters: of ``parameters_of``.
            target: finite.
            scale: of the windows.
            unit: (variates or 1,): the loss is in these units of the data; None: in units of each window's scale.
        """
        raise NotImplementedError

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        """Return the mean (or the median of a quantile head), (…), in scaled units."""
        raise NotImplementedError

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        """Return the quantiles at ``share``, float64 in (0, 1) of a shape that broadcasts to (count, …), scaled."""
        raise NotImplementedError

    def to_data(self, values: Tensor, scale: Scale) -> Tensor:
        """Bring scaled values (…) or (count, …) to units of the data, float64."""
        return scale.location + scale.scale * values.double()

    def quantiles(self, parameters: dict[str, Tensor], levels: Tensor, scale: Scale) -> Tensor:
        """Return quantiles (levels, …), scaled; ``levels`` is float64 (levels,)."""
        return self.inverse(parameters, levels.view(-1, 1, 1, 1), scale)

    def sample(
        self, parameters: dict[str, Tensor], count: int, generator: torch.Generator | None, scale: Scale
    ) -> Tensor:
        """Return (count, …) independent draws, scaled."""
        shape = (count, *self.point(parameters).shape)
        device = scale.location.device
        drawn = torch.rand(shape, dtype=torch.float64, generator=generator, device=device)
        return self.inverse(parameters, drawn.clamp(1e-12, 1 - 1e-12), scale)

    @staticmethod
    def scaled(target: Tensor, scale: Scale, like: Tensor) -> Tensor:
        """Bring targets to scaled units and the dtype of ``like``."""
        return ((target.double() - scale.location) / scale.scale).to(like.dtype)

    @staticmethod
    def factor(scale: Scale, unit: Tensor | None, like: Tensor) -> Tensor:
        """Return how many units of the loss a scaled unit has."""
        return torch.ones_like(like[:, :1]) if unit is None else (scale.scale / unit).to(like.dtype)


class PointHead(ForecastHead):
    """One value, scored by squared, absolute or Huber (bend at 1) error."""

    def __init__(self, loss: str = "mse") -> None:
        known: dict[str, Callable[[Tensor], Tensor]] = {
            "mse": torch.square,
            "mae": torch.abs,
            "huber": lambda e: torch.where(e.abs() < 1, 0.5 * e * e, e.abs() - 0.5),
        }
        if loss not in known:
            raise UserError(f"point_loss={loss!r} is unknown; {nearest(loss, known)}")
        self.error = known[loss]

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        return {"value": raw[..., 0]}

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        value = parameters["value"]
        return self.error((value - self.scaled(target, scale, value)) * self.factor(scale, unit, value))

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["value"]

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        raise UserError("this model gives points alone; train it with head='quantiles' (or another) for intervals")


class QuantileHead(ForecastHead):
    """Quantiles that rise by construction: the middle one, and softplus of a raw number from each to the next.

    Other levels are interpolated, and beyond the outermost continued, linearly in the quantile of the standard normal
    distribution. Scored by twice the pinball loss, averaged over levels: an approximation of the CRPS.

    Args:
        levels: in (0, 1), rising, two at least.

    Raises:
        UserError: levels that are not so.
    """

    def __init__(self, levels: Sequence[float] = DECILES) -> None:
        found = np.asarray(levels, dtype=np.float64)
        if len(found) < 2 or (np.diff(found) <= 0).any() or found[0] <= 0 or found[-1] >= 1:
            raise UserError(f"quantile_levels {list(levels)} must be two or more, rising, between 0 and 1")
        self.levels = tuple(found.tolist())
        self.size = len(found)
        self.middle = int(np.abs(found - 0.5).argmin())
        self.knots = torch.special.ndtri(torch.from_numpy(found))

    @property
    def centre(self) -> Tensor:
        return torch.eye(self.size)[self.middle]

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        c, z = self.middle, self.knots.to(raw)
        middle = raw[..., c : c + 1] + z[c]
        steps = F.softplus(raw + _UNIT)
        above = middle + (steps[..., c + 1 :] * (z[c + 1 :] - z[c:-1])).cumsum(-1)
        below = middle - (steps[..., :c] * (z[1 : c + 1] - z[:c])).flip(-1).cumsum(-1).flip(-1)
        return {"quantiles": torch.cat([below, middle, above], -1)}

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        quantiles = parameters["quantiles"]
        level = quantiles.new_tensor(self.levels)
        error = self.scaled(target, scale, quantiles).unsqueeze(-1) - quantiles
        pinball = torch.maximum(level * error, (level - 1) * error).mean(-1)
        return 2 * pinball * self.factor(scale, unit, pinball)

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        half = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64, device=parameters["quantiles"].device)
        return self._interpolate(parameters["quantiles"], half)[0]

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        return self._interpolate(parameters["quantiles"], share)

    def _interpolate(self, quantiles: Tensor, share: Tensor) -> Tensor:
        knots, z = self.knots.to(share.device), torch.special.ndtri(share)
        upper = torch.searchsorted(knots, z).clamp(1, self.size - 1)
        weight = (z - knots[upper - 1]) / (knots[upper] - knots[upper - 1])
        shape = (len(share), *quantiles.shape[:-1])
        table = quantiles.double().expand(len(share), *quantiles.shape)
        high = table.gather(-1, upper.expand(shape).unsqueeze(-1)).squeeze(-1)
        low = table.gather(-1, (upper - 1).expand(shape).unsqueeze(-1)).squeeze(-1)
        return low + weight * (high - low)


class NormalHead(ForecastHead):
    """Mean and standard deviation, scored by the negative log likelihood."""

    size = 2

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        return {"mean": raw[..., 0], "deviation": F.softplus(raw[..., 1] + _UNIT) + _FLOOR}

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        mean, deviation = parameters["mean"], parameters["deviation"]
        z = (self.scaled(target, scale, mean) - mean) / deviation
        units = self.factor(scale, unit, mean).log()
        return 0.5 * z * z + deviation.log() + units + 0.5 * math.log(2 * math.pi)

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["mean"]

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        return parameters["mean"].double() + parameters["deviation"].double() * torch.special.ndtri(share)


class StudentTHead(ForecastHead):
    """Location, scale and degrees of freedom (above 2), scored by the negative log likelihood."""

    size = 3

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        spread = F.softplus(raw[..., 1] + _UNIT) + _FLOOR
        return {"mean": raw[..., 0], "spread": spread, "freedom": 2 + F.softplus(raw[..., 2] + 2)}

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        mean, spread, freedom = parameters["mean"], parameters["spread"], parameters["freedom"]
        z = (self.scaled(target, scale, mean) - mean) / spread
        half = freedom / 2
        normaliser = torch.lgamma(half + 0.5) - torch.lgamma(half) - 0.5 * (math.pi * freedom).log() - spread.log()
        tail = (half + 0.5) * torch.log1p(z * z / freedom)
        return tail - normaliser + self.factor(scale, unit, mean).log()

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["mean"]

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        from scipy.special import stdtrit

        mean, spread, freedom = (parameters[name].double() for name in ("mean", "spread", "freedom"))
        z = stdtrit(freedom.detach().cpu().numpy()[None], share.cpu().numpy())
        return mean + spread * torch.from_numpy(z).to(mean.device)


class NegativeBinomialHead(ForecastHead):
    """Counts: mean μ, in units of the window's mean size, and α, with variance μ + α μ²; negative log likelihood.

    The loss has no unit. Targets must not be negative (looked for on a CPU only, where it costs nothing).
    """

    size = 2

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        return {
            "mean": F.softplus(raw[..., 0] + _UNIT) + _FLOOR,
            "alpha": F.softplus(raw[..., 1] + _UNIT) + _FLOOR,
        }

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        if target.device.type == "cpu" and bool((target < 0).any()):
            raise UserError(f"a target is {float(target.min()):g}; a negative binomial head is for counts, from 0 up")
        mean = parameters["mean"] * scale.magnitude.to(parameters["mean"].dtype)
        count, alpha = target.to(mean.dtype), parameters["alpha"]
        shape = 1 / alpha
        # log(r / (r + μ)) = -log1p(α μ), log(μ / (r + μ)) = log(α μ) - log1p(α μ)
        odds = alpha * mean
        coefficient = torch.lgamma(count + shape) - torch.lgamma(shape) - torch.lgamma(count + 1)
        return (shape + count) * torch.log1p(odds) - count * odds.log() - coefficient

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["mean"]

    def to_data(self, values: Tensor, scale: Scale) -> Tensor:
        return scale.magnitude * values.double()

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        from scipy.stats import nbinom

        mean = parameters["mean"].double() * scale.magnitude
        shape = 1 / parameters["alpha"].double()
        success = shape / (shape + mean)
        arrays = (part.detach().cpu().numpy() for part in (shape, success))
        counts = nbinom.ppf(share.cpu().numpy(), *(array[None] for array in arrays))
        return torch.from_numpy(counts).to(mean.device) / scale.magnitude


class SamplesHead(ForecastHead):
    """An ensemble of values for each step, scored by the fair CRPS: E|X - y| - ½ E|X - X'| over distinct pairs.

    Args:
        count: values for each step, two at least.
    """

    def __init__(self, count: int = 32) -> None:
        if count < 2:
            raise UserError(f"samples={count}: a samples head needs two or more")
        self.size = count

    @property
    def centre(self) -> Tensor:
        return torch.ones(self.size)

    def parameters_of(self, raw: Tensor) -> dict[str, Tensor]:
        z = torch.special.ndtri((torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size)
        return {"samples": raw + z.to(raw)}

    def loss(self, parameters: dict[str, Tensor], target: Tensor, scale: Scale, unit: Tensor | None) -> Tensor:
        samples = parameters["samples"]
        n = self.size
        near = (samples - self.scaled(target, scale, samples).unsqueeze(-1)).abs().mean(-1)
        # Σ over pairs |x_i - x_j| of sorted values is Σ (2 i - n - 1) x_i.
        weights = 2 * torch.arange(1, n + 1, device=samples.device, dtype=samples.dtype) - n - 1
        spread = (samples.sort(-1).values * weights).sum(-1) / (n * (n - 1))
        return (near - spread) * self.factor(scale, unit, near)

    def point(self, parameters: dict[str, Tensor]) -> Tensor:
        return parameters["samples"].mean(-1)

    def inverse(self, parameters: dict[str, Tensor], share: Tensor, scale: Scale) -> Tensor:
        ordered = parameters["samples"].double().sort(-1).values
        position = (share * self.size - 0.5).clamp(0, self.size - 1)
        lower = position.floor().long().clamp(max=self.size - 2)
        shape = (len(share), *ordered.shape[:-1])
        table = ordered.expand(len(share), *ordered.shape)
        low = table.gather(-1, lower.expand(shape).unsqueeze(-1)).squeeze(-1)
        high = table.gather(-1, (lower + 1).expand(shape).unsqueeze(-1)).squeeze(-1)
        return low + (position - lower) * (high - low)


def create_head(
    kind: HeadKind, levels: Sequence[float] = DECILES, samples: int = 32, point_loss: str = "mse"
) -> ForecastHead:
    """Build a head by name.

    Raises:
        UserError: unknown name, or options that do not fit it.
    """
    heads: dict[str, Callable[[], ForecastHead]] = {
        "point": lambda: PointHead(point_loss),
        "quantiles": lambda: QuantileHead(levels),
        "normal": NormalHead,
        "student_t": StudentTHead,
        "negative_binomial": NegativeBinomialHead,
        "samples": lambda: SamplesHead(samples),
    }
    if kind not in heads:
        raise UserError(f"head={kind!r} is unknown; {nearest(kind, get_args(HeadKind))}")
    return heads[kind]()
