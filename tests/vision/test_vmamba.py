"""VMamba equals the published code; its scan equals routes taken one by one; its checkpoints load."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import longscan
from longscan.core.errors import UserError
from longscan.core.ops import selective_scan
from longscan.core.scan_orders import scan_order
from longscan.vision.models import VMamba, VMambaConfig, vmamba_from_published
from longscan.vision.models.ss2d import SS2D

GOLDEN = Path(__file__).parent.parent / "golden" / "vision"
CASES = sorted(path.parent.name for path in GOLDEN.glob("vmamba_*/model.safetensors"))


def small(**options: Any) -> VMamba:
    return VMamba(VMambaConfig(**{"embed_dim": 8, "depths": (1, 2), "num_classes": 3, "d_state": 2, **options}))


def images(height: int = 36, width: int = 28, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, height, width)


# ---- the published numbers -------------------------------------------------------------------------------------------


def test_every_family_is_here() -> None:
    assert len(CASES) == 5


@pytest.mark.parametrize("case", CASES)
def test_the_published_numbers(case: str) -> None:
    """Stages, features, logits and gradients of the logits times a cotangent, also on odd maps."""
    config = json.loads((GOLDEN / case / "config.json").read_text())
    model = VMamba(vmamba_from_published(config["constructor"])).eval()
    model.load_state_dict(load_file(GOLDEN / case / "model.safetensors"))
    golden = dict(np.load(GOLDEN / case / "outputs.npz"))
    x = torch.from_numpy(np.load(GOLDEN / case / "inputs.npz")["x"]).requires_grad_()
    last, maps = model.forward_intermediates(x)
    logits = model.forward_head(last)
    (logits * torch.from_numpy(golden["cotangent"])).sum().backward()
    assert x.grad is not None
    got: dict[str, Tensor] = {f"stage{i}": stage for i, stage in enumerate(maps)}
    got |= {"forward_features": last.permute(0, 3, 1, 2), "pooled": model.forward_head(last, pre_logits=True)}
    got |= {"logits": logits, "grad_input": x.grad}
    for key in golden:
        if key.startswith("grad."):
            gradient = model.get_parameter(key.removeprefix("grad.")).grad
            assert gradient is not None
            got[key] = gradient
    assert set(got) >= set(golden) - {"cotangent"}
    for key, value in got.items():
        np.testing.assert_allclose(value.detach().numpy(), golden[key], err_msg=key, **config["tolerance"])


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("vmamba_tiny_s1l8", 30.25),
        ("vmamba_tiny_s2l5", 30.71),
        ("vmamba_small_s2l15", 50.15),
        ("vmamba_small_s1l20", 49.01),
        ("vmamba_base_s2l15", 88.56),
        ("vmamba_base_s1l20", 86.61),
        ("vanilla_vmamba_tiny", 22.89),
        ("vanilla_vmamba_small", 44.42),
        ("vanilla_vmamba_base", 76.25),
    ],
)
def test_published_sizes(name: str, millions: float) -> None:
    with torch.device("meta"):
        model = longscan.create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


# ---- the scan --------------------------------------------------------------------------------------------------------


def one_by_one(op: SS2D, x: Tensor, names: list[str]) -> Tensor:
    """Each route permuted, scanned and put back by itself; padding is put in by hand."""
    batch, height, width, inner = x.shape
    total = torch.zeros(batch, height * width, inner)
    for k, name in enumerate(names):
        order = scan_order(name, height, width, padded=op.padded)
        u = torch.stack(
            [x.flatten(1, 2)[:, cell] if cell >= 0 else torch.zeros(batch, inner) for cell in order.index.tolist()], 1
        )
        dt, B, C = (u @ op.x_proj_weight[k].T).split([op.dt_rank, op.d_state, op.d_state], -1)
        delta = F.softplus(dt @ op.dt_projs_weight[k].T + op.dt_projs_bias[k])
        rows = slice(k * inner, (k + 1) * inner)
        y = selective_scan(u, delta, -op.A_logs[rows].exp(), B, C, op.Ds[rows], backend="reference")
        assert isinstance(y, Tensor)
        for place, cell in enumerate(order.index.tolist()):
            if cell >= 0:
                total[:, cell] += y[:, place]
    return total.view_as(x)


@pytest.mark.parametrize(
    ("routes", "names", "padded"),
    [
        ("cross", ["raster", "column", "raster_reverse", "column_reverse"], False),
        ("rotation", ["rotation0", "rotation1", "rotation2", "rotation3"], False),
        (["h", "h_flip", "w2", "w2_flip"], ["raster", "raster_reverse", "window2", "window2_reverse"], True),
        (["v_flip", "w3", "w2", "zigzag3"], ["column_reverse", "window3", "window2", "zigzag3"], True),
        (["reverse", "hilbert"], ["raster_reverse", "hilbert0"], False),
    ],
)
def test_routes_share_calls_without_changing_a_number(routes: Any, names: list[str], padded: bool) -> None:
    op = SS2D(6, d_state=3, routes=routes, padded=padded)
    torch.nn.init.normal_(op.Ds)
    x = torch.randn(2, 5, 3, 6)
    torch.testing.assert_close(op.scan(x), one_by_one(op, x, names), rtol=1e-4, atol=1e-5)


def test_routes_of_each_block() -> None:
    model = small(depths=(1, 1), routes=(("h", "w2"), ("v", "v_flip")), padded=True)
    assert [block.op.routes for block in (model.layers[0]["blocks"][0], model.layers[1]["blocks"][0])] == [  # type: ignore[index]
        (("raster", False), ("w2", False)),
        (("column", False), ("column", True)),
    ]
    assert model(images()).isfinite().all()


def test_initial_steps() -> None:
    op = SS2D(64, ratio=2.0)
    steps = F.softplus(op.dt_projs_bias)
    assert 0.9e-3 < steps.min() < 2e-3
    assert 0.05 < steps.max() < 0.11
    assert op.x_proj_weight.abs().max().item() == pytest.approx(128**-0.5, rel=0.01)


# ---- sizes and features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("downsample", ["v1", "v2", "v3"])
def test_any_size(downsample: Any) -> None:
    """Odd maps are rounded up (v1 pads, v3 has a border) or down (v2)."""
    model = small(downsample=downsample, depths=(1, 1, 1)).eval()
    maps = model.forward_intermediates(images(37, 30), intermediates_only=True)
    rounded = [(10, 8), (5, 4), (2, 2)] if downsample == "v2" else [(10, 8), (5, 4), (3, 2)]
    assert [tuple(m.shape[2:]) for m in maps] == rounded
    with pytest.raises(UserError, match="multiples of 4"):
        small(stem="v1")(images(37, 30))


def test_positions_are_resized() -> None:
    model = small(position_embedding=True, img_size=32).eval()
    x = images(48, 32)
    want = model(x)
    model.set_input_size((48, 32))
    assert model.pos_embed.shape == (1, 8, 12, 8)
    torch.testing.assert_close(model(x), want)


def test_interface() -> None:
    model = small(depths=(1, 1, 1)).eval()
    x = images()
    features = model.forward_features(x)
    torch.testing.assert_close(model.forward_head(features), model(x))
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    model.reset_classifier(0)
    assert model(x).shape == (2, 32)
    model.reset_classifier(0, "")
    assert model(x).shape == (2, 3, 2, 32)
    names = model.no_weight_decay()
    assert {f"layers.0.blocks.0.op.{name}" for name in ("A_logs", "Ds", "dt_projs_bias")} <= names
    want = model.forward_intermediates(x, [1], intermediates_only=True)[0]
    model.prune_intermediate_layers([1], prune_norm=True)
    torch.testing.assert_close(model.forward_intermediates(x, [1], intermediates_only=True)[0], want)
    assert len(model.layers) == 2


def test_checkpointing_changes_no_gradient() -> None:
    plain, again = small(), small(gradient_checkpointing=True)
    again.load_state_dict(plain.state_dict())
    x = images()
    plain(x).square().sum().backward()
    again(x).square().sum().backward()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(again.get_parameter(name).grad, parameter.grad)


def test_bfloat16_is_near() -> None:
    exact = small().eval()
    short = small().to(torch.bfloat16).eval()
    short.load_state_dict(exact.state_dict())
    exact.load_state_dict({key: value.float() for key, value in short.state_dict().items()})
    x = images().bfloat16()
    torch.testing.assert_close(short(x).float(), exact(x.float()), rtol=0.05, atol=0.03)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"routes": "crss"}, "cross"),
        ({"routes": ("rastr",)}, "raster"),
        ({"routes": (("h",),)}, "1 entries, expected one for each of 3 blocks"),
        ({"stem": "v3"}, "stem"),
        ({"depths": ()}, "depths"),
    ],
)
def test_mistakes_are_told_in_one_line(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text) as error:
        small(**options)
    assert "\n" not in str(error.value)


def test_published_arguments() -> None:
    config = vmamba_from_published({"forward_type": "v051d_nozact_oact_no32", "dims": [8, 16], "depths": [1, 1]})
    assert (config.routes, config.gate, config.gate_activation, config.out_activation) == (
        "unidirectional",
        True,
        False,
        True,
    )
    for arguments, text in (
        ({"forward_type": "v052dc"}, "v052dc"),
        ({"ssm_act_layer": "relu"}, "silu"),
        ({"ssm_rati": 2}, "ssm_ratio"),
        ({"dims": [8, 20]}, "double"),
    ):
        with pytest.raises(UserError, match=text):
            vmamba_from_published(arguments)


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def save(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    path = tmp_path / "vssm.pth"
    torch.save({"model": tensors, "epoch": 3, "config": argparse.Namespace(lr=1.0)}, path)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gate": True, "conv_bias": True, "mlp_ratio": 0.0, "stem": "v1", "downsample": "v1", "ssm_ratio": 2.0},
        {"downsample": "v2", "position_embedding": True, "img_size": (32, 48)},
        {"d_state": 1, "in_chans": 1, "dt_rank": 3},
    ],
)
def test_a_training_checkpoint(tmp_path: Path, options: dict[str, Any]) -> None:
    model = small(**options).eval()
    x = images(32, 48, model.config.in_chans)
    loaded = longscan.from_pretrained(save(tmp_path, model.state_dict()))
    assert torch.equal(loaded(x), model(x))
    assert longscan.from_pretrained(tmp_path / "vssm.pth", num_classes=9)(x).shape == (2, 9)
    model.save_pretrained(tmp_path / "own")
    assert torch.equal(longscan.from_pretrained(tmp_path / "own")(x), model(x))
    assert longscan.from_pretrained(tmp_path / "own", num_classes=4)(x).shape == (2, 4)


def test_older_names_and_layouts(tmp_path: Path) -> None:
    """The first version's names, linear layers as 1 × 1 convolutions, projections as a grouped convolution."""
    model = small(gate=True, stem="v1", d_state=1).eval()
    old = {}
    for key, value in model.state_dict().items():
        if key.endswith(("in_proj.weight", "fc1.weight")):
            value = value[:, :, None, None]
        if key.endswith("x_proj_weight"):
            key, value = key.replace("x_proj_weight", "x_proj.weight"), value.flatten(0, 1)[:, :, None]
        key = key.replace("patch_embed.0.", "patch_embed.proj.").replace("patch_embed.2.", "patch_embed.norm.")
        key = key.replace("blocks.0.norm.", "blocks.0.ln_1.").replace(".op.", ".self_attention.")
        old["module." + key.replace("classifier.norm", "norm").replace("classifier.head", "head")] = value
    x = images(32, 48)
    assert torch.equal(longscan.from_pretrained(save(tmp_path, old))(x), model(x))


def test_other_routes_need_to_be_told(tmp_path: Path) -> None:
    """Weights do not show the routes."""
    model = small(routes="bidirectional").eval()
    path = save(tmp_path, model.state_dict())
    x = images()
    assert torch.equal(longscan.from_pretrained(path, routes="bidirectional")(x), model(x))
    assert not torch.equal(longscan.from_pretrained(path)(x), model(x))
    with pytest.raises(UserError, match="4 routes, its configuration names 2"):
        longscan.from_pretrained(path, config={"routes": ["h", "v"]})


def test_in_timm(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vmamba_tiny_s1l8", embed_dim=8, depths=(1, 1, 1, 1), num_classes=5).eval()
    x = images(70, 65)
    assert model(x).shape == (2, 5)
    assert f"{model.pretrained_cfg['first_conv']}.weight" in model.state_dict()
    assert f"{model.pretrained_cfg['classifier']}.weight" in model.state_dict()
    features = timm.create_model("vmamba_tiny_s1l8", embed_dim=8, depths=(1, 1, 1, 1), features_only=True).eval()
    features.model.load_state_dict(model.state_dict(), strict=False)
    for got, channels, reduction in zip(
        features(x), features.feature_info.channels(), features.feature_info.reduction(), strict=True
    ):
        assert got.shape == (2, channels, -(-70 // reduction), -(-65 // reduction))
    path = save(tmp_path, model.state_dict())
    loaded = timm.create_model(
        "vmamba_tiny_s1l8",
        embed_dim=8,
        depths=(1, 1, 1, 1),
        num_classes=5,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(path), "num_classes": 5},
    ).eval()
    assert torch.equal(loaded(x), model(x))
