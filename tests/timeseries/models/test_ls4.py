"""LS4 and its layer in continuous time."""

from __future__ import annotations

import math

import pytest
import torch

from longscan import create_model
from longscan.core.errors import UserError
from longscan.timeseries.models import LS4
from longscan.timeseries.models.continuous import ContinuousLayer, ContinuousStack


def make(**options: object) -> LS4:
    torch.manual_seed(0)
    sizes = {"lookback": 30, "horizon": 10, "variates": 2, "d_model": 16, "n_layers": 2, "samples": 40}
    return create_model("ls4", **{**sizes, **options})  # type: ignore[return-value]


def test_the_layer_against_the_exact_solution() -> None:
    """x' = A x + u with u held: steps of any length, one state at a time in complex128."""
    torch.manual_seed(1)
    layer = ContinuousLayer(3, 4)
    u, steps = torch.randn(1, 6, 3), torch.rand(1, 6) * 3
    with torch.no_grad():
        y, _ = layer(u, steps)
        A = torch.complex(-layer.A_real.exp(), layer.A_imag).to(torch.complex128)
        C = torch.view_as_complex(layer.C).to(torch.complex128)
        x = torch.zeros(3, 2, dtype=torch.complex128)
        for t in range(6):
            z = A * layer.log_dt.exp()[:, None] * steps[0, t]
            x = torch.exp(z) * x + (torch.exp(z) - 1) / A * u[0, t, :, None]
            expected = 2 * (C * x).sum(-1).real + layer.D * u[0, t]
            assert (y[0, t] - expected).abs().max() < 1e-5


def test_irregular_steps_and_regular_ones_agree() -> None:
    layer = ContinuousLayer(4, 6)
    u = torch.randn(2, 8, 4)
    with torch.no_grad():
        coarse, state = layer(u, torch.full((2, 8), 2.0))
        fine, other = layer(u.repeat_interleave(2, 1), torch.ones(2, 16))
        assert torch.allclose(coarse, fine[:, 1::2], atol=1e-5)
        assert torch.allclose(state, other, atol=1e-5)
        _, unmoved = layer(torch.randn(2, 3, 4), torch.zeros(2, 3), state)  # no time passes
        assert torch.allclose(unmoved, state, atol=1e-6)


def test_the_stack_in_pieces() -> None:
    stack = ContinuousStack(2, 3, 8, 4, 2, 0.0)
    x, steps = torch.randn(2, 9, 2), torch.rand(2, 9) + 0.1
    with torch.no_grad():
        whole, _ = stack(x, steps)
        first, state = stack(x[:, :4], steps[:, :4])
        second, _ = stack(x[:, 4:], steps[:, 4:], state)
    assert torch.allclose(torch.cat([first, second], 1), whole, atol=1e-5)


def test_the_bound_against_torch_distributions() -> None:
    model = make()
    values, observed, steps = torch.randn(3, 12, 2), torch.rand(3, 12, 2) < 0.6, torch.rand(3, 12) + 0.5
    torch.manual_seed(4)
    divergence, negative = model.elbo(values, observed, steps)
    torch.manual_seed(4)
    mean, deviation = model.encode(values, observed, steps)
    z = mean + deviation * torch.randn_like(mean)
    before = torch.cat([model.start.expand(3, 1, -1), z[:, :-1]], 1)
    center, raw = model.prior(before, steps)[0].chunk(2, -1)
    ours = torch.distributions.Normal(mean, deviation)
    expected = torch.distributions.kl_divergence(ours, torch.distributions.Normal(center, raw.clamp(-7, 3).exp())).sum(
        -1
    )
    assert torch.allclose(divergence, expected[observed.any(-1)].mean(), rtol=1e-4)
    density = torch.distributions.Normal(model.decoder(z, steps)[0], 0.1).log_prob(values)
    assert torch.allclose(negative, -density[observed].mean(), rtol=1e-4)


def test_causality_and_the_backward_encoder() -> None:
    values, observed, steps = torch.randn(1, 12, 2), torch.ones(1, 12, 2).bool(), torch.ones(1, 12)
    changed = values.clone()
    changed[:, 8] += 1
    for bidirectional in (False, True):
        model = make(bidirectional=bidirectional)
        moved = (model.encode(changed, observed, steps)[0] - model.encode(values, observed, steps)[0]).abs()[0].amax(-1)
        assert (moved[:8].max() > 1e-6) == bidirectional
        assert moved[8:].max() > 1e-6


def test_training_and_irregular_forecasts() -> None:
    model = make(scaling="none", variates=1, z_dim=2, noise=0.2, n_layers=1, d_state=8)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        times = (torch.rand(count, 40, generator=generator) + 0.5).cumsum(1)
        level = torch.randn(count, 1, generator=generator)
        return times, (level + 0.3 * torch.sin(times / 3)).unsqueeze(-1)

    losses = []
    for _ in range(60):
        times, series = batch(16)
        loss = model.loss(series[:, :30], series[:, 30:], times=times)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) < 0.1 * sum(losses[:10])
    times, series = batch(32)
    forecast = model.predict_irregular(
        series[:, :30], times[:, :30], times[:, 30:], levels=(0.1, 0.9), generator=generator
    )
    assert forecast.samples is not None
    assert forecast.samples.shape == (40, 32, 10, 1)
    assert torch.allclose(forecast.point, forecast.samples.mean(0), atol=1e-5)
    error = (forecast.point - series[:, 30:]).square().mean()
    assert error < 0.3 * series[:, 30:].var(), f"{float(error):.3f} of {float(series[:, 30:].var()):.3f}"
    filled = model.reconstruct(series, times=times)
    assert (filled - series).square().mean() < 0.1 * series.var()
    assert model.generate(3, 20, generator).shape == (3, 20, 1)


def test_mistakes_with_instants() -> None:
    model = make()
    times = torch.arange(30.0).flip(0).expand(1, -1)
    with pytest.raises(UserError, match="times must be"):
        model.predict_irregular(torch.randn(1, 30, 2), times, 31 + torch.arange(3.0).expand(1, -1))
    assert math.isfinite(float(model.loss(torch.randn(1, 30, 2), torch.randn(1, 10, 2)).detach()))
