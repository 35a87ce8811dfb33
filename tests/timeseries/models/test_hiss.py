"""HiSS: chunks, scaling, masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from longscan import create_model, from_pretrained
from longscan.core.errors import UserError
from longscan.timeseries.models import HiSS

SMALL = {"low_width": 16, "high_width": 12, "low_layers": 1, "high_layers": 2, "ratio": 5}


def make(**options: object) -> HiSS:
    torch.manual_seed(0)
    return create_model("hiss", **{"inputs": 3, "targets": 2, **SMALL, **options})  # type: ignore[return-value]


def test_the_hierarchy() -> None:
    """The last output within each chunk is the feature of the chunk; written out."""
    model = make().eval()
    x = 100 + 7 * torch.randn(2, 23, 3)
    targets = 5 + 3 * torch.randn(2, 4, 2)
    model.fit_scaling(x.flatten(0, 1), targets.flatten(0, 1))
    with torch.no_grad():
        flat = x.flatten(0, 1)
        scaled = (x - flat.mean(0)) / flat.std(0, correction=0)
        change = scaled - torch.cat([scaled[:, :1], scaled[:, :-1]], 1)
        rows = model.embed(torch.cat([scaled, change], -1))
        features = torch.stack([model.low(rows[:, 5 * c : 5 * c + 5])[:, -1] for c in range(4)], 1)
        spread = targets.flatten(0, 1).std(0, correction=0)
        expected = model.output(model.high(model.join(features))) * spread + targets.flatten(0, 1).mean(0)
        found = model(x)
        assert found.shape == (2, 4, 2)
        assert torch.allclose(found, expected, atol=1e-3)
        holed = torch.where(torch.rand(targets.shape) < 0.5, targets, torch.nan)
        known = holed.isfinite()
        error = ((found - targets) / spread).square()[known].mean()
        assert torch.allclose(model.loss(x, holed), error, rtol=1e-4)


def test_it_is_causal_and_padding_stays_behind() -> None:
    model = make().eval()
    x = torch.randn(1, 30, 3)
    changed = x.clone()
    changed[:, 17] += 1
    moved = (model.predict(changed) - model.predict(x)).abs().amax((0, 2))
    assert moved[:3].max() < 1e-5
    assert (moved[3:] > 1e-6).all()
    mask = torch.arange(30)[None] < 20
    junk = torch.where(mask[..., None], x, 1e9)
    assert torch.allclose(model.predict(junk, mask)[:, :4], model.predict(x)[:, :4], atol=1e-5)
    assert model.predict(torch.where(mask[..., None], x, torch.nan)).isfinite().all()


def test_it_learns_a_slow_mean(tmp_path: Path) -> None:
    model = make(high_mixer="mamba", low_mixer="s4d", inputs=1, targets=1, dropout=0.0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        x = torch.randn(8, 40, 1, generator=generator)
        y = x.unflatten(1, (8, 5)).mean(2).cumsum(1)
        loss = model.loss(x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = torch.randn(64, 40, 1, generator=generator)
    y = x.unflatten(1, (8, 5)).mean(2).cumsum(1)
    assert F.mse_loss(model.predict(x), y) < 0.3 * y.var()
    model.save_pretrained(tmp_path)
    assert torch.equal(from_pretrained(tmp_path).predict(x), model.predict(x))


def test_mistakes_with_readings() -> None:
    with pytest.raises(UserError, match=r"readings of shape \(2, 4, 3\), expected \(batch, 5 or more, 3\)"):
        make()(torch.randn(2, 4, 3))
    with pytest.raises(UserError, match="ratio=0 must be at least 1"):
        make(ratio=0)
