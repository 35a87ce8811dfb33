"""The published VMambas by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ...core.registry import ModelEntry, register_model
from . import vmamba  # noqa: F401  (registers the architecture)
from .vmamba_config import VMambaConfig


@dataclass(frozen=True)
class VMambaVariant:
    """A published VMamba and its ImageNet-1k accuracy, percent."""

    embed_dim: int
    depths: tuple[int, ...]
    ratio: float
    top1: float
    vanilla: bool = False
    """The first version: gated, 16 states, no MLPs, patches of 4 and merging of cells."""

    def config(self) -> VMambaConfig:
        """Return its configuration."""
        if not self.vanilla:
            return VMambaConfig(embed_dim=self.embed_dim, depths=self.depths, ssm_ratio=self.ratio)
        return VMambaConfig(
            embed_dim=self.embed_dim,
            depths=self.depths,
            ssm_ratio=self.ratio,
            d_state=16,
            gate=True,
            conv_bias=True,
            mlp_ratio=0.0,
            stem="v1",
            downsample="v1",
        )


VMAMBA_VARIANTS = {
    "vmamba_tiny_s1l8": VMambaVariant(96, (2, 2, 8, 2), 1.0, 82.6),
    "vmamba_tiny_s2l5": VMambaVariant(96, (2, 2, 5, 2), 2.0, 82.5),
    "vmamba_small_s2l15": VMambaVariant(96, (2, 2, 15, 2), 2.0, 83.6),
    "vmamba_small_s1l20": VMambaVariant(96, (2, 2, 20, 2), 1.0, 83.3),
    "vmamba_base_s2l15": VMambaVariant(128, (2, 2, 15, 2), 2.0, 83.9),
    "vmamba_base_s1l20": VMambaVariant(128, (2, 2, 20, 2), 1.0, 83.8),
    "vanilla_vmamba_tiny": VMambaVariant(96, (2, 2, 9, 2), 2.0, 82.2, vanilla=True),
    "vanilla_vmamba_small": VMambaVariant(96, (2, 2, 27, 2), 2.0, 83.5, vanilla=True),
    "vanilla_vmamba_base": VMambaVariant(128, (2, 2, 27, 2), 2.0, 83.7, vanilla=True),
}

for _name, _variant in VMAMBA_VARIANTS.items():
    register_model(
        ModelEntry(
            name=_name,
            domain="vision",
            config=partial(VMambaVariant.config, _variant),
            architecture="VMamba",
            description=f"VMamba, width {_variant.embed_dim}, {sum(_variant.depths)} blocks, ImageNet-1k "
            f"{_variant.top1} %",
        )
    )
