"""Any classifier of timm, by its name there, so that it can be trained under the recipes of our own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from ...core.errors import UserError
from ...core.registry import register_architecture
from .image_model import ImageModel
from .patches import ConvolutionalStem, grid_size


@dataclass(frozen=True, kw_only=True)
class TimmModelConfig:
    """A model of timm with random weights."""

    timm_name: str
    """As ``timm.list_models()`` has it."""
    img_size: Any = None
    """Height and width of the images, or one number for both, for models that need to know; timm's default if
    ``None``."""
    in_chans: int = 3
    """Channels of the images."""
    num_classes: int = 1000
    """Classes; 0 gives features."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights."""
    head: Literal["classification"] = "classification"
    """What the model ends in."""
    drop_path_rate: float = 0.0
    """Stochastic depth: the last block's probability."""
    stem: Literal["convolutions"] | None = None
    """``convolutions`` puts that stem of our `Vim` in the place of the patches of a vision transformer."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the model in timm (``patch_size``, ``embed_dim``, ``depth``, …)."""

    def __post_init__(self) -> None:
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
            if len(self.class_names) != self.num_classes:
                raise UserError(f"class_names has {len(self.class_names)} names, num_classes is {self.num_classes}")
        if self.stem not in (None, "convolutions"):
            raise UserError(f"stem is {self.stem!r}; expected 'convolutions' or none")
        if isinstance(self.img_size, int):
            object.__setattr__(self, "img_size", (self.img_size, self.img_size))
        elif self.img_size is not None:
            object.__setattr__(self, "img_size", tuple(self.img_size))


@register_architecture("TimmModel", TimmModelConfig)
class TimmModel(ImageModel):
    """A model of timm behind the interface of ours; its parameters are in ``model``."""

    config: TimmModelConfig

    def __init__(self, config: TimmModelConfig) -> None:
        super().__init__()
        self.config = config
        timm = _timm()
        options: dict[str, Any] = {"drop_path_rate": config.drop_path_rate} if config.drop_path_rate else {}
        if config.stem is not None:
            options["embed_layer"] = _stem
        published = timm.models.get_pretrained_cfg(config.timm_name)
        if published is not None and published.fixed_input_size and config.img_size is not None:
            options["img_size"] = config.img_size
        try:
            self.model: Any = timm.create_model(
                config.timm_name,
                pretrained=False,
                num_classes=config.num_classes,
                in_chans=config.in_chans,
                **options | config.options,
            )
        except UserError:
            raise
        except RuntimeError as error:
            if "Unknown model" not in str(error):
                raise
            close = ", ".join(timm.list_models(f"*{config.timm_name.split('_')[0]}*")[:4])
            raise UserError(f"timm has no model {config.timm_name!r}{f'; near: {close}' if close else ''}") from error
        except (TypeError, AssertionError, ValueError) as error:
            given = options | config.options | ({} if config.stem is None else {"embed_layer": config.stem})
            raise UserError(f"timm's {config.timm_name} cannot be built with {given} ({error})") from error
        exempt = set(self.model.no_weight_decay()) if hasattr(self.model, "no_weight_decay") else set()
        for name, parameter in self.model.named_parameters():
            if name in exempt:
                parameter._no_weight_decay = True
        self.num_features = int(self.model.num_features)
        self.head_hidden_size = int(getattr(self.model, "head_hidden_size", self.num_features))
        self.feature_info = list(getattr(self.model, "feature_info", []))

    @property
    def head_prefix(self) -> str:
        """What the names of the classifier's parameters begin with."""
        classifier = self.model.pretrained_cfg.get("classifier", "head")
        return f"model.{classifier if isinstance(classifier, str) else classifier[0]}."

    def forward_features(self, x: Tensor) -> Tensor:
        """See timm."""
        features: Tensor = self.model.forward_features(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """See timm."""
        logits: Tensor = self.model.forward_head(x, pre_logits=pre_logits)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, in_chans, height, width) to logits (batch, num_classes)."""
        if x.dim() != 4 or x.shape[1] != self.config.in_chans:
            raise UserError(f"images are {tuple(x.shape)}, expected (batch, {self.config.in_chans}, height, width)")
        try:
            logits: Tensor = self.model(x)
        except AssertionError as error:  # timm's way to refuse a size
            raise UserError(
                f"{self.config.timm_name}: {error}; set img_size, to which positions are resized"
            ) from error
        return logits

    def get_classifier(self) -> nn.Module:
        """Return the classifier."""
        classifier: nn.Module = self.model.get_classifier()
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head of ``num_classes`` in place."""
        self.change_config(num_classes=num_classes, class_names=None)
        self.model.reset_classifier(num_classes, *([] if global_pool is None else [global_pool]))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, or not."""
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of parameter names, the stem and the blocks; those of timm, within ``model``."""
        found: dict[str, Any] = self.model.group_matcher(coarse=coarse)
        return found

    def layer_depths(self) -> dict[str, int]:
        """See `ImageModel`."""
        from .image_model import depths_by_pattern

        inner = depths_by_pattern([name for name, _ in self.model.named_parameters()], self.group_matcher())
        return {f"model.{name}": depth for name, depth in inner.items()}

    def fit_weights(self, tensors: Mapping[str, Tensor], source: TimmModelConfig) -> dict[str, Tensor]:
        """Resize learned positions of a square grid, with the class tokens before it, to this model's grid."""
        fitted, key = dict(tensors), "model.pos_embed"
        own = getattr(self.model, "pos_embed", None)
        if own is not None and key in fitted and fitted[key].shape != own.shape:
            from timm.layers import resample_abs_pos_embed

            prefix = int(getattr(self.model, "num_prefix_tokens", 1))
            stored = fitted[key].shape[1] - prefix
            if math.isqrt(stored) ** 2 != stored:
                raise UserError(f"positions are those of {stored} patches, no square; give weights of square images")
            grid = [int(side) for side in self.model.patch_embed.grid_size]
            fitted[key] = resample_abs_pos_embed(fitted[key], grid, num_prefix_tokens=prefix)
        return fitted


def _stem(img_size: Any, patch_size: int, in_chans: int, embed_dim: int, **_: Any) -> ConvolutionalStem:
    """What timm's transformers call to make their patches."""
    stem = ConvolutionalStem(in_chans, embed_dim, patch_size)
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    stem.check((height, width), None)
    stem.grid_size = grid_size((height, width), patch_size, patch_size)  # type: ignore[assignment]
    stem.num_patches = math.prod(stem.grid_size)  # type: ignore[assignment,arg-type]
    return stem


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise UserError("timm is missing; pip install 'longscan[vision]'") from error
    return timm
