"""A small Vim and images for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from longscan.vision.models import Vim, VimConfig


def small(**options: Any) -> Vim:
    defaults: dict[str, Any] = dict(embed_dim=16, depth=2, img_size=(20, 12), patch_size=4, num_classes=3, d_state=4)
    return Vim(VimConfig(**{**defaults, **options}))


def images(batch: int = 2, height: int = 20, width: int = 12, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, height, width)
