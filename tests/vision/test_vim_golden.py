"""Vim equals the published code: logits, features and gradients of every published option."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from longscan.vision.models import Vim, from_published
from longscan.vision.models.positions import resize_positions

GOLDEN = Path(__file__).parent.parent / "golden" / "vision"
CASES = sorted(path.parent.name for path in GOLDEN.glob("vim_*/model.safetensors"))


def load(case: str) -> tuple[Vim, dict[str, Any], dict[str, np.ndarray]]:
    folder = GOLDEN / case
    config = json.loads((folder / "config.json").read_text())
    model = Vim(from_published(config["constructor"])).eval()
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("rope.")})
    return model, config, dict(np.load(folder / "outputs.npz")) | dict(np.load(folder / "inputs.npz"))


def test_every_family_is_here() -> None:
    assert len(CASES) == 11


@pytest.mark.parametrize("case", CASES)
def test_the_published_numbers(case: str) -> None:
    """Outputs, and gradients of the logits times a cotangent."""
    model, config, golden = load(case)
    tolerance = config["tolerance"]
    x = torch.from_numpy(golden["x"]).requires_grad_()
    tokens = model.forward_features(x)
    logits = model.forward_head(tokens)
    got = {"forward_features": model.forward_head(tokens, pre_logits=True), "logits": logits}
    if "cotangent" in golden:
        (logits * torch.from_numpy(golden["cotangent"])).sum().backward()
        assert x.grad is not None
        got["grad_input"] = x.grad
        for key in golden:
            if key.startswith("grad."):
                gradient = model.get_parameter(key.removeprefix("grad.")).grad
                assert gradient is not None
                got[key] = gradient
    for key, value in got.items():
        np.testing.assert_allclose(value.detach().numpy(), golden[key], err_msg=key, **tolerance)


@pytest.mark.parametrize("case", CASES)
def test_the_published_names(case: str) -> None:
    """Parameters have the published names and shapes, nothing more or less."""
    model, config, _ = load(case)
    ours = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    theirs = {name: shape for name, shape in config["parameters"].items() if not name.startswith("rope.")}
    assert ours == theirs


@pytest.mark.parametrize("rule", ["vim-row0", "exact"])
def test_positions_at_another_resolution(rule: Any) -> None:
    """The rule of the original code, and the one that keeps the class token's own row."""
    folder = GOLDEN / "vim_posembed_resize_a"
    golden = dict(np.load(folder / "outputs.npz"))
    positions = torch.from_numpy(np.load(folder / "inputs.npz")["pos_embed"])
    resized = resize_positions(positions, (7, 7), (10, 10), "middle", rule)
    want = golden["upstream_first_row_rule" if rule == "vim-row0" else "middle_token_rule"]
    if rule == "vim-row0":
        np.testing.assert_allclose(resized.numpy(), want, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(resized[:, 50].numpy(), positions[:, 24].numpy())
        np.testing.assert_allclose(resized.numpy(), want, rtol=1e-4, atol=1e-5)
    assert not np.allclose(golden["upstream_first_row_rule"], golden["middle_token_rule"], atol=0.1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vim_tiny_patch16_224", 7_148_008),
        ("vim_small_patch16_224", 25_796_584),
        ("vim_base_patch16_224", 97_598_440),
        ("vim_tiny_patch16_stride8_224", 7_250_344),
    ],
)
def test_published_sizes(name: str, parameters: int) -> None:
    import longscan

    with torch.device("meta"):
        model = longscan.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == 415
