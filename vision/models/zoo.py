"""Models trained here, whose weights ship in the package."""

from __future__ import annotations

from pathlib import Path

from ...core.registry import register_shipped

register_shipped(
    "vim_cifar10",
    "vision",
    "Vim",
    Path(__file__).parent.parent / "zoo",
    "Vim of 5.2 M parameters on CIFAR-10, 32 × 32 pixels (vision/cifar10_vim)",
)
