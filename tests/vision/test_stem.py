"""The stem of convolutions, of our Vim and of a transformer of timm, and what else the CIFAR recipes rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.vision.models.patches import ConvolutionalStem
from longscan.vision.tasks.base import build_model


def vim(**options: Any) -> Any:
    fields: dict[str, Any] = {"embed_dim": 64, "depth": 2, "d_state": 4, "img_size": 16, "patch_size": 4}
    return longscan.create_model("Vim", **{**fields, "stem": "convolutions", "num_classes": 3, **options})


def test_tokens_are_those_of_their_place() -> None:
    """A token for every 4 × 4 pixels, in rows; it sees the pixels up to 4 from the first of them, either way."""
    torch.manual_seed(0)
    stem = ConvolutionalStem(3, 64, 4).eval()
    assert [m.weight.shape for m in stem.modules() if isinstance(m, torch.nn.Conv2d)] == [
        (64, 32, 3, 3),
        (16, 3, 3, 3),
        (32, 16, 3, 3),
    ]
    image = torch.randn(1, 3, 16, 24)
    tokens = stem(image)
    assert tokens.shape == (1, 24, 64)
    image[:, :, 9, 13] += 1  # between 8 and 12, and between 12 and 16
    changed = (stem(image) - tokens).abs().amax((0, 2)) > 1e-6
    assert changed.view(4, 6).nonzero().tolist() == [[2, 3], [2, 4], [3, 3], [3, 4]]


def test_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = vim().train()
    images = torch.randn(4, 3, 16, 16)
    model(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.patch_embed.parameters())
    model = model.eval()
    logits = model(images)
    model.save_pretrained(tmp_path / "weights")
    stored: Any = longscan.from_pretrained(tmp_path / "weights").eval()
    assert torch.equal(stored(images), logits)  # statistics of batch norm included
    larger: Any = longscan.from_pretrained(tmp_path / "weights", img_size=(16, 24), in_chans=1).eval()
    assert larger(torch.randn(1, 1, 16, 24)).shape == (1, 3)
    assert torch.allclose(
        larger.patch_embed.stem[0].weight, model.patch_embed.stem[0].weight.sum(1, keepdim=True), atol=1e-6
    )
    with pytest.raises(UserError, match="a stem of convolutions has patches of one size"):
        model.set_input_size(patch_size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 6, "img_size": 24}, "a stem of convolutions halves, so it takes 2, 4, 8, 16"),
        ({"patch_stride": 2}, "goes by patch_size alone"),
        ({"stem": "conv"}, "expected one of 'patch', 'convolutions'"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        vim(**options)


def test_a_transformer_of_timm_with_the_same_stem() -> None:
    fitting = {"img_size": (32, 32), "in_chans": 3, "num_classes": 4}
    options = {"embed_dim": 48, "depth": 1, "num_heads": 3, "patch_size": 4, "class_token": False, "global_pool": "avg"}
    model: Any = build_model("timm/deit_tiny_patch16_224", fitting, {**options, "stem": "convolutions"})
    assert isinstance(model.model.patch_embed, ConvolutionalStem)
    assert model.model.pos_embed.shape == (1, 64, 48)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)
    assert longscan.create_model(**model.model_config()["config"], name="TimmModel") is not None
    with pytest.raises(UserError, match="stem is 'patch'; expected 'convolutions' or none"):
        build_model("timm/deit_tiny_patch16_224", fitting, {**options, "stem": "patch"})
    with pytest.raises(UserError, match="cannot be built"):
        build_model("timm/resnet10t", {**fitting, "img_size": None}, {"stem": "convolutions"})


def test_halving_the_output_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the weights instead of half the sum: not a bit differs, and adapters are not passed over."""
    from longscan.vision.models import vim_mixer

    torch.manual_seed(0)
    mixer = vim_mixer.VimMixer(16, d_state=4)
    x = torch.randn(2, 9, 16)
    fast = mixer(x)
    called = []
    handle = mixer.out_proj.register_forward_hook(lambda *_: called.append(1))
    assert torch.equal(mixer(x), fast)
    assert called == [1]
    handle.remove()
    mixer.divide_out = False
    assert torch.allclose(mixer(x), 2 * fast, atol=1e-6)


def test_weights_in_a_folder_through_timm(tmp_path: Path) -> None:
    """timm's description of a model that ships with its card, and the loading that it leads to."""
    pytest.importorskip("timm")
    from longscan.core.registry import ModelEntry
    from longscan.vision.card import VisionCard
    from longscan.vision.timm_models import _build, _cfg

    torch.manual_seed(0)
    model = vim(class_names=("a", "b", "c")).eval()
    model.save_pretrained(tmp_path)
    card = VisionCard(
        img_size=(16, 16), channels=3, class_names=("a", "b", "c"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6),
        interpolation="bilinear", crop_pct=1.0,
    )  # fmt: skip
    card.write(tmp_path)
    described = _cfg(
        "vim_small_images", ModelEntry("vim_small_images", "vision", lambda: model.config, "Vim", folder=tmp_path)
    )
    assert (described["mean"], described["std"], described["crop_pct"]) == (card.mean, card.std, 1.0)
    assert (described["interpolation"], described["first_conv"]) == ("bilinear", "patch_embed.stem.0")
    images = torch.randn(2, 3, 16, 16)
    other: Any = _build(model.config).eval()
    assert described["custom_load"]
    other.load_pretrained(described["file"])
    assert torch.equal(other(images), model(images))
    assert _build(model.config, num_classes=5).config.class_names is None  # type: ignore[union-attr]
