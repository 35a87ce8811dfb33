"""S4Compressor: streaming against the parallel form, controls, causality."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import longscan
from longscan.audio.models import S4Compressor
from longscan.audio.models.s4_compressor import scaled_level
from longscan.core.errors import UserError
from longscan.core.mixers import clone_state


def _model(dtype: torch.dtype = torch.float32, **options: Any) -> S4Compressor:
    """A model whose norms have seen audio and whose slopes and skips are no longer the initial ones."""
    model = longscan.create_model("s4_compressor", **options).to(dtype)
    assert isinstance(model, S4Compressor)
    channels, controls = model.config.in_channels, model.config.n_controls
    with torch.no_grad():
        for block in model.blocks:
            block.skip.uniform_(-1, 1)
            block.inner_activation.weight.fill_(0.1)
            block.outer_activation.weight.fill_(-0.3)
        for _ in range(20):
            conditions = torch.rand(4, controls, dtype=dtype) if controls else None
            model(torch.rand(4, 500, channels, dtype=dtype) - 0.5, conditions)
    return model.eval()


def _process(model: S4Compressor, x: Tensor, controls: Tensor | None, sizes: tuple[int, ...]) -> Tensor:
    state, outputs, start, index = model.init_state(len(x)), [], 0, 0
    while start < x.shape[1]:
        stop = min(start + sizes[index % len(sizes)], x.shape[1])
        y, state = model.process(x[:, start:stop], state, controls)
        outputs.append(y)
        start, index = stop, index + 1
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize(
    "options", [{}, {"in_channels": 2, "d_state": 8}, {"n_controls": 0}, {"output": "gain", "in_channels": 2}], ids=str
)
@torch.no_grad()
def test_blocks_of_any_size(options: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model = _model(dtype, **options)
    x = torch.rand(2, 3000, model.config.in_channels, dtype=dtype) * 2 - 1
    controls = torch.rand(2, model.config.n_controls, dtype=dtype) if model.config.n_controls else None
    expected = model(x, controls)
    assert float(expected.std()) > 0.001
    whole = _process(model, x, controls, (3000,))
    assert float((whole - expected).abs().max() / expected.abs().max()) <= tolerance
    for sizes in ((64,), (1,), (7, 0, 500, 33)):
        # Samples are taken one after the other, so that not a bit depends on the cuts.
        assert torch.equal(_process(model, x, controls, sizes), whole)


@torch.no_grad()
def test_controls_change_the_output_and_may_change_between_blocks() -> None:
    model = _model()
    x = torch.rand(1, 400, 1) - 0.5
    low, high = torch.zeros(1, 2), torch.ones(1, 2)
    assert not torch.allclose(model(x, low), model(x, high), atol=1e-3)
    state = model.init_state(1)
    first, state = model.process(x[:, :200], state, low)
    snapshot = clone_state(state)
    second, _ = model.process(x[:, 200:], state, high)
    torch.testing.assert_close(first, model(x, low)[:, :200], rtol=1e-4, atol=1e-5)
    again, _ = model.process(x[:, 200:], snapshot, low)
    torch.testing.assert_close(again, model(x, low)[:, 200:], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(second, again, atol=1e-3)


@torch.no_grad()
def test_the_future_has_no_influence() -> None:
    model = _model(torch.float64)
    x = torch.rand(1, 300, 1, dtype=torch.float64)
    changed = x.clone()
    changed[:, 123:] = -changed[:, 123:]
    controls = torch.rand(1, 2, dtype=torch.float64)
    before, after = model(x, controls), model(changed, controls)
    torch.testing.assert_close(after[:, :123], before[:, :123], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(after[:, 123], before[:, 123])


def test_outputs_stay_within_full_scale() -> None:
    model = _model()
    y = model(1e6 * torch.randn(1, 200, 1), torch.ones(1, 2))
    assert y.isfinite().all()
    assert float(y.detach().abs().max()) <= 1


@torch.no_grad()
def test_a_gain() -> None:
    """The output is the input times a positive factor within bounds, which levels decide."""
    model = _model(torch.float64, output="gain")
    controls = torch.rand(1, 2, dtype=torch.float64)
    x = torch.rand(1, 300, 1, dtype=torch.float64) - 0.5
    x[:, 100:120] = 0
    y = model(x, controls)
    assert not y[:, 100:120].any()
    assert (y[x != 0] / x[x != 0] > 0).all()
    for size in (1e-30, 1e30):
        extreme = size * torch.randn(1, 50, 1, dtype=torch.float64)
        y = model(extreme, controls)
        assert y.isfinite().all()
        assert (y / extreme).log().abs().max() <= 10 + 1e-9
        torch.testing.assert_close(model.process(extreme, model.init_state(1), controls)[0], y, rtol=1e-8, atol=0)
    levels = scaled_level(torch.tensor([0.0, 1e-6, 1e-3, -1.0, 1e3], dtype=torch.float64))
    torch.testing.assert_close(levels, torch.tensor([-1, -1, 0, 1, 2], dtype=torch.float64))
    # A gain that no feature changes: exp of the decoder's bias.
    model.decoder.weight.zero_()
    model.decoder.bias.fill_(-0.7)
    torch.testing.assert_close(model(x, controls), x * math.exp(-0.7))


def test_step_sizes() -> None:
    dt = longscan.create_model("s4_compressor", dt_min=1e-4, dt_max=2e-4).blocks[0].mixer.kernel.dt()
    assert 1e-4 * 0.999 <= float(dt.detach().min()) <= float(dt.detach().max()) <= 2e-4 * 1.001


@torch.no_grad()
def test_waveforms_without_a_channel_axis_and_saved_models(tmp_path: Path) -> None:
    model = _model()
    x, controls = torch.rand(2, 100), torch.rand(2, 2)
    expected = model(x, controls)
    assert expected.shape == x.shape
    torch.testing.assert_close(model.process(x, model.init_state(2), controls)[0], expected, rtol=1e-4, atol=1e-5)
    model.save_pretrained(tmp_path)
    assert torch.equal(longscan.from_pretrained(tmp_path)(x, controls), expected)


def test_errors() -> None:
    model = _model()
    x = torch.zeros(1, 10, 1)
    with pytest.raises(UserError, match="0 controls were given, this model has 2"):
        model(x)
    with pytest.raises(UserError, match="3 controls were given"):
        model.process(x, model.init_state(1), torch.zeros(1, 3))
    with pytest.raises(UserError, match="2 channels, this model reads 1"):
        model(torch.zeros(1, 10, 2), torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"output is 'gian'; .*gain"):
        longscan.create_model("s4_compressor", output="gian")
    with pytest.raises(UserError, match="control_names has 1"):
        longscan.create_model("s4_compressor", control_names=("gain",))
