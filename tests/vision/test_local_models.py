"""LocalVim and LocalVMamba by name: published sizes, weights that load, routes weighted by channel, windows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import longscan
from longscan.core.errors import UserError
from longscan.core.scan_orders import scan_order
from longscan.vision.models import VMamba
from longscan.vision.models.local_names import LOCAL_MODELS, LOCAL_VIM_TINY, LOCAL_VMAMBA_SMALL, LOCAL_VMAMBA_TINY
from longscan.vision.models.ss2d import SS2D


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("local_vim_tiny", 8),
        ("local_vim_tiny_middle_cls_token", 8),
        ("local_vim_small", 28),
        ("local_vmamba_tiny", 26),
        ("local_vmamba_small", 50),
        ("local_vssm_small", 50),
    ],
)
def test_published_sizes(name: str, millions: int) -> None:
    with torch.device("meta"):
        model = longscan.create_model(name)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions


def test_tables() -> None:
    """Four directions for each block, and the first rows as published."""
    assert [len(LOCAL_VIM_TINY), len(LOCAL_VMAMBA_TINY), len(LOCAL_VMAMBA_SMALL)] == [20, 15, 33]
    assert all(len(set(row)) == 4 for row in (*LOCAL_VIM_TINY, *LOCAL_VMAMBA_TINY, *LOCAL_VMAMBA_SMALL))
    assert LOCAL_VIM_TINY[0] == ("h", "v_flip", "w7", "w7_flip")
    assert LOCAL_VMAMBA_TINY[1] == ("h_flip", "v_flip", "w2", "w2_flip")
    assert LOCAL_VMAMBA_SMALL[-1] == ("h", "v", "w7", "w7_flip")


def small(name: str, **options: Any) -> nn.Module:
    if name.startswith("local_vmamba"):
        return longscan.create_model(name, embed_dim=8, d_state=2, num_classes=3, **options).eval()
    return longscan.create_model(name, img_size=48, num_classes=3, **options).eval()


@pytest.mark.parametrize("name", ["local_vim_tiny", "local_vim_tiny_middle_cls_token", "local_vmamba_tiny"])
def test_checkpoints_load_by_their_names(name: str, tmp_path: Path) -> None:
    """Directions come from the published tables."""
    model = small(name)
    path = tmp_path / "checkpoint.pth"
    torch.save({"state_dict": model.state_dict()}, path)
    loaded = longscan.from_pretrained(path).eval()
    x = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(loaded(x), model(x))
    again = longscan.from_pretrained(model.save_pretrained(tmp_path / "saved")).eval()  # type: ignore[operator]
    torch.testing.assert_close(again(x), model(x))


def test_unknown_directions_are_asked_for(tmp_path: Path) -> None:
    model = small("local_vim_tiny", embed_dim=16)
    torch.save(model.state_dict(), tmp_path / "vim.pth")
    with pytest.raises(UserError, match="directions are unknown"):
        longscan.from_pretrained(tmp_path / "vim.pth")
    model = small("local_vmamba_tiny", depths=(2, 2), routes=LOCAL_VMAMBA_TINY[:4])
    torch.save(model.state_dict(), tmp_path / "vmamba.pth")
    with pytest.raises(UserError, match="directions are unknown"):
        longscan.from_pretrained(tmp_path / "vmamba.pth")


def by_hand(layer: SS2D, x: Tensor) -> Tensor:
    """Every route read out with its padding, scanned alone, brought back, weighted, added."""
    height, width = x.shape[1:3]
    total: Any = 0
    for k, (name, reverse) in enumerate(layer.routes):
        order = scan_order(name, height, width, padded=True)
        single = SS2D(x.shape[-1], layer.d_state, 1.0, layer.dt_rank, routes=["raster"])
        single.inner = layer.inner
        for part in ("x_proj_weight", "dt_projs_weight", "dt_projs_bias"):
            setattr(single, part, nn.Parameter(getattr(layer, part)[[k]]))
        for part in ("A_logs", "Ds"):
            setattr(single, part, nn.Parameter(getattr(layer, part).unflatten(0, (len(layer.routes), -1))[k]))
        read = order.scan(x.flatten(1, 2))
        y = single._scan_routes(read.flip(1) if reverse else read, [0])
        y = order.unscan(y.flip(1) if reverse else y)
        attention: Any = layer.multi_scan["attn"]
        mean = F.layer_norm(y, y.shape[-1:], attention.norm.weight, attention.norm.bias).mean(1, keepdim=True)
        total = total + y * attention.channel_select(F.gelu(attention.global_reduce(mean))).sigmoid()
    return total.view_as(x)


def test_routes_are_weighted_by_channel() -> None:
    """On a grid that windows do not fill, so that padding must not enter the mean."""
    layer = SS2D(16, 2, 1.0, routes=["h", "v_flip", "w2", "w2_flip"], padded=True, channel_attention=True)
    with torch.no_grad():
        for parameter in layer.multi_scan.parameters():
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(2, 3, 5, 16)
    torch.testing.assert_close(layer.scan(x), by_hand(layer, x), rtol=1e-4, atol=1e-5)


def test_gradients_reach_everything() -> None:
    for name, options in (("local_vim_tiny", {"embed_dim": 16}), ("local_vmamba_tiny", {})):
        model = small(name, **options)
        model(torch.randn(1, 3, 48, 48)).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert isinstance(model, VMamba)
    assert set(LOCAL_MODELS) <= set(longscan.list_models(domain="vision"))
