"""SaShiMi: sizes, steps against the parallel form, published names and errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import longscan
from longscan.audio.models import SaShiMi
from longscan.audio.models.sashimi_state import SaShiMiState
from longscan.core.errors import UserError
from longscan.core.mixers import clone_state

TINY: dict[str, Any] = {"d_model": 8, "n_layers": 1, "d_state": 8}


def _model(dtype: torch.dtype = torch.float64, **options: Any) -> SaShiMi:
    model = longscan.create_model("sashimi", **{**TINY, **options}).to(dtype).eval()
    assert isinstance(model, SaShiMi)
    return model


def _steps(model: SaShiMi, ids: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
    outputs = []
    for t in range(ids.shape[1]):
        y, state = model.step(ids[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def _relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("sashimi_2", {}, 1_287_192),
        ("sashimi_4", {}, 2_211_248),
        ("sashimi_6", {}, 3_135_304),
        ("sashimi", {}, 4_059_360),
        ("sashimi", {"final_act": "glu"}, 4_751_072),
        ("sashimi", {"final_act": "glu", "n_ssm": None}, 5_434_592),
        ("sashimi_unet", {}, 6_820_512),
    ],
)
def test_published_sizes(name: str, options: dict[str, Any], parameters: int) -> None:
    model = longscan.create_model(name, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize(
    "options",
    [
        {"n_layers": 2},
        {"mixer": "s4d", "final_act": "glu", "n_ssm": None},
        {"unet": True, "norm": "layer", "weight_norm": False},
    ],
    ids=["s4", "s4d", "unet"],
)
def test_steps_equal_the_convolution(options: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    model = _model(dtype, d_state=64 if dtype == torch.float32 else 8, **options)
    ids = torch.randint(0, 256, (2, 4096))
    with torch.no_grad():
        expected = model(ids)
    found, state = _steps(model, ids, model.init_state(2))
    assert state.position == 4096
    assert _relative(found, expected) <= tolerance


@pytest.mark.parametrize(
    "layer",
    [{"rank": 2, "init": "legt"}, {"activation": "silu"}, {"channels": 2}],
    ids=["rank 2", "not compiled", "channels"],
)
def test_other_options_step_as_well(layer: dict[str, Any]) -> None:
    model = _model(layer=layer)
    ids = torch.randint(0, 256, (3, 100))
    state = model.init_state(3)
    assert (state.program.compiled is None) == ("rank" not in layer)
    found, _ = _steps(model, ids, state)
    assert _relative(found, model(ids)) <= 1e-10


def test_torch_and_compiled_steps_agree() -> None:
    model = _model(n_layers=2, final_act="glu")
    ids = torch.randint(0, 256, (2, 70))
    expected, _ = _steps(model, ids, model.init_state(2))
    state = model.init_state(2)
    state.program.compiled = None
    found, _ = _steps(model, ids, state)
    assert _relative(found, expected) <= 1e-12


@pytest.mark.parametrize("cuts", [(0,), (1, 17), (5, 64, 64, 80), (99, 100)], ids=str)
def test_prefill_in_pieces(cuts: tuple[int, ...]) -> None:
    model = _model(unet=True)
    ids = torch.randint(0, 256, (2, 117))
    expected, state, found = model(ids), None, []
    for first, last in zip((0, *cuts), (*cuts, 117), strict=True):
        y, state = model.prefill(ids[:, first:last], state)
        found.append(y)
    assert _relative(torch.cat(found, dim=1), expected) <= 1e-10
    assert state is not None
    assert state.position == 117
    ahead = torch.randint(0, 256, (2, 20))
    y, _ = _steps(model, ahead, state)
    assert _relative(y, model(torch.cat([ids, ahead], dim=1))[:, 117:]) <= 1e-10


def test_whole_periods_carry_gradients() -> None:
    model = _model()
    logits, _ = model.prefill(torch.randint(0, 256, (1, 32)))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_snapshot_is_left_alone() -> None:
    model = _model()
    ids = torch.randint(0, 256, (1, 40))
    _, state = model.prefill(ids[:, :21])
    snapshot = clone_state(state)
    first, _ = _steps(model, ids[:, 21:], state)
    again, _ = _steps(model, ids[:, 21:], snapshot)
    assert torch.equal(first, again)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "torch"])
def test_training_on_does_not_change_a_running_generation(compiled: bool) -> None:
    model = _model()
    ids = torch.randint(0, 256, (1, 30))
    expected = model(ids).detach()
    state = model.init_state(1)
    if not compiled:
        state.program.compiled = None
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    found, _ = _steps(model, ids, state)
    assert _relative(found, expected) <= 1e-10


def test_the_future_has_no_influence() -> None:
    model = _model(unet=True)
    ids = torch.randint(0, 256, (1, 64))
    changed = ids.clone()
    changed[:, 41:] = (changed[:, 41:] + 7) % 256
    before, after = model(ids), model(changed)
    assert _relative(after[:, :41], before[:, :41]) <= 1e-12
    assert not torch.allclose(after[:, 41], before[:, 41])


def test_waveforms_are_quantised() -> None:
    model = _model(torch.float32)
    samples = torch.rand(2, 48) * 2 - 1
    codes = torch.from_numpy(model.quantizer.encode(samples.numpy())).long()
    assert torch.equal(model(samples[..., None]), model(codes))
    # The range of a clip is its own, whatever is beside it in the batch.
    model = _model(torch.float32, range="minmax")
    samples[1] *= 0.1
    codes = torch.from_numpy(np.stack([model.quantizer.encode(clip) for clip in samples.numpy()])).long()
    assert codes[1].max() == 255
    assert torch.equal(model(samples), model(codes))


@pytest.mark.parametrize("options", [{}, {"bidirectional": True, "mixer": "s4d"}], ids=["causal", "bidirectional"])
def test_saved_models_are_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    model = _model(torch.float32, **options)
    ids = torch.randint(0, 256, (1, 32))
    expected = model(ids)
    model.save_pretrained(tmp_path)
    again = longscan.from_pretrained(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(ids), expected)


def test_version_3_names(golden: Path, tmp_path: Path) -> None:
    """A checkpoint of version 4 rewritten in the names of version 3, inside a trainer's prefixes."""
    folder = golden / "audio" / "sashimi_lm_a"
    expected = longscan.from_pretrained(folder / "model.safetensors", config={"layer": {"dt_transform": "softplus"}})
    older = {}
    for key, value in load_file(folder / "model.safetensors").items():
        name = key.replace("layer.layer.kernel.", "layer.kernel.kernel.").replace("layer.layer.D", "layer.D")
        name = name.replace("kernel.l_kernel", "kernel.L").replace("kernel.A_real", "kernel.inv_w_real")
        name = name.replace("encoder.0.weight", "encoder.weight").replace("decoder.0.output", "decoder.output")
        if name.endswith("A_imag"):
            name, value = name.replace("A_imag", "w_imag"), -value
        if name.endswith("inv_dt"):
            name, value = name.replace("inv_dt", "log_dt"), value[:, 0]
        if name.endswith("output_linear.0.weight"):
            value = value[..., None]
        name = name.replace("weight_g", "parametrizations.weight.original0")
        name = name.replace("weight_v", "parametrizations.weight.original1")
        older[f"module.{name}"] = value.contiguous()
    save_file(older, tmp_path / "old.safetensors")
    found = longscan.from_pretrained(tmp_path / "old.safetensors", config={"layer": {"dt_transform": "softplus"}})
    assert found.config == expected.config
    ids = torch.randint(0, 64, (1, 32))
    assert torch.equal(found(ids), expected(ids))


def test_errors() -> None:
    model = _model(bidirectional=True)
    for method in (model.init_state, model.prefill):
        with pytest.raises(ValueError, match="bidirectional"):
            method(torch.zeros(1, 4, dtype=torch.long) if method == model.prefill else 1)  # type: ignore[operator]
    with pytest.raises(UserError, match="norm is 'group'"):
        longscan.create_model("sashimi", **TINY, norm="group")
    with pytest.raises(UserError, match="n_layers is 0"):
        longscan.create_model("sashimi", n_layers=0)
    causal = _model()
    state = causal.init_state(1)
    with pytest.raises(IndexError, match="code 256"):
        causal.step(torch.tensor([256]), state)
