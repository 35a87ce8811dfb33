"""A mixture of all generators, as a model is trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ...core.errors import UserError
from .augmentation import augment, mix
from .registry import find_prior

#: How often each generator is drawn from.
WEIGHTS: Mapping[str, float] = MappingProxyType(
    {
        "structural": 3.0,
        "seasonal_pattern": 3.0,
        "random_walk": 3.0,
        "forecast_pfn": 2.0,
        "kernel_synth": 1.5,
        "gaussian_process": 1.5,
        "regime_switching": 1.0,
        "sines": 0.7,
        "counts": 0.7,
        "causal_graph": 0.5,
        "level_shifts": 0.5,
        "steps": 0.5,
        "sawtooth": 0.4,
        "anomalies": 0.4,
        "spikes": 0.4,
        "fractal": 0.4,
        "rhythm": 0.4,
        "financial_volatility": 0.3,
        "network_traffic": 0.3,
    }
)


def draw_mixture(
    count: int,
    length: int,
    seed: int,
    device: str | torch.device = "cpu",
    weights: Mapping[str, float] = WEIGHTS,
    groups: int = 8,
) -> Tensor:
    """Draw ``count`` series of ``length`` steps from a mixture of generators, mixed and augmented.

    Args:
        count: of series.
        length: steps.
        seed: the same seed on the same kind of device draws the same series.
        device: where they are drawn.
        weights: of the generators, by name.
        groups: the series are drawn in so many groups of one generator each, which is faster than one at a time.

    Returns:
        float32 (count, length) of mean 0 and deviation 1 (0, where a series is constant), in random order.

    Raises:
        UserError: an unknown generator, or weights that are not positive.
    """
    if count < 1 or groups < 1 or not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
        raise UserError(
            f"a mixture of {count} series in {groups} groups of {len(weights)} generators: need one or more, with "
            "weights of which none is negative and some are positive"
        )
    names = list(weights)
    priors = [find_prior(name) for name in names]
    plan = torch.Generator().manual_seed(seed)  # on the CPU: the plan must not wait for the device
    groups = min(groups, count)
    drawn = torch.multinomial(torch.tensor([weights[name] for name in names]), groups, True, generator=plan).tolist()
    generator = torch.Generator(device).manual_seed(seed)
    parts = []
    for index in sorted(set(drawn)):
        members = [number for number, one in enumerate(drawn) if one == index]
        rows = sum(count // groups + (number < count % groups) for number in members)
        parts.append(priors[index](rows, length, generator))
    series = torch.cat(parts).nan_to_num(0.0, 0.0, 0.0)
    series = series[torch.randperm(count, generator=generator, device=generator.device)]
    return augment(mix(series, generator), generator)
