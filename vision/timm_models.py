"""Our models in timm's registry; importing this module registers them (see :mod:`.timm_hook`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..core.checkpoint_files import Checkpoint
from ..core.registry import ModelEntry, apply_overrides, find_model, list_models
from . import models  # noqa: F401  (registers our own)
from .card import VisionCard
from .models.vim import Vim
from .models.vim_config import VimConfig
from .models.vim_format import VimCheckpoint
from .models.vmamba import VMamba
from .models.vmamba_format import VMambaCheckpoint

#: timm appends the names of its models.
__all__: list[str] = []

#: Architectures that classify single images with the interface that timm expects.
_ARCHITECTURES = ("Vim", "VMamba")
_PAPERS = {
    "local_": ("LocalMamba: Visual State Space Model with Windowed Selective Scan", "arXiv:2403.09338"),
    "videomamba": ("VideoMamba: State Space Model for Efficient Video Understanding", "arXiv:2403.06977"),
    "mamba_nd": ("Mamba-ND: Selective State Space Modeling for Multi-Dimensional Data", "arXiv:2402.05892"),
    "vim_hydra": ("Hydra: Bidirectional State Space Models Through Generalized Matrix Mixers", "arXiv:2407.09941"),
    "vim_gated": ("MambaOut: Do We Really Need Mamba for Vision?", "arXiv:2405.07992"),
    "vim": (
        "Vision Mamba: Efficient Visual Representation Learning with Bidirectional State Space Model",
        "arXiv:2401.09417",
    ),
    "": ("VMamba: Visual State Space Model", "arXiv:2401.10166"),
}


def _entries() -> dict[str, ModelEntry]:
    """Return the registered models of images by every name that can be a function's."""
    found: dict[str, ModelEntry] = {}
    for name in list_models(domain="vision"):
        entry = find_model(name)
        assert entry is not None
        if entry.architecture in _ARCHITECTURES:
            found |= dict.fromkeys((name, *(alias for alias in entry.aliases if alias.isidentifier())), entry)
    return found


def _cfg(name: str, entry: ModelEntry) -> dict[str, Any]:
    """timm's description of a model. One without a source of weights takes a checkpoint's file by
    ``pretrained_cfg_overlay`` or ``checkpoint_path``."""
    config = entry.config()
    vim = isinstance(config, VimConfig)
    card = None if entry.folder is None else VisionCard.read(entry.folder)
    title, paper = next(value for start, value in _PAPERS.items() if name.startswith(start))
    cfg: dict[str, Any] = {
        "input_size": (config.in_chans, *config.img_size),
        "num_classes": config.num_classes,
        "pool_size": None if vim else tuple(-(-side // 32) for side in config.img_size),
        "crop_pct": 0.875 if card is None else card.crop_pct,
        "interpolation": "bicubic" if card is None else card.interpolation,
        "mean": IMAGENET_DEFAULT_MEAN if card is None else card.mean,
        "std": IMAGENET_DEFAULT_STD if card is None else card.std,
        "first_conv": _first_convolution(config),
        "classifier": "head" if vim else "classifier.head",
        "paper_name": title,
        "paper_ids": paper,
    }
    if vim:
        cfg["fixed_input_size"] = True
    if entry.hub is not None:
        cfg |= {"hf_hub_id": entry.hub, "hf_hub_filename": entry.hub_file}
        cfg |= {"license": "apache-2.0", "origin_url": f"https://huggingface.co/{entry.hub}"}
        cfg["custom_load"] = "hf"  # through Vim.load_pretrained, which reads no pickled code
    elif entry.folder is not None:
        cfg |= {"file": str(entry.folder / "model.safetensors"), "custom_load": True}  # through Vim.load_pretrained
    return cfg


def _first_convolution(config: Any) -> str:
    if not isinstance(config, VimConfig):
        return "patch_embed.0"
    return "patch_embed.stem.0" if config.stem == "convolutions" else "patch_embed.proj"


_ENTRIES = _entries()
default_cfgs = generate_default_cfgs(
    {f"{name}.in1k" if entry.hub else name: _cfg(name, entry) for name, entry in _ENTRIES.items()}
)


def _build(config: Any, device: Any = None, dtype: Any = None, **options: Any) -> nn.Module:
    """Build a model from timm's keyword arguments, which are fields of its configuration.

    Raises:
        UserError: for an option that it does not have.
    """
    if options.get("num_classes", config.num_classes) != config.num_classes:
        options = {"class_names": None, **options}
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


def _entrypoint(name: str, entry: ModelEntry) -> Callable[..., nn.Module]:
    config = entry.config()
    indices: Any = 3 if isinstance(config, VimConfig) else tuple(range(len(config.depths)))

    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build_model_with_cfg(
            lambda **options: _build(entry.config(), **options),
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": indices, "feature_cls": "getter"},
            **kwargs,
        )

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{entry.description}; ``kwargs`` are fields of ``{type(config).__name__}``."
    return create


for _name, _entry in _ENTRIES.items():
    globals()[_name] = register_model(_entrypoint(_name, _entry))
