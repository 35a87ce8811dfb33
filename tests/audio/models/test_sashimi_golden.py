"""SaShiMi against outputs of the original implementations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import longscan
from longscan.audio.models import SaShiMi

LANGUAGE = ("sashimi_lm_a", "sashimi_unet_lm_a")
BACKBONES = (
    "sashimi_standalone_a",
    "sashimi_standalone_s4d_a",
    "sashimi_standalone_unet_a",
    "sashimi_standalone_bidir_unet_a",
)
precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Case:
    """One folder of fixtures and the model in it."""

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self.inputs = {key: torch.from_numpy(value) for key, value in np.load(folder / "inputs.npz").items()}
        self.outputs = {key: torch.from_numpy(value) for key, value in np.load(folder / "outputs.npz").items()}
        self.tolerance = self.config["rtol64" if dtype == torch.float64 else "rtol32"]
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            loaded = longscan.from_pretrained(folder / "model.safetensors", config=self.config["args"])
        finally:
            torch.set_default_dtype(before)
        assert isinstance(loaded, SaShiMi)
        self.model = loaded

    def check(self, found: Tensor, key: str) -> None:
        expected = self.outputs[key].double()
        assert found.shape == expected.shape
        difference = float((found.detach().double() - expected).abs().max() / expected.abs().max())
        assert difference <= self.tolerance, f"{key}: relative difference {difference:.1e}"


def _steps(model: SaShiMi, inputs: Tensor, count: int) -> Tensor:
    state = model.init_state(len(inputs))
    outputs = []
    for t in range(count):
        y, state = model.step(inputs[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=1)


@precisions
@pytest.mark.parametrize("name", LANGUAGE)
def test_language_model(name: str, dtype: torch.dtype, golden: Path) -> None:
    case = Case(golden / "audio" / name, dtype)
    ids = case.inputs["x"]
    logits = case.model(ids)
    case.check(logits, "logits")
    case.check(_steps(case.model, ids, 50), "step_logits")
    nll = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).double(), ids[:, 1:].flatten())
    case.check((nll / np.log(2))[None], "nll_bits")


@pytest.mark.parametrize("name", LANGUAGE)
def test_greedy_continuation(name: str, golden: Path) -> None:
    case = Case(golden / "audio" / name, torch.float64)
    expected = case.outputs["greedy_from_qzero"].tolist()
    state = case.model.init_state(1)
    code, found = torch.tensor([case.config["vocab"] // 2]), []
    for _ in expected:
        logits, state = case.model.step(code, state)
        code = logits.argmax(-1)
        found.append(int(code))
    assert found == expected


@precisions
@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name: str, dtype: torch.dtype, golden: Path) -> None:
    case = Case(golden / "audio" / name, dtype)
    x = case.inputs["x"].to(dtype)
    case.check(case.model(x), "y")
    if "step_y" in case.outputs:
        case.check(_steps(case.model, x, 50), "step_y")
    else:
        with pytest.raises(ValueError, match="bidirectional"):
            case.model.init_state(1)
