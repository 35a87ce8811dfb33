"""What published state space layers do to the output of their recurrence: GELU, dropout and a gate."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

GateKind = Literal["glu", "full_glu", "half_glu1", "half_glu2", "gelu", "none"]
KINDS = ("glu", "full_glu", "half_glu1", "half_glu2", "gelu", "none")


class GatedOutput(nn.Module):
    """The nonlinearity behind a linear recurrence, (…, d_model) to the same shape.

    With g = dropout(gelu(y))::

        glu         W [g] split in two halves a, b:  a · sigmoid(b)          (S4; one matrix ``output_linear``)
        full_glu    out1(g) · sigmoid(out2(g))                               (S5, LRU)
        half_glu1   g · sigmoid(out2(g))
        half_glu2   y · sigmoid(out2(g))
        gelu        g
        none        y

    Args:
        d_model: width.
        kind: one of the above.
        dropout: probability, after GELU and after the gate.
        approximate: GELU by its tanh approximation, as JAX computes it, instead of the error function.

    Raises:
        ValueError: for another kind.
    """

    def __init__(self, d_model: int, kind: GateKind, dropout: float = 0.0, approximate: bool = False) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"activation is {kind!r}; expected one of {', '.join(KINDS)}")
        self.kind, self.approximate = kind, approximate
        self.dropout = nn.Dropout(dropout)
        if kind == "glu":
            self.output_linear = nn.Linear(d_model, 2 * d_model)
        if kind == "full_glu":
            self.out1 = nn.Linear(d_model, d_model)
        if kind in ("full_glu", "half_glu1", "half_glu2"):
            self.out2 = nn.Linear(d_model, d_model)

    def forward(self, y: Tensor) -> Tensor:
        """Gate ``y``."""
        if self.kind == "none":
            return y
        g = self.dropout(F.gelu(y, approximate="tanh" if self.approximate else "none"))
        if self.kind == "gelu":
            return g
        if self.kind == "glu":
            return F.glu(self.output_linear(g), dim=-1)
        value = self.out1(g) if self.kind == "full_glu" else g if self.kind == "half_glu1" else y
        return self.dropout(value * self.out2(g).sigmoid())
