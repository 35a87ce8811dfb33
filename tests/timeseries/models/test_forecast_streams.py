"""Streams: constant time and memory, resumed from a file, equal to the whole forward pass."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from longscan import create_model
from longscan.core.errors import UserError
from longscan.timeseries.models import ForecastStream, SequenceForecaster
from longscan.timeseries.models.fused_steps import fused_step

VARIATES, HORIZON, STEPS, BEGIN = 3, 12, 30, 9


def make(**options: Any) -> SequenceForecaster:
    torch.manual_seed(0)
    sizes = {"lookback": 24, "horizon": HORIZON, "d_model": 24, "head": "quantiles"}
    model = create_model("mamba_forecaster", **{**sizes, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()  # type: ignore[return-value]


def series() -> Tensor:
    past = 50 + 5 * torch.randn(2, STEPS, VARIATES, generator=torch.Generator().manual_seed(1))
    past[0, 4] = torch.nan
    past[:, 0, 1] = torch.nan  # begins with what is missing
    past[1, 13:16, 2] = torch.nan
    return past


@pytest.mark.parametrize("mixer", ["mamba", "s4d", "s4", "s5", "lru", "mega_ema", "gss", "mlstm", "slstm", "attention"])
@pytest.mark.parametrize("decoder", ["last", "rollout"])
def test_updates_equal_the_whole_pass(mixer: str, decoder: str, tmp_path: Path) -> None:
    past = series()
    for patch in (1, 4):
        model = make(mixer=mixer, decoder=decoder, patch=patch, channel_mixer="gated_mlp")
        stream = ForecastStream(model, past[:, :BEGIN])
        scale = stream.state.scale
        for t in range(BEGIN, STEPS):
            if t == 17:  # and goes on from a file
                stream.save(tmp_path / "state.safetensors")
                stream = ForecastStream(model, past[:, :2])
                stream.load(tmp_path / "state.safetensors")
                assert stream.steps == 17
            forecast = stream.update(past[:, t], levels=(0.1, 0.5))
            whole = (t + 1) // patch * patch
            with torch.no_grad():
                expected = model(past[:, :whole], scale=scale).forecast((0.1, 0.5))
            passed = t + 1 - whole
            assert forecast.point.shape == (2, HORIZON - passed, VARIATES)
            difference = (forecast.quantiles - expected.quantiles[:, :, passed:]).abs() / scale.scale
            assert difference.max() < 1e-4, f"step {t}"


@pytest.mark.parametrize("scaling", ["none", "standard"])
def test_a_constant_scale_needs_no_history(scaling: str) -> None:
    past = series()
    model = make(scaling=scaling, variates=VARIATES)
    model.fit_scaling(past.flatten(0, 1))
    stream = ForecastStream(model, batch_size=2)
    for t in range(STEPS):
        forecast = stream.update(past[:, t])
    with torch.no_grad():
        expected = model(past).point()
    assert (forecast.point - expected).abs().max() < 1e-4
    # A history read at once, and the same read step by step, leave one state.
    other = ForecastStream(model, past)
    for one, two in zip(pytree.tree_leaves(stream.state), pytree.tree_leaves(other.state), strict=True):
        assert torch.allclose(torch.as_tensor(one), torch.as_tensor(two), atol=1e-5)


def test_covariates_in_a_stream() -> None:
    past = series()
    generator = torch.Generator().manual_seed(2)
    columns, future = torch.randn(2, STEPS, 2, generator=generator), torch.randn(2, HORIZON, 1, generator=generator)
    static = torch.randn(2, 1, generator=generator)
    for decoder in ("last", "rollout"):
        model = make(
            decoder=decoder, past_covariates=2, future_covariates=1, static_covariates=1,
            variates=VARIATES, variate_embedding=True,
        )  # fmt: skip
        stream = ForecastStream(model, past[:, :BEGIN], covariates=columns[:, :BEGIN], static=static)
        scale = stream.state.scale
        for t in range(BEGIN, STEPS):
            forecast = stream.update(past[:, t], columns[:, t], future)
        with torch.no_grad():
            expected = model(past, None, columns, future, static, scale=scale).point()
        assert (forecast.point - expected).abs().max() < 1e-3


@pytest.mark.parametrize("mixer", ["mamba", "s4d", "mlstm"])
def test_memory_is_constant(mixer: str) -> None:
    model = make(mixer=mixer)
    stream = ForecastStream(model, series())

    def size() -> int:
        return sum(torch.as_tensor(leaf).numel() for leaf in pytree.tree_leaves(stream.state))

    before = size()
    for _ in range(200):
        stream.update(torch.randn(2, VARIATES))
    assert size() == before


def test_a_forecast_stays_finite_through_a_gap() -> None:
    stream = ForecastStream(make(), series())
    for _ in range(50):
        forecast = stream.update(torch.full((2, VARIATES), torch.nan), levels=(0.1, 0.9))
    assert forecast.point.isfinite().all()
    assert forecast.quantiles.isfinite().all()


def test_an_update_is_fast() -> None:
    """4 layers of width 64 take well under a millisecond of an idle core; the bound leaves room for a busy one."""
    model = make(n_layers=4, d_model=64, lookback=96)
    stream = ForecastStream(model, torch.randn(1, 50, 1))
    y = torch.randn(1)
    times = []
    for _ in range(60):
        begin = time.perf_counter()
        stream.predict(y)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1e-3, f"{1e3 * min(times):.2f} ms"


def test_mistakes_with_streams(tmp_path: Path) -> None:
    past = series()
    with pytest.raises(UserError, match="reads whole windows"):
        ForecastStream(make(decoder="flatten"), past)
    with pytest.raises(UserError, match="reads whole windows"):
        ForecastStream(make(mixer={"name": "bidirectional", "mixer": "mamba"}), past)
    with pytest.raises(UserError, match="reads whole windows"):
        ForecastStream(create_model("nlinear", lookback=9, horizon=3), past)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="scaling='instance' is a window's; give the stream a history"):
        ForecastStream(make(), variates=3)
    with pytest.raises(UserError, match="patch=16 is longer than horizon=12"):
        ForecastStream(make(patch=16), past)
    ForecastStream(make(), past).save(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match="holds a state of other sizes"):
        ForecastStream(make(d_model=16), past).load(tmp_path / "a.safetensors")


@pytest.mark.parametrize("channel_mixer", [None, "gated_mlp"])
def test_fused_steps_equal_those_of_the_stack(channel_mixer: str | None) -> None:
    """Mamba's blocks with biases and weighted norms are fused, S4D's between them are not."""
    mixers: list[Any] = [{"name": "mamba", "bias": True, "d_state": 5}, "s4d", {"name": "mamba", "conv_bias": False}]
    model = make(layers=[{"mixer": mixer, "channel_mixer": channel_mixer} for mixer in mixers], n_layers=1)
    step = fused_step(model.backbone)
    assert step != model.backbone.step
    ours, theirs = model.backbone.init_state(3), model.backbone.init_state(3)
    with torch.inference_mode():
        for _ in range(20):
            x = torch.randn(3, 24)
            found, ours = step(x, ours)
            expected, theirs = model.backbone.step(x, theirs)
            assert (found - expected).abs().max() < 2e-5 * expected.abs().max()
    for one, two in zip(pytree.tree_leaves(ours), pytree.tree_leaves(theirs), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_what_cannot_be_fused_steps_as_usual() -> None:
    for model in (make(mixer="s4d"), make().double(), make(norm="layernorm")):
        assert fused_step(model.backbone) == model.backbone.step
