"""The published models by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ...core.registry import ModelEntry, register_model
from . import vim  # noqa: F401  (registers the architecture)
from .vim_config import VimConfig


@dataclass(frozen=True)
class VimVariant:
    """A published Vim: its width and stride, and where its ImageNet-1k weights are."""

    embed_dim: int
    stride: int
    published: str
    """Its name in the original code."""
    hub: str
    hub_file: str
    top1: float
    """Published ImageNet-1k accuracy, percent."""

    def config(self) -> VimConfig:
        """Return its configuration."""
        return VimConfig(embed_dim=self.embed_dim, patch_stride=None if self.stride == 16 else self.stride)


_SUFFIX = "bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2"
_T, _S, _B = "hustvl/Vim-tiny-midclstok", "hustvl/Vim-small-midclstok", "hustvl/Vim-base-midclstok"

VARIANTS = {
    "vim_tiny_patch16_224": VimVariant(
        192, 16, f"vim_tiny_patch16_224_{_SUFFIX}", _T, "vim_t_midclstok_76p1acc.pth", 76.1
    ),
    "vim_tiny_patch16_stride8_224": VimVariant(
        192, 8, f"vim_tiny_patch16_stride8_224_{_SUFFIX}", _T, "vim_t_midclstok_ft_78p3acc.pth", 78.3
    ),
    "vim_small_patch16_224": VimVariant(
        384, 16, f"vim_small_patch16_224_{_SUFFIX}", _S, "vim_s_midclstok_80p5acc.pth", 80.5
    ),
    "vim_small_patch16_stride8_224": VimVariant(
        384, 8, f"vim_small_patch16_stride8_224_{_SUFFIX}", _S, "vim_s_midclstok_ft_81p6acc.pth", 81.6
    ),
    "vim_base_patch16_224": VimVariant(
        768,
        16,
        "vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2",
        _B,
        "vim_b_midclstok_81p9acc.pth",
        81.9,
    ),
}

for _name, _variant in VARIANTS.items():
    register_model(
        ModelEntry(
            name=_name,
            domain="vision",
            config=partial(VimVariant.config, _variant),
            architecture="Vim",
            aliases=(_variant.published, *((_variant.hub,) if _variant.stride == 16 else ())),
            hub=_variant.hub,
            hub_file=_variant.hub_file,
            description=f"Vision Mamba, width {_variant.embed_dim}, patches of 16 every {_variant.stride} pixels, "
            f"ImageNet-1k {_variant.top1} %",
        )
    )
