"""Other mixers in Vim's stack: MambaOut's gated convolution, Hydra, Mamba-ND's axes."""

from __future__ import annotations

import pytest
import torch

import longscan
from longscan.core.errors import UserError
from longscan.core.mixers import create_mixer
from longscan.vision.models import GatedConv, Vim


def test_gated_convolution_equals_the_published_block() -> None:
    """timm holds the published implementation of the block."""
    mambaout = pytest.importorskip("timm.models.mambaout")
    for options in ({}, {"expansion_ratio": 3.0, "conv_ratio": 1.5, "kernel_size": 3}):
        block = mambaout.GatedConvBlock(12, **options).eval()
        mixer = GatedConv(
            12, options.get("expansion_ratio", 8 / 3), options.get("kernel_size", 7), options.get("conv_ratio", 1.0)
        )
        mixer.load_state_dict({k: v for k, v in block.state_dict().items() if not k.startswith("norm")})
        mixer.grid = (5, 3)
        x = torch.randn(2, 5, 3, 12)
        want = (block(x) - x).flatten(1, 2)
        torch.testing.assert_close(mixer(block.norm(x).flatten(1, 2)), want)


def test_gated_convolution_refuses_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="kernel_size is 4"):
        create_mixer("gated_conv", 8, kernel_size=4)
    with pytest.raises(UserError, match="24 of 21 channels"):
        create_mixer("gated_conv", 8, conv_ratio=3.0)
    with pytest.raises(UserError, match="needs the grid"):
        create_mixer("gated_conv", 8)(torch.zeros(1, 4, 8))
    with pytest.raises(UserError, match="got 4 tokens"):
        create_mixer("gated_conv", 8, grid=[2, 3])(torch.zeros(1, 4, 8))
    with pytest.raises(UserError, match="no state, cu_seqlens or reverse"):
        create_mixer("gated_conv", 8, grid=[2, 2])(torch.zeros(1, 4, 8), reverse=True)


def test_axes_alternate() -> None:
    """A block of Mamba-ND is a causal Mamba along its own direction: as if the tokens were brought into it by hand."""
    model = longscan.create_model("mamba_nd_tiny_patch16_224", embed_dim=16, depth=1, img_size=(48, 80)).eval()
    assert isinstance(model, Vim)
    x = torch.randn(1, 3, 48, 80)
    tokens, grid = model.embed(x)
    whole = model._run(tokens, grid, set())[0]
    for order, reader in (
        ("raster_reverse", lambda t: t.flip(1)),
        ("column", lambda t: t.unflatten(1, grid).transpose(1, 2).flatten(1, 2)),
    ):
        other = longscan.create_model(
            "mamba_nd_tiny_patch16_224", embed_dim=16, depth=1, img_size=(48, 80), scan_orders=[order]
        ).eval()
        other.load_state_dict(model.state_dict())
        got = other._run(tokens, grid, set())[0]
        # the plain model on tokens brought into that order by hand
        torch.testing.assert_close(reader(got), model._run(reader(tokens), grid, set())[0])
        assert not torch.allclose(got, whole)


@pytest.mark.parametrize(
    "name", ["vim_hydra_tiny_patch16_224", "vim_gated_conv_tiny_patch16_224", "mamba_nd_tiny_patch16_224"]
)
def test_saved_and_loaded(name: str, tmp_path: str) -> None:
    model = longscan.create_model(name, embed_dim=16, depth=4, img_size=48, num_classes=3).eval()
    x = torch.randn(2, 3, 48, 48)
    again = longscan.from_pretrained(model.save_pretrained(f"{tmp_path}/saved")).eval()  # type: ignore[operator]
    torch.testing.assert_close(again(x), model(x))
    model(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_hydra_sees_both_ways_from_the_class_token() -> None:
    model = longscan.create_model("vim_hydra_tiny_patch16_224", embed_dim=16, depth=1, img_size=48).eval()
    x = torch.randn(1, 3, 48, 48)
    logits = model(x)
    for corner in ((0, 0), (2, 2)):
        changed = x.clone()
        row, column = (16 * i for i in corner)
        changed[..., row : row + 16, column : column + 16] += 1
        assert (model(changed) - logits).abs().max() > 1e-5


def test_smaller_patches_bring_their_own_stride() -> None:
    model = longscan.create_model("vim_tiny_patch16_224", embed_dim=8, depth=1, img_size=32, patch_size=4)
    assert model.config.grid == (8, 8)
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 1000)
    finer = longscan.create_model("vim_tiny_patch16_stride8_224", img_size=32, embed_dim=8, depth=1)
    assert finer.config.grid == (3, 3)
