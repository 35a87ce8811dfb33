"""Vim's stack with other mixers, by name: Hydra, Mamba-ND's axes, VideoMamba's image models, and no state space."""

from __future__ import annotations

from functools import partial
from typing import Any

from ...core.registry import ModelEntry, register_model
from . import gated_conv, vim  # noqa: F401  (register the mixer and the architecture)
from .vim_config import VimConfig

_AXES = ("raster", "raster_reverse", "column", "column_reverse")
#: Options and what they are, by the name's beginning; the widths of the sizes follow.
_FAMILIES: dict[str, tuple[dict[str, Any], str]] = {
    "vim_hydra": (
        {"layers": ["hydra"]},
        "Hydra's quasiseparable mixer (arXiv:2407.09941) in Vim's stack",
    ),
    "mamba_nd": (
        {"layers": ["mamba"], "scan_orders": _AXES, "class_token": "none", "norm": "layernorm"},
        "one causal Mamba for each block, along rows and columns in turn, back and forth (Mamba-ND, arXiv:2402.05892), "
        "in Vim's stack",
    ),
    "vim_gated_conv": (
        {"layers": ["gated_conv"], "class_token": "none", "norm": "layernorm"},
        "MambaOut's gated convolution (arXiv:2405.07992) in Vim's stack: the control without a state space",
    ),
}
_SIZES = {"tiny": 192, "small": 384}
#: Width and depth of VideoMamba's models of single images, and their ImageNet-1k accuracy at 224 pixels.
_VIDEOMAMBA = {"tiny": (192, 24, 76.9), "small": (384, 24, 81.2), "middle": (576, 32, 82.8)}


def _register(name: str, description: str, **options: Any) -> None:
    register_model(
        ModelEntry(
            name=name,
            domain="vision",
            config=partial(VimConfig, **options),
            architecture="Vim",
            description=description,
        )
    )


for _family, (_options, _what) in _FAMILIES.items():
    for _size, _width in _SIZES.items():
        _register(f"{_family}_{_size}_patch16_224", _what, embed_dim=_width, **_options)
for _size, (_width, _depth, _top1) in _VIDEOMAMBA.items():
    _register(
        f"videomamba_image_{_size}",
        f"VideoMamba's model of single images (arXiv:2403.06977), ImageNet-1k {_top1} %",
        embed_dim=_width,
        depth=_depth,
        class_token="first",
        divide_out=False,
    )
