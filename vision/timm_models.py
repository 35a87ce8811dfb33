"""Our models in timm's registry; importing this module registers them (see :mod:`.timm_hook`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..core.checkpoint_files import Checkpoint
from ..core.registry import apply_overrides
from .models.vim import Vim
from .models.vim_config import VimConfig
from .models.vim_format import VimCheckpoint
from .models.vim_names import VARIANTS, VimVariant
from .models.vmamba import VMamba
from .models.vmamba_config import VMambaConfig
from .models.vmamba_format import VMambaCheckpoint
from .models.vmamba_names import VMAMBA_VARIANTS, VMambaVariant

#: timm appends the names of its models.
__all__: list[str] = []


def _vim_cfg(variant: VimVariant) -> dict[str, Any]:
    return {
        "hf_hub_id": variant.hub,
        "hf_hub_filename": variant.hub_file,
        "custom_load": "hf",  # through Vim.load_pretrained, which reads no pickled code
        "input_size": (3, 224, 224),
        "fixed_input_size": True,
        "num_classes": 1000,
        "pool_size": None,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
        "origin_url": "https://github.com/hustvl/Vim",
        "paper_name": "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
        "paper_ids": "arXiv:2401.09417",
    }


def _vmamba_cfg() -> dict[str, Any]:
    """Without a source of weights: pass a checkpoint's file by ``pretrained_cfg_overlay`` or ``checkpoint_path``."""
    return {
        "input_size": (3, 224, 224),
        "num_classes": 1000,
        "pool_size": (7, 7),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.0",
        "classifier": "classifier.head",
        "license": "mit",
        "origin_url": "https://github.com/MzeroMiko/VMamba",
        "paper_name": "VMamba: Visual State Space Model",
        "paper_ids": "arXiv:2401.10166",
    }


default_cfgs = generate_default_cfgs(
    {
        **{f"{name}.in1k": _vim_cfg(v) for short, v in VARIANTS.items() for name in (short, v.published)},
        **{name: _vmamba_cfg() for name in VMAMBA_VARIANTS},
    }
)


def _build(config: Any, device: Any = None, dtype: Any = None, **options: Any) -> nn.Module:
    """Build a model from timm's keyword arguments, which are fields of its configuration.

    Raises:
        UserError: for an option that it does not have.
    """
    fields = apply_overrides(config, options)
    model: nn.Module = Vim(fields) if isinstance(fields, VimConfig) else VMamba(fields)
    return model.to(device=device, dtype=dtype) if device is not None or dtype is not None else model


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Unwrap a published state dictionary and fit it to ``model``."""
    assert isinstance(model, Vim | VMamba)
    for wrapper in ("model", "state_dict"):
        if isinstance(state_dict.get(wrapper), dict):
            state_dict = state_dict[wrapper]
    published = VimCheckpoint() if isinstance(model, Vim) else VMambaCheckpoint()
    checkpoint = Checkpoint(Path("state dictionary"), state_dict)
    tensors = {key: value for key, value in published.tensors(checkpoint).items() if not published.computed(key)}
    return model.fit_weights(tensors, published.read_config(checkpoint))


def _entrypoint(name: str, variant: VimVariant | VMambaVariant) -> Callable[..., nn.Module]:
    vim = isinstance(variant, VimVariant)
    feature_cfg = {"out_indices": 3 if vim else tuple(range(len(VMambaConfig().depths))), "feature_cls": "getter"}

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(
            lambda **options: _build(variant.config(), **options),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg=dict(feature_cfg),
            **kwargs,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = (
        f"{'Vim' if vim else 'VMamba'} of width {variant.embed_dim} ({variant.top1} % of ImageNet-1k as published); "
        f"``kwargs`` are fields of ``{'Vim' if vim else 'VMamba'}Config``."
    )
    return create


_variants: dict[str, VimVariant | VMambaVariant] = {
    **{name: variant for short, variant in VARIANTS.items() for name in (short, variant.published)},
    **VMAMBA_VARIANTS,
}
for _name, _variant in _variants.items():
    globals()[_name] = register_model(_entrypoint(_name, _variant))
