"""Our models in timm: what timm's own tests ask of every model, and pretrained weights."""

from __future__ import annotations

import argparse
import fnmatch
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")

import longscan.vision  # noqa: E402
from longscan.core.errors import UserError  # noqa: E402

NAMES = [
    "vim_tiny_patch16_224",
    "vim_tiny_patch16_stride8_224",
    "vim_small_patch16_224",
    "vim_small_patch16_stride8_224",
    "vim_base_patch16_224",
]
TINY = NAMES[0]


def create(name: str = TINY, **options: Any) -> nn.Module:
    """A shallow model of small images."""
    return timm.create_model(name, **{"depth": 2, "img_size": 64, **options})


def images(size: int = 64) -> Tensor:
    return torch.randn(2, 3, size, size)


@pytest.mark.parametrize("first", ["timm", "longscan.vision"])
def test_registered_whichever_is_imported_first(first: str) -> None:
    second = "longscan.vision" if first == "timm" else "timm"
    code = f"import {first}, {second}, timm; print(timm.list_models('vim_*_224'), timm.is_model_pretrained('{TINY}'))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert all(name in result.stdout for name in NAMES)
    assert "True" in result.stdout


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str) -> None:
    """Right shape, finite, and every parameter gets a gradient."""
    model = create(name, num_classes=42, depth=1)
    output = model(images())
    assert output.shape == (2, 42)
    output.mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
    assert output.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_configuration(name: str) -> None:
    config = timm.get_pretrained_cfg(name)
    assert config.hf_hub_id.startswith("hustvl/Vim-")
    assert config.hf_hub_filename.endswith("acc.pth")
    assert (config.input_size, config.crop_pct, config.interpolation) == ((3, 224, 224), 0.875, "bicubic")
    model = create(name, depth=1)
    state = model.state_dict()
    assert f"{config.first_conv}.weight" in state
    assert f"{config.classifier}.weight" in state
    assert model.default_cfg is model.pretrained_cfg
    assert model.pretrained_cfg["architecture"] == name
    data = timm.data.resolve_model_data_config(model)
    assert data["mean"] == (0.485, 0.456, 0.406)


def test_feature_and_head_conventions() -> None:
    """As test_model_default_cfgs of timm: no classes, other pooling, no pooling."""
    model = create().eval()
    x = images()
    features = model.forward_features(x)
    assert features.shape == (2, 17, model.num_features)
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(features), model(x))
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), model.forward_features(x))
    model.reset_classifier(0, "avg")
    assert model(x).shape == (2, model.num_features)
    assert isinstance(model.get_classifier(), nn.Identity)
    model.reset_classifier(11, "token")
    assert model(x).shape == (2, 11)
    bare = create(num_classes=0, global_pool="")
    assert bare(x).shape == (2, 17, 192)
    assert not any(key.startswith("head.") for key in bare.state_dict())


@pytest.mark.parametrize("name", NAMES[:2])
def test_features_only(name: str) -> None:
    model = create(name, features_only=True, depth=5, out_indices=(0, 2, -1), embed_dim=16).eval()
    x = images()
    maps = model(x)
    assert model.feature_info.channels() == [16, 16, 16]
    for feature_map, channels, reduction in zip(
        maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert feature_map.shape[1] == channels
        assert feature_map.shape[2:] == ((64 - 16) // reduction + 1,) * 2
    full = create(name, depth=5, embed_dim=16).eval()
    full.load_state_dict(model.model.state_dict(), strict=False)
    for got, want in zip(maps, full.forward_intermediates(x, [0, 2, 4], intermediates_only=True), strict=True):
        torch.testing.assert_close(got, want)


def test_sizes() -> None:
    x = images(96)
    model = create(dynamic_img_size=True).eval()
    fixed = create().eval()
    fixed.load_state_dict(model.state_dict())
    fixed.set_input_size(img_size=(96, 96))
    torch.testing.assert_close(model(x), fixed(x))
    with pytest.raises(UserError, match="set_input_size"):
        create()(x)


def test_gradient_checkpointing() -> None:
    model, again = create(embed_dim=16), create(embed_dim=16)
    again.load_state_dict(model.state_dict())
    again.set_grad_checkpointing()
    x = images()
    torch.testing.assert_close(again(x), model(x))
    model(x).square().sum().backward()
    again(x).square().sum().backward()
    torch.testing.assert_close(again.pos_embed.grad, model.pos_embed.grad)


def test_optimizer_groups() -> None:
    """timm's groups: no decay of what the recurrence needs, and layer-wise rates through group_matcher."""
    from timm.optim import create_optimizer_v2

    model = create(depth=3, embed_dim=16)
    skipped = model.no_weight_decay()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    optimizer = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    seen: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group
    assert len(seen) == len(names)
    for name, group in seen.items():
        plain = name in skipped or model.get_parameter(name).ndim <= 1
        assert group["weight_decay"] == (0 if plain else 0.1), name
    scale = {name: group.get("lr_scale", 1.0) for name, group in seen.items()}
    assert scale["patch_embed.proj.weight"] < scale["layers.0.mixer.in_proj.weight"] < scale["layers.2.norm.weight"]
    assert scale["head.weight"] == 1.0
    assert any(fnmatch.fnmatch("layers.0.mixer.A_b_log", pattern) for pattern in skipped)
    matcher = model.group_matcher(coarse=True)
    assert re.match(matcher["stem"], "cls_token")


def published(path: Path, **options: Any) -> nn.Module:
    model = longscan.create_model(TINY, **{"depth": 2, "img_size": 64, "embed_dim": 16, "num_classes": 5, **options})
    torch.save({"model": model.state_dict(), "epoch": 1, "args": argparse.Namespace(model=TINY, input_size=64)}, path)
    return model.eval()


def test_weights_from_a_file(tmp_path: Path) -> None:
    """A published training checkpoint through timm: as it is, with other classes, channels and sizes."""
    path = tmp_path / "vim.pth"
    model = published(path)
    x = images()

    def load(**options: Any) -> nn.Module:
        overlay = {"file": str(path), "num_classes": 5}
        return create(pretrained=True, pretrained_cfg_overlay=overlay, embed_dim=16, **options).eval()

    torch.testing.assert_close(load()(x), model(x))
    tokens = model.forward_features(x)  # type: ignore[operator]
    torch.testing.assert_close(load(num_classes=3).forward_features(x), tokens)  # type: ignore[operator]
    grey = x[:, :1]
    torch.testing.assert_close(load(in_chans=1)(grey), model(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    larger = load(img_size=96)
    assert larger.pos_embed.shape == (1, 37, 16)
    torch.testing.assert_close(larger.pos_embed[:, 18], model.pos_embed[:, 8])  # type: ignore[index]
    direct = timm.create_model(
        TINY, checkpoint_path=str(path), depth=2, img_size=64, embed_dim=16, num_classes=5
    ).eval()
    torch.testing.assert_close(direct(x), model(x))


def test_weights_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's file is read by us: data alone, fitted to the model."""
    import timm.models._hub as hub

    model = published(tmp_path / "vim.pth")
    asked: list[Any] = []

    def download(repository: str, filename: str, **options: Any) -> str:
        asked.append((repository, filename))
        return str(tmp_path / "vim.pth")

    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = create(pretrained=True, embed_dim=16, num_classes=5).eval()
    assert asked == [("hustvl/Vim-tiny-midclstok", "vim_t_midclstok_76p1acc.pth")]
    x = images()
    torch.testing.assert_close(loaded(x), model(x))
    other = create(pretrained=True, embed_dim=16, num_classes=9, img_size=96).eval()
    assert other(images(96)).shape == (2, 9)
    features = create(pretrained=True, embed_dim=16, features_only=True, out_indices=[1]).eval()
    want = model.forward_intermediates(x, [1], intermediates_only=True)  # type: ignore[operator]
    torch.testing.assert_close(features(x)[0], want[0])


def test_unknown_options_are_told() -> None:
    with pytest.raises(UserError, match=r"no option 'drop_pat_rate'; nearest: drop_path_rate"):
        create(drop_pat_rate=0.1)
    model = create(device="meta", dtype=torch.bfloat16)
    assert (model.head.weight.device.type, model.head.weight.dtype) == ("meta", torch.bfloat16)
    assert (
        timm.create_model(TINY, depth=1, img_size=32, drop_path_rate=0.1, drop_rate=0.1, num_classes=None).num_classes
        == 1000
    )
