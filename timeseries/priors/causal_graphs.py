"""Series that depend on each other: CauKer (Xie et al. 2025, arXiv:2508.02879), one node of each graph."""

from __future__ import annotations

import torch
from torch import Tensor

from .draws import categories, chance, integers, normal, uniform
from .gaussian_processes import kernel_synth
from .registry import register_prior

_NODES = 6
_PARENTS = 3


@register_prior("causal_graph")
def causal_graph(count: int, length: int, generator: torch.Generator) -> Tensor:
    """Draw the last node of random graphs of six.

    The first nodes are KernelSynth series on a line or an exponential; each other node is a nonlinear function (affine,
    ReLU, sigmoid, sine, remainder, leaky ReLU) of a weighted sum of one to three earlier ones.
    """
    share = torch.linspace(0, 1, length, device=generator.device)
    one = (count, 1)
    roots = kernel_synth(2 * count, length, generator).view(2, count, length)
    nodes: list[Tensor] = []
    for root in roots:
        line = uniform(generator, one, -1, 1) * share + uniform(generator, one, -1, 1)
        curve = uniform(generator, one, 0.5, 1.5) * (uniform(generator, one, 0.5, 1.5) * share).exp()
        nodes.append(root + torch.where(chance(generator, one, 0.5), line, curve))
    for index in range(2, _NODES):
        total = normal(generator, one)
        for _ in range(_PARENTS):
            parent = integers(generator, (count,), 0, index - 1)
            chosen = torch.stack(nodes, 1)[torch.arange(count, device=generator.device), parent]
            weight = normal(generator, one) * chance(generator, one, 0.7)
            total = total + weight * chosen
        nodes.append(_activation(generator, total))
    return nodes[-1] + 0.01 * normal(generator, (count, length))


def _activation(generator: torch.Generator, x: Tensor) -> Tensor:
    one = (len(x), 1)
    kind = categories(generator, one, [1.0] * 6)
    modulus, slope = uniform(generator, one, 1, 5), uniform(generator, one, 0.01, 0.3)
    result = uniform(generator, one, 0.5, 2) * x + uniform(generator, one, -1, 1)
    for number, value in enumerate((x.relu(), x.sigmoid(), x.sin(), x.remainder(modulus), torch.maximum(x, slope * x))):
        result = torch.where(kind == number + 1, value, result)
    return result
