"""The peer of the speed benchmark: its size, and that it is the model it is named after."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def test_patchtst_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from benchmarks.patchtst import PatchTST

    torch.manual_seed(0)
    model = PatchTST(lookback=64, horizon=10, patch=16, stride=8, d_model=16, layers=2, heads=4, d_inner=32).eval()
    assert len(model.position) == (64 - 16) // 8 + 2
    past = 50 + 7 * torch.randn(3, 64, 5)
    found = model(past)
    assert found.shape == (3, 10, 5)
    # Channels are apart, and level and scale of a window pass through.
    other = past.clone()
    other[:, :, 1:] = 0
    assert torch.allclose(model(other)[:, :, 0], found[:, :, 0], atol=1e-3)
    assert torch.allclose(model(3 * past + 9), 3 * found + 9, rtol=1e-4)
    # Every token sees every other: the first value counts.
    past[:, 0] += 20
    assert (model(past) - found).abs().min() > 0
    published = PatchTST()
    assert sum(parameter.numel() for parameter in published.parameters()) == 1_194_336
