"""DiffWave against the original implementation, its schedule and its sampler."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import longscan
from longscan.audio.models import DiffWave
from longscan.audio.models.noise_schedule import NoiseSchedule
from longscan.core.errors import UserError


def _arrays(folder: Path, name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(folder / f"{name}.npz").items()}


def _close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.shape == expected.shape
    difference = float((found.detach().double() - expected.double()).abs().max() / expected.double().abs().max())
    assert difference <= tolerance, f"relative difference {difference:.1e}"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_golden(dtype: torch.dtype, golden: Path) -> None:
    folder = golden / "audio" / "diffwave_sashimi_a"
    config = json.loads((folder / "config.json").read_text())
    inputs, outputs = _arrays(folder, "inputs"), _arrays(folder, "outputs")
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        # These outputs were made without the CUDA extension, by the fallback that leaves out half of each pair.
        model = longscan.from_pretrained(folder / "model.safetensors", conjugate_pairs=False)
    finally:
        torch.set_default_dtype(before)
    assert isinstance(model, DiffWave)
    tolerance = config["rtol64" if dtype == torch.float64 else "rtol32"]
    steps = inputs["diffusion_steps"].flatten()
    found = model(inputs["audio"].transpose(1, 2).to(dtype), steps)
    _close(found.detach().transpose(1, 2), outputs["eps"], tolerance)
    _close(model.embed_step(steps), outputs["step_embedding_float32"], 1e-4)
    if dtype == torch.float32:
        reversed_ = model.schedule.reverse(inputs["audio"], outputs["eps_float32"], 150, inputs["z"])
        _close(reversed_, outputs["reverse_step_t150_from_eps"], 1e-5)


def test_conjugate_pairs_are_the_default(golden: Path) -> None:
    """The kernel of weights as they were trained is that of S4, the recurrence run forward and backward."""
    model = longscan.from_pretrained(golden / "audio" / "diffwave_sashimi_a" / "model.safetensors")
    kernel = model.backbone.down[0].layer.kernel
    system = kernel.recurrence(1.0, 64)
    state, found = torch.zeros(1, *kernel.state_shape, dtype=torch.complex128), []
    for t in range(16):
        y, state = system.step(state, torch.full((1, kernel.d_model), float(t == 0)))
        found.append(y[0])
    _close(kernel(64)[..., :16].detach(), torch.stack(found, -1), 1e-5)


@pytest.mark.parametrize(("steps", "beta_max"), [(200, 0.02), (50, 0.05)])
def test_schedules(steps: int, beta_max: float, golden: Path) -> None:
    outputs = _arrays(golden / "audio" / "diffwave_sashimi_a", "outputs")
    schedule = NoiseSchedule(steps, 1e-4, beta_max)
    _close(schedule.beta, outputs[f"T{steps}_Beta"], 1e-6)
    _close(schedule.alpha_bar, outputs[f"T{steps}_Alpha_bar"], 1e-5)
    _close(schedule.sigma, outputs[f"T{steps}_Sigma"], 1e-4)


@pytest.mark.parametrize(
    ("d_model", "parameters"), [(128, 23_470_971), (64, 7_734_267), (32, 2_990_139)], ids=["d128", "d64", "d32"]
)
def test_published_sizes(d_model: int, parameters: int) -> None:
    with torch.device("meta" if d_model > 32 else "cpu"):
        model = longscan.create_model("diffwave_sashimi", d_model=d_model)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_noise_and_one_step_back_agree() -> None:
    """With the true noise, the step back from t is the mean of the posterior q(x_(t-1) | x_t, x_0)."""
    schedule = NoiseSchedule(20, 1e-3, 0.3)
    x, noise, t = torch.randn(4, 8, 1, dtype=torch.float64), torch.randn(4, 8, 1, dtype=torch.float64), 11
    noisy = schedule.add_noise(x, torch.full((4,), t), noise)
    bar, previous, beta = schedule.alpha_bar[t], schedule.alpha_bar[t - 1], schedule.beta[t]
    mean = previous.sqrt() * beta / (1 - bar) * x + (1 - beta).sqrt() * (1 - previous) / (1 - bar) * noisy
    torch.testing.assert_close(schedule.reverse(noisy, noise, t), mean)


def test_samples_are_reproducible_and_shaped() -> None:
    model = longscan.create_model("diffwave_sashimi", d_model=4, n_layers=1, d_state=4, diffusion_steps=3).eval()
    torch.nn.init.normal_(model.output.weight)
    assert isinstance(model, DiffWave)
    first = model.sample(2, 37, torch.Generator().manual_seed(1))
    again = model.sample(2, 37, torch.Generator().manual_seed(1))
    other = model.sample(2, 37, torch.Generator().manual_seed(2))
    assert first.shape == (2, 37, 1)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    # With a generator for each, a waveform is the same whatever is drawn beside it.
    pair = model.sample(2, 37, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
    alone = model.sample(1, 37, [torch.Generator().manual_seed(2)])
    assert (pair[1] - alone[0]).abs().max() < 1e-5
    assert (pair[0] - alone[0]).abs().max() > 0.1
    with pytest.raises(UserError, match="1 generators were given for 2 waveforms"):
        model.sample(2, 37, [torch.Generator()])


def test_constant_input_is_finite() -> None:
    """The published norm divides by zero where all features are equal."""
    model = longscan.create_model("diffwave_sashimi", d_model=4, n_layers=1, d_state=4)
    for p in model.encoder.parameters():
        torch.nn.init.zeros_(p[:0])
    model.encoder.bias.data.fill_(-100.0)
    torch.nn.init.normal_(model.output.weight)
    y = model(torch.zeros(1, 32, 1), torch.tensor([3]))
    y.sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_errors() -> None:
    with pytest.raises(UserError, match="beta_min"):
        longscan.create_model("diffwave_sashimi", d_model=4, n_layers=1, beta_min=0.5, beta_max=0.1)
    model = longscan.create_model("diffwave_sashimi", d_model=4, n_layers=1, d_state=4)
    with pytest.raises(UserError, match="2 channels"):
        model(torch.zeros(1, 32, 2), torch.tensor([3]))
