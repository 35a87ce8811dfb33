"""What timm's own tests ask of every model, of each of ours, small."""

from __future__ import annotations

import copy
import fnmatch
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

timm = pytest.importorskip("timm")

import longscan  # noqa: E402
from longscan.vision import timm_models  # noqa: E402

#: Every model once, by its own name; those with weights in the package, which are of one size, elsewhere.
NAMES = sorted({entry.name for entry in timm_models._ENTRIES.values() if entry.folder is None})
HIERARCHICAL = [name for name in NAMES if "vmamba" in name]
ISOTROPIC = [name for name in NAMES if name not in HIERARCHICAL]
SIZE = 64


def create(name: str, **options: Any) -> nn.Module:
    """The model at a small width and depth; what tells the variants apart (stride, mixers, gates, stems) stays."""
    if name in HIERARCHICAL:
        small: dict[str, Any] = {"embed_dim": 8, "depths": (1, 1, 1, 1)}
        if name.startswith("local"):
            small["routes"] = ("h", "v_flip", "w2", "w2_flip")
    else:
        small = {"embed_dim": 16, "depth": 2, "img_size": SIZE}
    return timm.create_model(name, **{**small, **options})


def images(size: int = SIZE, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, size, size)


def test_all_are_registered() -> None:
    """Isotropic, hierarchical and windowed models, under their other names too."""
    known = set(timm.list_models())
    assert known >= {*NAMES, "local_vssm_tiny"}
    assert {"vim_tiny_patch16_224", "vmamba_tiny_s1l8", "local_vim_small", "mamba_nd_tiny_patch16_224"} <= set(NAMES)
    assert len(NAMES) >= 26


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward(name: str) -> None:
    """timm's test_model_forward and test_model_backward."""
    model = create(name, num_classes=42)
    output = model(images())
    assert output.shape == (2, 42)
    assert output.isfinite().all()
    output.mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_configuration_and_heads(name: str) -> None:
    """timm's test_model_default_cfgs: features, no classes, no pooling, names of the ends."""
    model = create(name).eval()
    x = images()
    config = model.default_cfg
    assert config["architecture"] == name
    assert config["input_size"] == (3, 224, 224)
    state = model.state_dict()
    assert f"{config['first_conv']}.weight" in state
    assert f"{config['classifier']}.weight" in state
    assert model.get_classifier() is dict(model.named_modules())[config["classifier"]]
    features = model.forward_features(x)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(features), model(x))
    model.reset_classifier(0)
    torch.testing.assert_close(model(x), pooled)
    model.reset_classifier(0, "")
    unpooled = model(x)
    assert unpooled.shape == features.shape
    assert not any(key.startswith(config["classifier"]) for key in model.state_dict())
    model.reset_classifier(7, "avg")
    assert model(x).shape == (2, 7)
    assert model.num_classes == 7
    assert create(name, num_classes=0)(x).shape == (2, model.num_features)
    assert create(name, in_chans=5)(images(channels=5)).shape == (2, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_intermediates(name: str) -> None:
    """timm's test_model_forward_intermediates, test_model_features and pruning."""
    model = create(name).eval()
    x = images()
    info = model.feature_info
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    assert len(maps) == len(info)
    stride = model.config.stride if name in ISOTROPIC else None
    for feature_map, stage in zip(maps, info, strict=True):
        assert feature_map.shape[1] == stage["num_chs"]
        side = SIZE // stage["reduction"] if stride is None else (SIZE - 16) // stage["reduction"] + 1
        assert feature_map.shape[2:] == (side, side)
    last = model.forward_intermediates(x, indices=1, intermediates_only=True)
    torch.testing.assert_close(last, maps[-1:])
    first = model.forward_intermediates(x, indices=[0], stop_early=True, intermediates_only=True)
    torch.testing.assert_close(first, maps[:1])
    getter = create(name, features_only=True, out_indices=(0, -1)).eval()
    assert getter.feature_info.channels() == [info[0]["num_chs"], info[-1]["num_chs"]]
    assert getter.feature_info.reduction() == [info[0]["reduction"], info[-1]["reduction"]]
    assert [m.shape for m in getter(x)] == [maps[0].shape, maps[-1].shape]
    pruned = copy.deepcopy(model)
    pruned.prune_intermediate_layers([0], prune_norm=True, prune_head=True)
    torch.testing.assert_close(pruned.forward_intermediates(x, [0], intermediates_only=True), maps[:1])


@pytest.mark.parametrize("name", NAMES)
def test_input_sizes(name: str) -> None:
    """set_input_size keeps the weights; the model then takes the new size, whether square or not."""
    model = create(name).eval()
    model.set_input_size(img_size=(96, 64))
    assert model(torch.randn(1, 3, 96, 64)).shape == (1, 1000)
    dynamic = create(name, **({"dynamic_img_size": True} if name in ISOTROPIC else {})).eval()
    assert dynamic(torch.randn(1, 3, 64, 128)).shape == (1, 1000)


@pytest.mark.parametrize("name", NAMES)
def test_groups_and_decay(name: str) -> None:
    """group_matcher has a place for every parameter before the head; what a recurrence needs is not decayed."""
    from timm.models import group_parameters

    model = create(name)
    classifier = model.default_cfg["classifier"]
    for coarse in (False, True):
        matcher = model.group_matcher(coarse=coarse)
        blocks = matcher["blocks"]
        patterns = [matcher["stem"], *([blocks] if isinstance(blocks, str) else [pattern for pattern, _ in blocks])]
        for parameter_name, _ in model.named_parameters():
            if not parameter_name.startswith(classifier):
                assert any(re.match(pattern, parameter_name) for pattern in patterns), parameter_name
    grouped = group_parameters(model, model.group_matcher())
    names = [n for group in grouped.values() for n in group] if isinstance(grouped, dict) else list(grouped)
    assert len(names) == len(list(model.named_parameters()))
    skipped = model.no_weight_decay()
    assert skipped <= set(dict(model.named_parameters()))
    for parameter_name, _ in model.named_parameters():
        kind = parameter_name.rpartition(".")[2]
        if fnmatch.fnmatch(kind, "A*_log*") or kind in ("D", "Ds", "D_b", "dt_bias", "pos_embed", "cls_token"):
            assert parameter_name in skipped, parameter_name


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing(name: str) -> None:
    model = create(name, num_classes=3)
    again = copy.deepcopy(model)
    again.set_grad_checkpointing()
    x = images()
    for one in (model, again):
        one(x).square().sum().backward()
    for (key, value), other in zip(model.named_parameters(), again.parameters(), strict=True):
        assert value.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, value.grad, msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_without_timm(name: str) -> None:
    """The same model by longscan.create_model, weights exchanged."""
    model = create(name, num_classes=3).eval()
    fields = {"embed_dim", "depth", "depths", "routes", "img_size", "num_classes"}
    options = {key: getattr(model.config, key) for key in fields if hasattr(model.config, key)}
    own = longscan.create_model(name, **options).eval()
    own.load_state_dict(model.state_dict())
    x = images()
    torch.testing.assert_close(own(x), model(x))
