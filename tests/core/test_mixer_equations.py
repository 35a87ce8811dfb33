"""Mixers against their equations, written out token by token."""

from __future__ import annotations

import torch
from mixer_contract import D_MODEL, build, near
from torch import nn


def test_bidirectional_against_its_parts() -> None:
    x = torch.randn(2, 19, D_MODEL)
    for tie in ("none", "projections", "all"):
        for combine in ("add", "average", "multiply"):
            for bias in (False, True):
                both = build(
                    "bidirectional", {"tie": tie, "combine": combine, "mixer": {"name": "mamba", "bias": bias}}
                )
                left = both.forward_mixer
                right = left if tie == "all" else both.reverse_mixer
                a, b = left(x), right(x.flip(1)).flip(1)
                expected = a * b if combine == "multiply" else (a + b) / (2 if combine == "average" else 1)
                near(both(x), expected, 1e-5, f"{tie} {combine} {bias}")
                n_parameters = sum(p.numel() for p in both.parameters())
                one = sum(p.numel() for p in left.parameters())
                projections = sum(p.numel() for m in (left.in_proj, left.out_proj) for p in m.parameters())
                assert n_parameters == {"none": 2 * one, "projections": 2 * one - projections, "all": one}[tie]


def test_hyena_filters_against_the_formula() -> None:
    """Nguyen et al. 2023: grid, sines, window and shift, written out position by position in float64."""
    mixer = build("hyena", {"max_length": 20, "order": 3, "emb_dim": 5, "filter_order": 6}, torch.float64)
    filters = mixer.filter
    kernel = filters(11)
    assert kernel.shape == (2 * D_MODEL, 11)
    rates = torch.linspace(-3.0701134573253943, -15.350567286626973, 2 * D_MODEL, dtype=torch.float64)
    for s in range(11):
        t, w = s / 19, 2 * torch.pi * s / 20
        f = torch.tensor([1e-4, 1.0], dtype=torch.float64)
        a = torch.cat([torch.tensor([t], dtype=torch.float64), (f * w).cos(), -(f * w).sin()])
        for layer in filters.layers:
            a = torch.sin(filters.freq[0] * (layer.weight @ a + layer.bias))
        expected = (filters.out.weight @ a) * (torch.exp(-t * rates.abs()) + 0.05)
        assert (kernel[:, s] - expected).abs().max() < 1e-12


def test_hyena_against_a_direct_sum() -> None:
    """The operator of order 3 with its convolutions written as sums (facts: the last chunk is the value)."""
    mixer = build("hyena", {"max_length": 12, "order": 3}, torch.float64)
    x = torch.randn(1, 9, D_MODEL, dtype=torch.float64)
    with torch.no_grad():
        u = mixer.in_proj(x)[0]
        w = mixer.short_filter.weight[:, 0]
        padded = torch.cat([u.new_zeros(2, u.shape[1]), u])
        u = torch.stack([(padded[t : t + 3] * w.T).sum(0) for t in range(9)]) + mixer.short_filter.bias
        x0, x1, x2, v = u.split(D_MODEL, -1)
        kernels, skips = mixer.filter(9).split(D_MODEL), mixer.filter.skip.split(D_MODEL)
        for gate, kernel, skip in zip((x2, x1), kernels, skips, strict=True):
            v = v * gate
            v = torch.stack([sum(kernel[:, s] * v[t - s] for s in range(t + 1)) for t in range(9)]) + skip * v
        expected = mixer.out_proj(v * x0)
        near(mixer(x)[0], expected, 1e-12)


def test_mamba_against_its_equations() -> None:
    """Gu and Dao 2023, section 3.4, one token and one channel at a time in float64."""
    mixer = build("mamba", {"bias": True, "d_state": 3, "dt_rank": 2}, torch.float64)
    x = torch.randn(7, D_MODEL, dtype=torch.float64)
    with torch.no_grad():
        u, z = mixer.in_proj(x).chunk(2, -1)
        padded = torch.cat([u.new_zeros(3, u.shape[1]), u])
        u = torch.stack([(padded[t : t + 4] * mixer.conv1d.weight[:, 0].T).sum(0) for t in range(7)])
        u = nn.functional.silu(u + mixer.conv1d.bias)
        d, b, c = mixer.x_proj(u).split([2, 3, 3], -1)
        dt = nn.functional.softplus(mixer.dt_proj(d))
        a = -mixer.A_log.exp()
        state, rows = torch.zeros_like(a), []
        for t in range(7):
            state = torch.exp(dt[t, :, None] * a) * state + (dt[t] * u[t])[:, None] * b[t]
            rows.append(state @ c[t] + mixer.D * u[t])
        expected = mixer.out_proj(torch.stack(rows) * nn.functional.silu(z))
        near(mixer(x[None])[0], expected, 1e-12)
