"""The mixer of LocalVim equals the published code, and reads any grid, class token in the middle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import create_mixer
from longscan.vision.models import LocalMamba, Vim, VimConfig

GOLDEN = Path(__file__).parent.parent / "golden" / "vision"


@pytest.mark.parametrize("case", ["localmamba_mixer_a", "localmamba_mixer_midcls_a"])
def test_the_published_numbers(case: str) -> None:
    config = json.loads((GOLDEN / case / "config.json").read_text())
    arguments = config["constructor"]
    mixer = LocalMamba(
        arguments["d_model"],
        arguments["directions"],
        arguments["token_size"],
        "middle" if arguments.get("use_middle_cls_token") else "none",
        d_state=arguments["d_state"],
    )
    mixer.load_state_dict(load_file(GOLDEN / case / "model.safetensors"))
    got = mixer(torch.from_numpy(np.load(GOLDEN / case / "inputs.npz")["x"]))
    want = np.load(GOLDEN / case / "outputs.npz")["y"]
    np.testing.assert_allclose(got.detach().numpy(), want, **config["tolerance"])


def by_hand(mixer: LocalMamba, x: Tensor, rows: int, columns: int) -> Tensor:
    """A grid of 3 × 5 patches in windows of 2, each reading written out with its padding and class token."""
    single = create_mixer("mamba", x.shape[-1], d_state=4)
    xz = mixer.in_proj(x)
    position = rows * columns // 2
    total: Any = 0
    for i, name in enumerate(mixer.directions):
        read: list[Tensor | None] = []
        for top in range(0, rows, 2):
            for left in range(0, columns, 2):
                for r in (top, top + 1):
                    for c in (left, left + 1):
                        cell = r * columns + c
                        inside = r < rows and c < columns
                        read.append(torch.tensor(cell + (cell >= position)) if inside else None)
        if name.endswith("flip"):
            read.reverse()
        read.insert(len(read) // 2, torch.tensor(position))
        tokens = [torch.zeros_like(xz[:, 0]) if token is None else xz[:, token] for token in read]
        for part in ("conv1d", "x_proj", "dt_proj", "A_log", "D"):
            setattr(single, part, getattr(mixer, f"{part}_{i}"))
        y, _ = single.mix(torch.stack(tokens, 1))  # type: ignore[operator]
        back = torch.zeros(x.shape[0], x.shape[1], y.shape[-1])
        for place, token in enumerate(read):
            if token is not None:
                back[:, token] = y[:, place]
        total = total + mixer.attn(back)
    return mixer.out_proj(total)


def test_windows_that_do_not_fill_a_grid() -> None:
    mixer = LocalMamba(8, ["w2", "w2_flip"], [3, 5], d_state=4)
    x = torch.randn(2, 16, 8)
    torch.testing.assert_close(mixer(x), by_hand(mixer, x, 3, 5), rtol=1e-4, atol=1e-6)


def test_in_a_vim_of_any_size() -> None:
    """The model tells its mixers the grid of the images."""
    layers = [{"name": "local_mamba", "directions": ["h", "v_flip", "w2", "w3_flip"], "d_state": 4}]
    model = Vim(
        VimConfig(
            embed_dim=16, depth=2, img_size=(20, 12), patch_size=4, num_classes=3, layers=layers, dynamic_img_size=True
        )
    )
    for size in ((20, 12), (12, 24)):
        loss = model(torch.randn(2, 3, *size)).square().sum()
        loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert {f"layers.0.mixer.{name}_3" for name in ("A_log", "D")} <= model.no_weight_decay()
    assert "layers.0.mixer.dt_proj_3.bias" in model.no_weight_decay()


@pytest.mark.parametrize(
    ("options", "text"),
    [({"directions": ["columm"]}, "column"), ({"class_token": "first"}, "middle"), ({}, "needs the grid")],
)
def test_mistakes(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        LocalMamba(8, **options)(torch.randn(1, 5, 8))
    with pytest.raises(UserError, match="got 5 tokens"):
        LocalMamba(8, grid=[3, 3])(torch.randn(1, 5, 8))
