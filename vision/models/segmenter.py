"""A light segmentation head on the features of any image model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.errors import UserError
from ...core.registry import apply_overrides, build, find_architecture, find_model, register_architecture
from .image_model import ImageModel


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """A backbone and a head."""

    backbone: str = "vim_tiny_patch16_224"
    """Name of a registered model, or of an architecture."""
    backbone_options: dict[str, Any] = field(default_factory=dict)
    """Fields of its configuration to replace."""
    img_size: Any = 224
    """Height and width of the images, or one number for both."""
    in_chans: int = 3
    """Channels of the images."""
    num_classes: int = 2
    """Classes of a pixel."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights."""
    head: Literal["segmentation"] = "segmentation"
    """What the model ends in."""
    stages: int = 4
    """How many feature maps the head sees, evenly spread over the depth (Vim) or the last ones (VMamba)."""
    width: int = 128
    """Channels of the head."""

    def __post_init__(self) -> None:
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else tuple(self.img_size)
        object.__setattr__(self, "img_size", size)
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.stages < 1 or self.width < 1:
            raise UserError(f"stages {self.stages}, width {self.width}: each must be at least 1")


@register_architecture("Segmenter", SegmenterConfig)
class Segmenter(nn.Module):
    """Feature maps of several depths, each through a linear layer and brought to the size of the largest, together
    through two more: the head of SegFormer (Xie et al. 2021, arXiv:2105.15203), then bilinear to the image's pixels.
    """

    config: SegmenterConfig
    head_prefix = "classifier."

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        entry = find_model(config.backbone)
        architecture = config.backbone if entry is None else entry.architecture
        fields: dict[str, Any] = {"img_size": config.img_size, "in_chans": config.in_chans, "num_classes": 0}
        if entry is None:
            find_architecture(architecture)  # an unknown name is told now
            backbone: Any = build(architecture, fields | config.backbone_options)
        else:
            backbone = build(architecture, apply_overrides(entry.config(), fields | config.backbone_options))
        if not isinstance(backbone, ImageModel) or not hasattr(backbone, "forward_intermediates"):
            raise UserError(f"{config.backbone} gives no feature maps; choose a Vim or a VMamba as backbone")
        self.backbone: Any = backbone
        count = len(backbone.feature_info)
        # Evenly over the depth, the last block always.
        chosen = sorted({round((index + 1) * count / config.stages) - 1 for index in range(config.stages)} - {-1})
        self.indices = chosen
        widths = [backbone.feature_info[index]["num_chs"] for index in chosen]
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for width in widths)
        self.projections = nn.ModuleList(nn.Conv2d(width, config.width, 1) for width in widths)
        self.fuse = nn.Conv2d(config.width * len(widths), config.width, 1)
        self.classifier = nn.Conv2d(config.width, config.num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, in_chans, height, width) to logits (batch, num_classes, height, width)."""
        maps = self.backbone.forward_intermediates(x, indices=self.indices, intermediates_only=True)
        parts = [
            project(norm(found.to(project.weight.dtype)))  # type: ignore[arg-type, union-attr]
            for found, norm, project in zip(maps, self.norms, self.projections, strict=True)
        ]
        size = max((tuple(part.shape[-2:]) for part in parts), key=lambda shape: shape[0] * shape[1])
        resized = [functional.interpolate(part, size, mode="bilinear", align_corners=False) for part in parts]
        hidden = functional.gelu(self.fuse(torch.cat(resized, 1)))
        logits = self.classifier(hidden)
        return functional.interpolate(logits.float(), tuple(x.shape[-2:]), mode="bilinear", align_corners=False)

    def layer_depths(self) -> dict[str, int]:
        """See `ImageModel`; the head follows the last block."""
        inner = self.backbone.layer_depths()
        last = max(inner.values())
        names = [name for name, _ in self.named_parameters()]
        return {name: inner.get(name.removeprefix("backbone."), last) for name in names}

    def fit_weights(self, tensors: Mapping[str, Tensor], source: SegmenterConfig) -> dict[str, Tensor]:
        """Fit the backbone's weights to this one's grid."""
        inner = {key.removeprefix("backbone."): value for key, value in tensors.items() if key.startswith("backbone.")}
        rest = {key: value for key, value in tensors.items() if not key.startswith("backbone.")}
        if source.img_size == self.config.img_size:
            return dict(tensors)
        with_size = Segmenter(source).backbone.config
        return rest | {f"backbone.{k}": v for k, v in self.backbone.fit_weights(inner, with_size).items()}

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        import dataclasses

        return {"architecture": "Segmenter", "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: Any, *, format: str = "longscan") -> Any:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)
