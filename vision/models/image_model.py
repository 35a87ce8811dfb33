"""What every image model offers, by the names that timm and its users expect."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.declared_parameters import declared_names
from ...core.errors import UserError

# Parameters that weight decay would spoil: those of a recurrence, and learned tokens and positions.
_NO_DECAY = re.compile(
    r"(^|\.)(A(_\w+)?_logs?(_\d+)?|Ds?(_\w+)?|dt_bias(_\w+)?|dt_proj(_\w+)?\.bias|dt_projs_bias|pos_embed|cls_token(_\w+)?)$"
)


class ImageModel(nn.Module):
    """A classifier of images whose features can be taken too.

    Attributes:
        config: its configuration, a dataclass.
        num_classes: outputs of the head; 0 gives features.
        num_features, head_hidden_size: width of the features.
        feature_info: for each place at which features can be taken, ``num_chs`` (channels), ``reduction`` (pixels of
            the image for each cell of the map) and ``module``.
    """

    config: Any
    num_features: int
    head_hidden_size: int
    feature_info: list[dict[str, Any]]
    grad_checkpointing: bool = False

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to features before pooling."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features to logits, or with ``pre_logits`` to the pooled features."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to logits (batch, num_classes), or features without classes."""
        return self.forward_head(self.forward_features(x))

    @property
    def num_classes(self) -> int:
        """Outputs of the head; 0 gives features."""
        return int(self.config.num_classes)

    @property
    def global_pool(self) -> str:
        """How the head pools."""
        return str(self.config.global_pool)

    def change_config(self, **fields: Any) -> None:
        """Replace fields of the configuration, so that it keeps describing the model."""
        self.config = dataclasses.replace(self.config, **fields)

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": type(self).__name__, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)

    def make_head(self, num_classes: int) -> nn.Module:
        """Return a new classifier: truncated normal weights of deviation 0.02 and no bias, or an identity."""
        if num_classes == 0:
            return nn.Identity()
        head = nn.Linear(self.num_features, num_classes)
        nn.init.trunc_normal_(head.weight, std=0.02)
        nn.init.zeros_(head.bias)
        return head

    def get_classifier(self) -> nn.Module:
        """Return the classifier, a linear layer, or an identity without classes."""
        head = self.head
        assert isinstance(head, nn.Module)
        return head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head of ``num_classes`` (0: none) in place, and pool in another way if ``global_pool`` is given."""
        fields: dict[str, Any] = {"num_classes": num_classes, "class_names": None}
        if global_pool is not None:
            fields["global_pool"] = global_pool
        self.change_config(**fields)
        parameter = next(self.parameters())
        self.set_head(self.make_head(num_classes).to(device=parameter.device, dtype=parameter.dtype))

    def set_head(self, head: nn.Module) -> None:
        """Put a module in place of the classifier."""
        self.head = head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass, or not."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of parameter names: the stem, the blocks, what follows them (for layer-wise rates)."""
        raise NotImplementedError(f"{type(self).__name__} must implement group_matcher(coarse)")

    def layer_depths(self) -> dict[str, int]:
        """Return how deep each parameter lies, by name: 0 for what comes before the blocks, i + 1 for block i, and one
        more than the last block for what follows (for layer-wise learning rates, and to freeze the first blocks)."""
        return depths_by_pattern([name for name, _ in self.named_parameters()], self.group_matcher())

    def no_weight_decay(self) -> set[str]:
        """Return the full names of parameters without weight decay: ``A_log``, ``D``, step sizes, learned tokens.

        The original code decays ``A_log`` and ``A_b_log``, which it marks but never looks for.
        """
        declared = declared_names(self)
        return {
            name
            for name, parameter in self.named_parameters()
            if _NO_DECAY.search(name)
            or getattr(parameter, "_no_weight_decay", False)
            or declared.get(name, {}).get("weight_decay") == 0  # a recurrence that is no Mamba
        }


def depths_by_pattern(names: Sequence[str], matcher: Mapping[str, Any]) -> dict[str, int]:
    """Return how deep each parameter lies (see :meth:`ImageModel.layer_depths`), by the patterns of ``group_matcher``:
    ``stem``, and ``blocks``, a pattern with the number of the block or a list of (pattern, given number or None)."""
    stem, given = re.compile(matcher["stem"]), matcher["blocks"]
    patterns = [(given, None)] if isinstance(given, str) else given
    keys: dict[str, tuple[float, ...]] = {}
    for name in names:
        for pattern, number in patterns:
            if found := re.match(pattern, name):
                groups = tuple(float(group) for group in found.groups() if group is not None)
                keys[name] = groups if number is None else (*groups, *map(float, number))
                break
    # What has a given number of its own (a final norm) belongs to what follows the blocks.
    blocks = sorted({key for key in keys.values() if 99999.0 not in key})
    depth = {key: index + 1 for index, key in enumerate(blocks)}
    return {name: 0 if stem.match(name) else depth.get(keys.get(name, ()), len(blocks) + 1) for name in names}


def take_indices(count: int, indices: int | Sequence[int] | None) -> tuple[list[int], int]:
    """Return which of ``count`` stages are meant, and the last of them: the last n, those given, or all.

    Raises:
        UserError: for a stage that there is not.
    """
    if indices is None:
        indices = count
    if isinstance(indices, int):
        if not 0 < indices <= count:
            raise UserError(f"the last {indices} features were asked for; this model has 1 to {count}")
        chosen = list(range(count - indices, count))
    else:
        chosen = [count + i if i < 0 else i for i in indices]
    for index in chosen:
        if not 0 <= index < count:
            raise UserError(f"feature {index} was asked for; this model has 0 to {count - 1}")
    if not chosen:
        raise UserError("no feature was asked for; give at least one index")
    return chosen, max(chosen)


def compute_dtype(parameter: Tensor) -> torch.dtype:
    """Return the dtype in which layers compute: that of the weights, or of autocast on a GPU."""
    if parameter.is_cuda and torch.is_autocast_enabled("cuda"):
        return torch.get_autocast_dtype("cuda")
    return parameter.dtype
