"""Vim's options, sizes and quirks, and the interface of an image model, all without timm."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from vim_models import images, small

import longscan
from longscan.core.errors import UserError
from longscan.core.scan_orders import scan_order
from longscan.vision.models import Vim, from_published

# ---- initialisation --------------------------------------------------------------------------------------------------


def test_both_directions_start_with_the_same_range_of_steps_unless_asked_for_the_original() -> None:
    model, original = small(), small(init="vim")
    for i, block in enumerate(model.layers):
        for bias in (block.mixer.dt_proj.bias, block.mixer.dt_proj_b.bias):  # type: ignore[union-attr]
            steps = torch.nn.functional.softplus(bias)
            assert steps.min() > 0.9e-3
            assert steps.max() < 0.11
        assert not original.get_parameter(f"layers.{i}.mixer.dt_proj_b.bias").any()
        assert original.get_parameter(f"layers.{i}.mixer.dt_proj.bias").all()


def test_initial_scales() -> None:
    model = small(embed_dim=64, depth=4, img_size=64, num_classes=100)
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)  # type: ignore[union-attr]
    assert model.patch_embed.proj.weight.std().item() == pytest.approx((3 * 16) ** -0.5, rel=0.05)
    bound = 1 / (128**0.5 * 4**0.5)  # kaiming uniform with a = sqrt 5, shrunk by the square root of the depth
    out = model.get_parameter("layers.1.mixer.out_proj.weight")
    assert out.abs().max().item() == pytest.approx(bound, rel=0.02)
    assert torch.equal(model.get_parameter("layers.0.mixer.A_b_log").exp()[0].round(), torch.tensor([1.0, 2, 3, 4]))


# ---- class tokens and pooling ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("class_token", "positions"), [("middle", (7,)), ("first", (0,)), ("double", (0, 16)), ("none", ())]
)
def test_class_tokens_stand_where_they_should(class_token: Any, positions: tuple[int, ...]) -> None:
    """15 patches; positions are added after insertion, so that the class token has a row of its own."""
    model = small(class_token=class_token).eval()
    assert model.class_token_positions() == positions
    tokens, grid = model.embed(images())
    assert grid == (5, 3)
    assert tokens.shape == (2, 15 + len(positions), 16)
    for name, position in zip(model._class_token_names(), positions, strict=True):
        want = getattr(model, name)[0, 0] + model.pos_embed[0, position]
        torch.testing.assert_close(tokens[:, position], want.expand(2, -1))
    assert model(images()).shape == (2, 3)


def test_pooling() -> None:
    x = images()
    model = small(class_token="none", global_pool="avg").eval()
    tokens = model.forward_features(x)
    head = model.get_classifier()
    for pool, want in {
        "avg": head(tokens.mean(1)),
        "last": head(tokens[:, -1]),
        "max": head(tokens).amax(1),
        "": head(tokens),
    }.items():
        model.change_config(global_pool=pool)
        torch.testing.assert_close(model(x), want)
    model = small(global_pool="avg").eval()
    tokens = model.forward_features(x)
    keep = [i for i in range(16) if i != 7]
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, keep].mean(1))


# ---- the residual stream ---------------------------------------------------------------------------------------------


def test_flipping_in_training_reads_backwards() -> None:
    model = small(flip_ratio=1.0, class_token="none")
    x = images()
    tokens, grid = model.embed(x)
    forward = model.eval()._run(tokens, grid, set())[0]
    backward = model.train()._run(tokens, grid, set())[0]
    torch.testing.assert_close(
        backward, model.eval()._run(tokens.flip(1), grid, set())[0].flip(1), rtol=1e-4, atol=1e-5
    )
    assert not torch.allclose(backward, forward, atol=1e-3)


def test_drop_path_grows_linearly_from_zero() -> None:
    model = small(depth=5, drop_path_rate=0.4)
    rates = [block.drop[1].probability for block in model.layers]  # type: ignore[union-attr,index]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_checkpointing_and_hooks_change_no_number() -> None:
    x = images()
    plain = small(layer_pairs=True, rope="patches", rope_residual=True)
    again = small(layer_pairs=True, rope="patches", rope_residual=True, gradient_checkpointing=True)
    again.load_state_dict(plain.state_dict())
    plain(x).square().sum().backward()
    again(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(again.get_parameter(name).grad, parameter.grad)
    model = small().eval()
    want = model(x)
    seen: list[Any] = []
    model.layers[0].register_forward_hook(lambda module, inputs, output: seen.append(output))
    torch.testing.assert_close(model(x), want, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0], _stream(model, x), rtol=1e-4, atol=1e-5)


def _stream(model: Vim, x: Tensor) -> Tensor:
    """The whole residual stream after block 0, with the class token in the middle."""
    patches, classes = model.forward_intermediates(x, [0], True, output_fmt="NLC", intermediates_only=True)[0]
    return torch.cat([patches[:, :7], classes, patches[:, 7:]], 1)


@pytest.mark.parametrize("options", [{"rope": "patches"}, {"layer_pairs": True}, {"rope": "patches", "depth": 1}])
def test_hooked_wrapped_and_compiled_blocks_change_no_number(options: dict[str, Any]) -> None:
    """Rotary positions turn what a block added, and not the stream, whichever way the block is called."""
    model, x = small(**{"depth": 4, **options}).eval(), images()
    with torch.no_grad():
        plain = model(x)
        model.layers[0].register_forward_hook(lambda *args: None)
        torch.testing.assert_close(model(x), plain, rtol=1e-5, atol=1e-6)
        model.layers[-1] = checkpoint_wrapper(model.layers[-1])
        torch.testing.assert_close(model(x), plain, rtol=1e-5, atol=1e-6)


def test_bfloat16_keeps_a_wide_stream() -> None:
    model = small().to(torch.bfloat16).eval()
    x = images().bfloat16()
    stream = model.forward_intermediates(x, [1], intermediates_only=True)[0]
    assert stream.dtype == torch.float32
    exact = small().eval()
    exact.load_state_dict({key: value.float() for key, value in model.state_dict().items()})
    assert model(x).dtype == torch.bfloat16
    torch.testing.assert_close(model(x).float(), exact(x.float()), rtol=0.05, atol=0.02)


def test_every_parameter_learns() -> None:
    for options in ({}, {"class_token": "double", "layer_scale": 0.1}, {"directions": "v1"}, {"directions": "none"}):
        model = small(**options)
        if options.get("directions") == "none":  # what follows the class token does not reach it
            model.change_config(global_pool="avg")
        model(images()).square().sum().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


# ---- scan orders and other mixers ------------------------------------------------------------------------------------


def test_a_column_order_transposes_the_picture() -> None:
    """Scanning the columns of an image is scanning the rows of its transpose."""
    model = small(scan_orders=("column", "column_reverse"), img_size=(20, 12), position_embedding=False).eval()
    rows = small(scan_orders=("raster", "raster_reverse"), img_size=(12, 20), position_embedding=False).eval()
    weights = model.state_dict()
    rows.load_state_dict({**weights, "patch_embed.proj.weight": weights["patch_embed.proj.weight"].transpose(2, 3)})
    x = images()
    torch.testing.assert_close(model(x), rows(x.transpose(2, 3)), rtol=1e-4, atol=1e-6)


def test_features_come_in_the_order_of_the_image_whatever_the_scan() -> None:
    """Each block scans in its own order; the class token stays where it is."""
    model = small(depth=3, scan_orders=("zigzag3", "column", "window2"), rope="patches").eval()
    x = images()
    tokens, grid = model.embed(x)
    current = tokens
    cos, sin = model._rotary(grid, x.device)  # type: ignore[misc]
    from longscan.vision.models.rotary import rotate

    branch = None
    for i, name in enumerate(("zigzag3", "column", "window2")):
        order = scan_order(name, *grid)
        places = torch.tensor([p for p in range(16) if p != 7])
        index = torch.arange(16)
        index[places] = places[order.index]
        if branch is None:
            current = rotate(current, cos, sin)
        else:
            branch = rotate(branch, cos, sin)
        current = current if branch is None else current + branch
        block = model.layers[i]
        branch = block.mixer(block.norm(current)[:, index])[:, index.argsort()]  # type: ignore[union-attr,operator]
    want = model.norm_f(current + branch)
    torch.testing.assert_close(model.forward_features(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", ["mamba", {"name": "bidirectional", "mixer": "mamba"}])
def test_any_mixer_by_name(mixer: Any) -> None:
    model = longscan.create_model(
        "vim_tiny_patch16_224", embed_dim=16, depth=4, img_size=32, layers=[mixer, "gated_mlp"], num_classes=3
    )
    assert [block.mixer is None for block in model.layers] == [False, True, False, True]  # type: ignore[union-attr]
    loss = model(images(2, 32, 32)).square().sum()
    loss.backward()
    assert loss.isfinite()


# ---- interface -------------------------------------------------------------------------------------------------------


def test_intermediates() -> None:
    model = small(depth=4, patch_stride=2).eval()
    x = images()
    final, maps = model.forward_intermediates(x)
    torch.testing.assert_close(final, model.forward_features(x))
    assert [tuple(m.shape) for m in maps] == [(2, 16, 9, 5)] * 4
    chosen = model.forward_intermediates(x, [-1, 1], intermediates_only=True, norm=True, stop_early=True)
    torch.testing.assert_close(chosen[0], model.norm_f(maps[1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
    patches = torch.cat([final[:, :22], final[:, 23:]], 1)
    torch.testing.assert_close(chosen[1].flatten(2).transpose(1, 2), patches)
    as_dict = model.forward_intermediates(x, 1, return_prefix_tokens=True, output_dict=True, norm=True)
    torch.testing.assert_close(as_dict["image_intermediates_prefix"][0], final[:, 22:23])
    for options, text in (({"indices": 5}, "1 to 4"), ({"indices": [4]}, "0 to 3"), ({"output_fmt": "NHWC"}, "NCHW")):
        with pytest.raises(UserError, match=text):
            model.forward_intermediates(x, **options)  # type: ignore[arg-type]


def test_intermediates_of_layer_pairs() -> None:
    model = small(depth=4, layer_pairs=True).eval()
    assert [info["module"] for info in model.feature_info] == ["layers.1", "layers.3"]
    assert len(model.forward_intermediates(images(), intermediates_only=True)) == 2


def test_pruning_keeps_the_features() -> None:
    model = small(depth=4).eval()
    x = images()
    want = model.forward_intermediates(x, [1], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
    assert len(model.layers) == 2
    assert model.num_classes == 0
    for indices in ([1], [-1], 1):
        (found,) = model.forward_intermediates(x, indices, intermediates_only=True)
        torch.testing.assert_close(found, want)
    assert len(model.forward_intermediates(x, intermediates_only=True)) == len(model.feature_info) == 2
    rebuilt = Vim(model.config)
    rebuilt.norm_f = torch.nn.Identity()
    rebuilt.load_state_dict(model.state_dict())
    with pytest.raises(UserError, match="feature 3 was asked for; this model has 0 to 1"):
        model.forward_intermediates(x, [3])


def test_heads() -> None:
    model = small(class_names=("cat", "dog", "owl")).eval()
    x = images()
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.config.class_names is None
    model.reset_classifier(0, "avg")
    assert model.global_pool == "avg"
    model.reset_classifier(0, "token")
    torch.testing.assert_close(model(x), features)


def test_parameters_without_decay_and_groups() -> None:
    model = small()
    names = model.no_weight_decay()
    assert {"pos_embed", "cls_token", "layers.1.mixer.A_b_log", "layers.0.mixer.D_b"} <= names
    assert "layers.0.mixer.dt_proj_b.bias" in names
    assert not any(name.endswith(("x_proj.weight", "conv1d.weight", "head.weight", "dt_proj.weight")) for name in names)
    import re

    matcher = model.group_matcher()
    patterns = [matcher["stem"], *(pattern for pattern, _ in matcher["blocks"])]
    unmatched = [name for name, _ in model.named_parameters() if not any(re.match(p, name) for p in patterns)]
    assert unmatched == ["head.weight", "head.bias"]
    # Recurrences other than Mamba, and copies, which lose what their parameters declared.
    other = small(layers=[{"name": "s4d"}, {"name": "local_mamba", "directions": ["h", "w2"]}])
    names = {name.removeprefix("layers.") for name in other.no_weight_decay()}
    assert {f"0.mixer.layer.kernel.{name}" for name in ("inv_dt", "A_real", "A_imag", "B")} <= names
    assert "0.mixer.output_linear.0.weight" not in names
    names = {name.removeprefix("layers.") for name in copy.deepcopy(other).no_weight_decay()}
    assert {f"1.mixer.{name}" for name in ("A_log_0", "A_log_1", "D_0", "D_1", "dt_proj_0.bias")} <= names


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"class_token": "last"}, "class_token"),
        ({"class_token": "none", "global_pool": "token"}, "no class token"),
        ({"img_size": 3}, "smaller than a patch"),
        ({"img_size": "big"}, "img_size"),
        ({"layer_pairs": True, "depth": 3}, "even"),
        ({"scan_orders": ("rastre",)}, "raster"),
        ({"layers": ["manba"]}, "mamba"),
        ({"rope": "patches", "embed_dim": 18}, "multiple of 4"),
        ({"class_names": ("a",)}, "1 names"),
        ({"posembed_resize": "row0"}, "vim-row0"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        small(**options)
    assert "\n" not in str(error.value)


def test_published_arguments() -> None:
    config = from_published({"if_cls_token": False, "final_pool_type": "max", "stride": 8, "bimamba_type": "v1"})
    assert (config.class_token, config.global_pool, config.patch_stride, config.directions) == ("none", "max", 8, "v1")
    assert (config.init, config.posembed_resize) == ("vim", "vim-row0")
    assert from_published({"use_double_cls_token": True}).class_token == "double"
    assert from_published({"use_middle_cls_token": False}).class_token == "first"
    with pytest.raises(UserError, match="bimamba_type"):
        from_published({"bimamba_typ": "v2"})


def test_models_need_no_timm() -> None:
    """With timm hidden, create_model works, and importing the package costs neither torch nor timm."""
    code = (
        "import sys; sys.modules['timm'] = None; sys.modules['torchvision'] = None\n"
        "import longscan.vision\n"
        "assert 'torch' not in sys.modules\n"
        "import longscan, torch\n"
        "m = longscan.create_model('vim_tiny_patch16_224', depth=1, embed_dim=8, img_size=32, num_classes=2)\n"
        "assert m(torch.rand(1, 3, 32, 32)).shape == (1, 2)\n"
        "print(longscan.list_models('vim*', domain='vision'))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "vim_base_patch16_224" in result.stdout
    assert len(result.stdout.split(",")) == 10
