"""LocalVim and LocalVMamba by name (Huang et al. 2024, arXiv:2403.09338), in the directions of the published search."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ...core.registry import ModelEntry, register_model
from . import local_mixer, vim, vmamba  # noqa: F401  (register the mixer and the architectures)
from .vim_config import VimConfig
from .vmamba_config import VMambaConfig

Directions = tuple[tuple[str, ...], ...]


def _table(*rows: str) -> Directions:
    return tuple(tuple(row.replace("-", "_flip").split()) for row in rows)


#: Four directions for each block of LocalVim-T; ``-`` in a row stands for ``_flip``.
LOCAL_VIM_TINY = _table(
    "h v- w7 w7-",
    "h- w2- w7 w7-",
    "h h- v w7",
    "h h- v v-",
    "h h- v v-",
    "h h- v v-",
    "h- v v- w7",
    "h- v v- w2-",
    "h h- v v-",
    "h h- v v-",
    "h v v- w2",
    "h v v- w2-",
    "h h- v- w7",
    "h- v v- w2",
    "h h- v v-",
    "h v w2 w2-",
    "v v- w2 w7",
    "h h- v w2",
    "h h- w2- w7",
    "v v- w2 w2-",
)
#: Without a search; the published code names its small model twice, and this is what the name gives.
LOCAL_VIM_SMALL = _table(*["h h- w2 w2-"] * 20)
LOCAL_VMAMBA_TINY = _table(
    "h h- w7 w7-",
    "h- v- w2 w2-",
    "h- v- w2- w7",
    "h- v v- w2",
    "h h- v- w2-",
    "h- v- w2 w2-",
    "h w2- w7 w7-",
    "h h- v v-",
    "h v- w7 w7-",
    "h- v w2 w7-",
    "v v- w2 w7-",
    "h h- v- w2-",
    "v- w2- w7 w7-",
    "h- v- w2- w7-",
    "h- v w7 w7-",
)
LOCAL_VMAMBA_SMALL = _table(
    "h v v- w7-",
    "h h- v w7",
    "h- v v- w7",
    "h- v w2- w7",
    "h- v w2- w7",
    "h- v- w2 w7-",
    "h- v v- w7",
    "h v v- w7",
    "h v v- w7",
    "h v v- w7-",
    "h h- v v-",
    "h v v- w2",
    "v v- w2- w7",
    "h h- v w2",
    "h- v v- w7-",
    "h h- v v-",
    "h v v- w7-",
    "h v v- w7-",
    "h h- v- w7",
    "h- v- w2- w7",
    "h- v v- w7-",
    "v v- w7 w7-",
    "h v v- w7-",
    "h- v v- w2",
    "h v v- w2-",
    "h h- v w7",
    "h h- w7 w7-",
    "h v- w2 w2-",
    "h v- w2 w7",
    "h v v- w7-",
    "h- v w2- w7",
    "h- v- w7 w7-",
    "h v w7 w7-",
)


def local_vim(embed_dim: int, directions: Directions, middle: bool = False) -> VimConfig:
    """Return the configuration of a LocalVim: rotary positions and the mean of the patches, or a class token."""
    token = "middle" if middle else "none"
    return VimConfig(
        embed_dim=embed_dim,
        depth=len(directions),
        class_token="middle" if middle else "none",
        rope="none" if middle else "patches",
        rope_residual=not middle,
        layers=[{"name": "local_mamba", "directions": row, "class_token": token} for row in directions],
    )


def local_vmamba(directions: Directions) -> VMambaConfig:
    """Return the configuration of a LocalVMamba: VMamba's first version with searched, weighted routes."""
    return VMambaConfig(
        depths=(2, 2, len(directions) - 6, 2),
        d_state=16,
        ssm_ratio=2.0,
        conv_bias=True,
        gate=True,
        mlp_ratio=0.0,
        stem="v1",
        downsample="v1",
        routes=directions,
        padded=True,
        channel_attention=True,
    )


LOCAL_MODELS: dict[str, tuple[str, Callable[[], Any], float]] = {
    "local_vim_tiny": ("Vim", partial(local_vim, 192, LOCAL_VIM_TINY), 76.2),
    "local_vim_tiny_middle_cls_token": ("Vim", partial(local_vim, 192, LOCAL_VIM_TINY, middle=True), 77.8),
    "local_vim_small": ("Vim", partial(local_vim, 384, LOCAL_VIM_SMALL), 81.1),
    "local_vmamba_tiny": ("VMamba", partial(local_vmamba, LOCAL_VMAMBA_TINY), 82.7),
    "local_vmamba_small": ("VMamba", partial(local_vmamba, LOCAL_VMAMBA_SMALL), 83.7),
}
_PUBLISHED = {"local_vmamba_tiny": ("local_vssm_tiny",), "local_vmamba_small": ("local_vssm_small",)}

for _name, (_architecture, _config, _top1) in LOCAL_MODELS.items():
    register_model(
        ModelEntry(
            name=_name,
            domain="vision",
            config=_config,
            architecture=_architecture,
            aliases=_PUBLISHED.get(_name, ()),
            description=f"Local{_architecture}: windowed scans in searched directions, ImageNet-1k {_top1} %",
        )
    )
