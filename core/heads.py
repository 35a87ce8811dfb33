"""Heads: from the hidden sequence to logits over a vocabulary or over classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .errors import UserError

Pooling = Literal["mean", "max", "first", "last", "center"]


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What a model ends in; shared by the configurations of all models with a sequence input."""

    head: Literal["language_model", "classification"] = "language_model"
    """Logits for every position over the vocabulary, or for the whole sequence over classes."""
    num_classes: int | None = None
    """Number of classes of a classification head."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights so that predictions can name them."""
    pooling: Pooling = "mean"
    """How a classification head makes one vector of the sequence; padding never counts."""
    head_bias: bool = True
    """Bias of the classification head."""
    targets: Literal["class", "labels", "values", "rates"] = "class"
    """What a classification head's outputs are: logits of classes that exclude each other, logits of labels, values in
    the units of the data, or logarithms of rates (of counts)."""
    target_mean: tuple[float, ...] | None = None
    """Of values: added to the outputs, the mean of each target in the training data."""
    target_std: tuple[float, ...] | None = None
    """Of values: by which the outputs are multiplied before that, the standard deviation of each target."""

    def __post_init__(self) -> None:
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
        if self.head not in ("language_model", "classification"):
            raise UserError(f"head is {self.head!r}; expected 'language_model' or 'classification'")
        if self.targets not in ("class", "labels", "values", "rates"):
            raise UserError(f"targets is {self.targets!r}; expected class, labels, values or rates")
        if self.pooling not in ("mean", "max", "first", "last", "center"):
            raise UserError(f"pooling is {self.pooling!r}; expected mean, max, first, last or center")
        if self.head == "classification" and not self.num_classes:
            if not self.class_names:
                raise UserError("a classification head needs num_classes (or class_names)")
            object.__setattr__(self, "num_classes", len(self.class_names))
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise UserError(f"class_names has {len(self.class_names)} names, num_classes is {self.num_classes}")
        if (self.target_mean is None) != (self.target_std is None):
            raise UserError("target_mean and target_std belong together; give both or neither")
        for name in ("target_mean", "target_std"):
            value = getattr(self, name)
            if value is None:
                continue
            object.__setattr__(self, name, tuple(value))
            if self.targets != "values" or len(value) != self.num_classes:
                raise UserError(
                    f"{name} is for targets 'values', one number for each of the {self.num_classes} outputs"
                )


def pool(features: Tensor, mask: Tensor | None, pooling: Pooling) -> Tensor:
    """Make one vector of each sequence: (batch, length, d_model) to (batch, d_model).

    Args:
        features: the hidden sequence.
        mask: (batch, length) bool, true at real tokens; ``None`` counts every position (as HyenaDNA and Caduceus do).
        pooling: ``mean``, ``max``, the ``first`` or ``last`` real token, or the ``center`` one (index n // 2 of the
            n real tokens), for tasks about the middle of a window.

    Raises:
        ValueError: if a sequence has no real token (looked for on a CPU only, where it costs nothing).
    """
    if mask is None:
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
    mask = mask.bool()
    count = mask.sum(1)
    if mask.device.type == "cpu" and not torch.compiler.is_compiling() and not count.all():
        raise ValueError(f"mask marks no real token in sequence {int(count.argmin())} of the batch; drop it")
    if pooling == "mean":
        return (features * mask.unsqueeze(-1)).sum(1) / count.unsqueeze(-1)
    if pooling == "max":
        lowest = torch.finfo(features.dtype).min
        return features.masked_fill(~mask.unsqueeze(-1), lowest).amax(1)
    number = {"first": torch.ones_like(count), "last": count, "center": count // 2 + 1}[pooling]
    position = (mask.cumsum(1) == number.unsqueeze(1)).to(torch.int8).argmax(1)  # of the number-th real token
    return features[torch.arange(len(features), device=features.device), position]


class ClassificationHead(nn.Module):
    """Pool, then one linear layer: (batch, length, d_model) to (batch, num_classes).

    With ``target_mean`` and ``target_std`` the layer works in standardised units and the output is in the
    data's.
    """

    target_mean: Tensor | None
    target_std: Tensor | None

    def __init__(self, d_model: int, config: HeadConfig) -> None:
        super().__init__()
        assert config.num_classes is not None
        self.pooling = config.pooling
        self.output = nn.Linear(d_model, config.num_classes, bias=config.head_bias)
        if self.output.bias is not None:
            nn.init.zeros_(self.output.bias)
        for name in ("target_mean", "target_std"):
            value = getattr(config, name)
            # Not among the weights: the configuration, which is saved with them, has it.
            self.register_buffer(name, None if value is None else torch.tensor(value), persistent=False)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits, or what ``HeadConfig.targets`` says."""
        outputs = self.output(pool(features, mask, self.pooling).to(self.output.weight.dtype))
        if self.target_mean is None or self.target_std is None:
            return outputs
        return outputs.float() * self.target_std.float() + self.target_mean.float()
