"""Maps of relevance add up to what they explain, and the picture shows the class that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import longscan
from longscan.core.errors import UserError
from longscan.vision.saliency import METHODS, by_patch, constant_selection, draw, relevance


class Linear(nn.Module):
    """Logits of two classes, linear in the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(1) * self.weight).sum((2, 3, 4))


def vim(**options: int) -> nn.Module:
    model = longscan.create_model("vim_tiny_patch16_224", embed_dim=16, depth=2, img_size=48, num_classes=4, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("method", ["gradient", "integrated"])
def test_a_linear_model_is_explained_exactly(method: str) -> None:
    model, x = Linear(), torch.randn(3, 3, 8, 8)
    classes = torch.tensor([0, 1, 1])
    got = relevance(model, x, classes, method)  # type: ignore[arg-type]
    torch.testing.assert_close(got, (x * model.weight[classes]).sum(1))


def test_integrated_gradients_add_up() -> None:
    """Completeness: their sum is the logit's distance from that of a grey image."""
    model, x = vim(), torch.randn(2, 3, 48, 48)
    classes = torch.tensor([1, 3])
    got = relevance(model, x, classes, "integrated", steps=128).sum((1, 2))
    with torch.no_grad():
        want = (model(x) - model(torch.zeros_like(x))).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(got, want, rtol=0.02, atol=2e-3)
    plain = relevance(model, x, classes, "gradient").sum((1, 2))
    assert (plain - want).abs().max() > 10 * (got - want).abs().max()


def test_constant_selection_leaves_a_linear_scan() -> None:
    """With step sizes, B and C held, a direction of a Mamba layer is linear in what enters its scan."""
    mixer = longscan.core.mixers.create_mixer("mamba", 8, d_state=4)
    u = torch.randn(1, 9, 16)
    z = torch.randn(1, 9, 16)
    before = mixer.conv1d
    mixer.conv1d = nn.Conv1d(16, 16, 1, groups=16, bias=False)  # a convolution that does nothing
    with torch.no_grad():
        mixer.conv1d.weight.fill_(1.0)
    assert before is not mixer.conv1d
    xz = torch.cat([u, z], -1).requires_grad_()
    y, _ = mixer.mix(xz)  # type: ignore[operator]
    free = torch.autograd.grad(y[0, 7, 3], xz)[0]
    with constant_selection(mixer):
        y, _ = mixer.mix(xz)  # type: ignore[operator]
        held = torch.autograd.grad(y[0, 7, 3], xz)[0]
    assert not torch.allclose(free, held)
    # Only channel 3 of what enters reaches channel 3: the matrix of the implicit attention is one for each channel.
    moved = held[0, :, :16].abs().amax(0)
    assert moved[3] > 0
    assert not moved[[0, 1, 2, 4, 15]].any()
    assert free[0, :, :16].abs().amax(0)[[0, 1, 2, 4]].all()


def test_attention_differs_and_is_refused_elsewhere() -> None:
    model, x, classes = vim(), torch.randn(1, 3, 48, 48), torch.tensor([2])
    maps = {method: relevance(model, x, classes, method) for method in METHODS}
    assert all(value.shape == (1, 48, 48) and value.isfinite().all() for value in maps.values())
    assert not torch.allclose(maps["attention"], maps["gradient"])
    torch.testing.assert_close(relevance(model, x, classes, "gradient"), maps["gradient"])  # hooks are gone
    with pytest.raises(UserError, match="for Vim and other models of Mamba layers"):
        relevance(Linear(), torch.randn(1, 3, 8, 8), torch.tensor([0]), "attention")
    with pytest.raises(UserError, match="expected one of"):
        relevance(model, x, classes, "lime")  # type: ignore[arg-type]


def test_local_mamba_is_held_too_and_a_projection_that_is_not_called_is_told() -> None:
    """Its directions have projections of their own; one that a fused kernel passed by would leave a plain gradient."""
    options: dict[str, Any] = {"img_size": 48, "embed_dim": 16, "depth": 2, "num_classes": 5}
    model: Any = longscan.create_model("local_vim_tiny", **options).eval()
    x, classes = torch.randn(1, 3, 48, 48), torch.tensor([2])
    assert not torch.allclose(relevance(model, x, classes, "attention"), relevance(model, x, classes, "gradient"))

    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.x_proj = model, nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    with pytest.raises(UserError, match=r"1 of \d+ projections of this Around could not be held"):
        relevance(Around(), x, classes, "attention")


def test_patches() -> None:
    x = torch.randn(1, 5, 7)
    got = by_patch(x, 4)
    assert got.shape == (1, 2, 2)
    torch.testing.assert_close(got[0, 0, 1], x[0, :4, 4:].sum())
    torch.testing.assert_close(got.sum(), x.sum())


def test_a_picture(tmp_path: Path) -> None:
    from matplotlib.image import imread

    pixels = np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8)
    values = np.zeros((2, 3))
    values[0, 2], values[1, 0] = 1.0, -1.0
    path = draw(tmp_path / "map.png", pixels, values, "cat (90%)", side=16)
    picture = imread(path)[..., :3]
    assert picture.shape[0] > 300
    red, blue = picture[..., 0] - picture[..., 2] > 0.3, picture[..., 2] - picture[..., 0] > 0.3
    right = picture.shape[1] // 2
    rows, columns = np.nonzero(red[:, right:-150])
    assert len(rows) > 100
    blue_rows, blue_columns = np.nonzero(blue[:, right:-150])
    assert rows.mean() < blue_rows.mean()  # for the class above, against it below
    assert columns.mean() > blue_columns.mean()


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    from PIL import Image

    from longscan.__main__ import main

    names = ("ant", "bee", "cow", "dog")
    model = longscan.create_model(
        "vim_tiny_patch16_224", embed_dim=16, depth=1, img_size=32, num_classes=4, class_names=names
    )
    folder = str(model.save_pretrained(tmp_path / "model"))  # type: ignore[operator]
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), dtype=np.uint8)).save(image)
    output, values = tmp_path / "map.png", tmp_path / "map.npz"
    common = ["vision", "saliency", str(image), "--model", folder, "--output", str(output)]
    for method in METHODS:
        arguments = [*common, "--method", method, "--target", "cow", "--steps", "3", "--values", str(values)]
        assert main(arguments) == 0
        assert "cow (" in capsys.readouterr().out
        held = np.load(values)
        assert held["relevance"].shape == (32, 32)
        assert held["patches"].shape == (2, 2)
        assert output.stat().st_size > 1000
    for wrong, message in (
        (["--target", "cat"], "knows no such class"),
        (["--output", "x.gif"], "does not say the format"),
        (["--steps", "0"], "at least 1"),
        (["--values", "x.csv"], "name it .npz"),
    ):
        assert main([*common, *wrong]) == 2
        assert message in capsys.readouterr().err
