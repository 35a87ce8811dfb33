"""Names of S4's weights in the versions of the published code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...core.checkpoint_files import Checkpoint

#: Published names of the three parts of a multi-rate stack, and ours.
STACKS = {"d_layers": "down", "c_layers": "center", "u_layers": "up"}
#: Version 3 to version 4, behind the name of the layer.
_RENAMED = (
    (r"(?<!layer\.)\blayer\.(D$|kernel\.)", r"layer.layer.\1"),
    (r"\bkernel\.kernel\.L$", "kernel.l_kernel"),
    (r"\bkernel\.kernel\.", "kernel."),
    (r"\bkernel\.log_dt$", "kernel.inv_dt"),
    (r"\bkernel\.(inv|log)_w_real$", "kernel.A_real"),
    (r"\bkernel\.w_imag$", "kernel.A_imag"),
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)


def without_wrappers(key: str) -> str:
    """Strip the prefixes of training programs."""
    return re.sub(r"^(module\.|_orig_mod\.|model\.)+", "", key)


def stack_name(key: str) -> str:
    """Return a key with our name of its part of the stack."""
    return re.sub(r"^([dcu]_layers)\.", lambda match: f"backbone.{STACKS[match[1]]}.", key)


def flat_level(checkpoint: Checkpoint) -> int:
    """Modules of one level in a flat ``u_layers``: from one UpPool to the next."""
    keys = "\n".join(checkpoint.tensors)
    pools = {int(match) for match in re.findall(r"\bu_layers\.(\d+)\.linear\.", keys)}
    modules = {int(match) for match in re.findall(r"\bu_layers\.(\d+)\.", keys)}
    return len(modules) // max(1, len(pools))


def pools(tensors: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Shapes (outputs, inputs) of the pools on the way down, in order."""
    found = {}
    for key, value in tensors.items():
        if match := re.match(r"backbone\.down\.(\d+)\.linear\.weight(_v)?$", key):
            found[int(match[1])] = (value.shape[0], value.shape[1])
    return [found[index] for index in sorted(found)]


def version_4(key: str) -> str:
    """Return the name of version 4 of a weight of version 3 or 4."""
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


def version_4_value(key: str, name: str, value: Tensor) -> Tensor:
    """Return the value of version 4 of the weight that a file calls ``key`` and version 4 ``name``.

    The imaginary part of A changed its sign, step sizes got an axis, and convolutions of width 1 are linear maps.
    """
    if key.endswith("w_imag"):
        value = -value
    if name.endswith(".inv_dt") and value.ndim == 1:
        value = value[:, None]
    if name.endswith((".weight", ".weight_g", ".weight_v")) and value.ndim == 3 and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value


def layer_options(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a published configuration says of the state space layer that its weights do not show."""
    options = dict(config or {})
    options = {**options, **(options.get("model") or {})}
    options = {**options, **(options.get("layer") or {})}
    kept = ("dt_transform", "real_transform", "imag_transform", "activation", "init", "disc", "l_max")
    return {key: options[key] for key in kept if options.get(key) is not None}
