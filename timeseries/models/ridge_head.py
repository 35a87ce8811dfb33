"""Ridge regression onto classes in closed form, strength and temperature chosen by leaving out one row at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Strengths tried, in units of the mean squared norm of a row of standardised features.
STRENGTHS = tuple(10.0 ** (exponent / 2) for exponent in range(-14, 5))
#: Factors tried between regression outputs (-1 … 1) and logits.
_TEMPERATURES = tuple(10.0 ** (exponent / 10) for exponent in range(-5, 21))


class RidgeHead(NamedTuple):
    """logits = features @ weight.T + bias, float64, and what was found on the way."""

    weight: Tensor
    """(classes, features)."""
    bias: Tensor
    """(classes,)."""
    strength: float
    """As in `STRENGTHS`."""
    left_out_accuracy: float
    """Share of rows whose class a regression on all other rows finds."""


def fit_ridge_head(features: Tensor, labels: Tensor, classes: int) -> RidgeHead:
    """Regress ±1 for each class on standardised features, with an intercept.

    The strength is that of the least squared error of rows left out, which the smoother matrix gives without fitting
    again: e_i / (1 - H_ii). The factor that makes logits of the outputs is the one of least cross-entropy of these.
    Fewer rows than features are the rule here, so the equations are solved among rows.

    Args:
        features: (rows, features), finite.
        labels: int64 (rows,).
        classes: their number.
    """
    wide = features.double()
    mean, spread = wide.mean(0), wide.std(0, correction=0)
    # A feature that is constant to rounding says nothing.
    scale = torch.where(spread > 1e-7 * (wide.abs().amax(0) + 1e-30), 1 / spread, 0.0)
    rows = (wide - mean) * scale
    targets = 2 * torch.nn.functional.one_hot(labels, classes).double() - 1
    level = targets.mean(0)
    gram = rows @ rows.T
    unit = float(gram.diagonal().mean()) or 1.0
    values, vectors = torch.linalg.eigh(gram / unit)
    values = values.clamp(min=0)
    # The intercept takes the constant direction, which the Gram matrix of centred rows does not have.
    free = vectors.square() * ((vectors.sum(0).square() / len(rows)) < 0.5)
    rotated = vectors.T @ (targets - level)

    def solve(strength: float) -> tuple[Tensor, Tensor]:
        """Return the dual solution and the errors of rows left out, both (rows, classes)."""
        shrunk = 1 / (values + strength)
        dual = vectors @ (shrunk[:, None] * rotated)
        return dual, dual / (free @ shrunk).clamp(min=1e-300)[:, None]

    strength = min(STRENGTHS, key=lambda one: float(solve(one)[1].square().mean()))
    dual, errors = solve(strength)
    left_out = targets - errors
    factor = min(
        _TEMPERATURES,
        key=lambda one: float(torch.nn.functional.cross_entropy(one * left_out, labels, reduction="mean")),
    )
    weight = (dual.T @ rows / unit) * scale
    accuracy = float((left_out.argmax(1) == labels).double().mean())
    return RidgeHead(factor * weight, factor * (level - weight @ mean), strength, accuracy)
