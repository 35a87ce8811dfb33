"""A learned cycle of each variate, such as its mean day: subtracted from what is read, added to what is forecast."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Cycle(nn.Module):
    """Levels at each position of a cycle (CycleNet, Lin et al. 2024, arXiv:2409.18479).

    CycleNet counts positions from the first row of the table; here a column of the calendar tells them, so that a
    forecast needs no count. What is left to the rest of a model is how a window differs from the usual cycle, which a
    short window alone cannot tell apart from noise.

    Parameters: ``table`` (positions, variates or 1), in deviations of the training rows; zeros at first.

    Args:
        positions: their number, two at least.
        variates: their number; None for a model that takes any number and treats all alike.
    """

    def __init__(self, positions: int, variates: int | None = None) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(positions, variates or 1))

    def forward(self, column: Tensor) -> Tensor:
        """Return the levels at each step, (batch, time, variates or 1).

        Args:
            column: (batch, time), a calendar feature: equally spaced values from -0.5 to 0.5, one for each position;
                NaN where there is padding.
        """
        return self.table[self.positions(column)]

    def positions(self, column: Tensor) -> Tensor:
        """Return the position that each value of a calendar feature means, int64 of the same shape."""
        last = len(self.table) - 1
        return ((column.nan_to_num(-0.5).float() + 0.5) * last).round().long().clamp(0, last)

    @torch.no_grad()
    def fit(self, values: Tensor, column: Tensor) -> None:
        """Set the levels to the mean of the rows at each position, less that of all.

        Args:
            values: (rows, variates or 1), in deviations of the training rows.
            column: (rows,), the calendar feature.
        """
        index = self.positions(column)
        count = torch.bincount(index, minlength=len(self.table)).clamp(min=1).unsqueeze(1)
        total = torch.zeros(self.table.shape, dtype=torch.float64).index_add_(0, index, values.double())
        self.table.copy_(total / count - values.double().mean(0))
