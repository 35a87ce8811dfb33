"""Classification of an image read pixel by pixel, as one long sequence (sequential CIFAR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ...core.backbone import Backbone, BackboneConfig
from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from ...core.scan_orders import scan_order
from .image_model import ImageModel
from .vim_mixer import VimMixer


@dataclass(frozen=True, kw_only=True)
class PixelClassifierConfig:
    """Any stack of mixers over the pixels of an image, one after the other."""

    backbone: BackboneConfig
    """The stack."""
    img_size: Any = 32
    """Height and width of the images, or one number for both."""
    in_chans: int = 3
    """Channels of the images: the features of a pixel."""
    num_classes: int = 10
    """Classes; 0 gives features."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights."""
    head: Literal["classification"] = "classification"
    """What the model ends in."""
    global_pool: Literal["avg", "last"] = "avg"
    """The mean of the sequence, or its end."""
    order: str = "raster"
    """In which pixels are read (:func:`~longscan.core.scan_orders.scan_order`)."""

    def __post_init__(self) -> None:
        if isinstance(self.backbone, Mapping):
            object.__setattr__(self, "backbone", BackboneConfig(**self.backbone))
        size = (self.img_size, self.img_size) if isinstance(self.img_size, int) else tuple(self.img_size)
        object.__setattr__(self, "img_size", size)
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
            if len(self.class_names) != self.num_classes:
                raise UserError(f"class_names has {len(self.class_names)} names, num_classes is {self.num_classes}")
        if self.global_pool not in ("avg", "last"):
            raise UserError(f"global_pool is {self.global_pool!r}; expected 'avg' or 'last'")
        scan_order(self.order, 1, 1)  # an unknown name is told now


@register_architecture("PixelClassifier", PixelClassifierConfig)
class PixelClassifier(ImageModel):
    """Pixels, each a vector of its channels, through a linear layer, a stack of mixers and a head.

    Nothing tells neighbouring rows apart but the sequence: this is a test of long-range memory, not the way to the
    best classifier. Images of any size are taken.
    """

    config: PixelClassifierConfig

    def __init__(self, config: PixelClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.num_features = self.head_hidden_size = config.backbone.d_model
        self.encoder = nn.Linear(config.in_chans, config.backbone.d_model)
        self.backbone = Backbone(config.backbone)
        for module in self.backbone.modules():
            if isinstance(module, VimMixer):
                module.reset_reverse_dt()
        self.head = self.make_head(config.num_classes)
        self.feature_info = []

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to the sequence of features, (batch, height · width, d_model)."""
        if x.dim() != 4 or x.shape[1] != self.config.in_chans:
            raise UserError(f"images are {tuple(x.shape)}, expected (batch, {self.config.in_chans}, height, width)")
        sequence = x.flatten(2).transpose(1, 2)
        if self.config.order != "raster":
            sequence = scan_order(self.config.order, x.shape[2], x.shape[3]).scan(sequence, 1)
        features: Tensor = self.backbone(self.encoder(sequence))
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits, or with ``pre_logits`` to the pooled features."""
        pooled = x.mean(1) if self.config.global_pool == "avg" else x[:, -1]
        if pre_logits:
            return pooled
        weight = getattr(self.head, "weight", None)
        logits: Tensor = self.head(pooled if weight is None else pooled.to(weight.dtype))
        return logits

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of parameter names: the stem and the blocks."""
        return {
            "stem": r"^encoder",
            "blocks": [(r"^backbone\.layers\.(\d+)", None), (r"^backbone\.final_norm", (99999,))],
        }


def _s4d() -> PixelClassifierConfig:
    mixer = {"name": "s4d", "bidirectional": True}
    return PixelClassifierConfig(
        backbone=BackboneConfig(d_model=512, layers=[mixer], repeat=6, norm="layernorm", dropout=0.1)
    )


def _mamba() -> PixelClassifierConfig:
    mixer = {"name": "vim"}
    return PixelClassifierConfig(backbone=BackboneConfig(d_model=256, layers=[mixer], repeat=8))


for _name, _make, _text in (
    ("pixels_s4d", _s4d, "S4D in both directions over the flattened image, width 512, 6 layers"),
    ("pixels_mamba", _mamba, "Mamba in both directions over the flattened image, width 256, 8 layers"),
):
    register_model(
        ModelEntry(name=_name, domain="vision", config=_make, architecture="PixelClassifier", description=_text)
    )
