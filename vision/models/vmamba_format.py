"""The published format of VMamba: training checkpoints ``{"model": …}`` of several versions of its code."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .local_names import LOCAL_VMAMBA_SMALL, LOCAL_VMAMBA_TINY, local_vmamba
from .ss2d import route_names
from .vmamba_config import VMambaConfig, vmamba_from_published

_BLOCK = "layers.0.blocks.0."
#: Names of older versions, and of the version in a single file.
_RENAMED = (
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"\.ln_1\.", ".norm."),
    (r"\.self_attention\.", ".op."),
    (r"\.x_proj\.weight$", ".x_proj_weight"),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
)
#: Linear layers, which files of channels-first models may hold as 1 × 1 convolutions.
_MATRICES = (
    ".in_proj.weight",
    ".out_proj.weight",
    ".fc1.weight",
    ".fc2.weight",
    ".downsample.reduction.weight",
)


class VMambaCheckpoint(CheckpointFormat):
    """Checkpoints of ``MzeroMiko/VMamba``: a state dictionary, plain or under ``model``.

    What weights do not show (routes, GELU after the scan, the order of norms) comes from ``config``, constructor
    arguments of the original class or our own fields, and is otherwise that of the released models.
    """

    name = "vmamba"
    architecture = "VMamba"
    description = "VMamba checkpoints of MzeroMiko/VMamba"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the names of the stem and of the first block's scan."""
        names = {self.canonical(key) for key in checkpoint.tensors}
        return {"patch_embed.0.weight", f"{_BLOCK}op.A_logs", f"{_BLOCK}op.x_proj_weight"} <= names

    def canonical(self, key: str) -> str | None:
        """Strip the prefixes of wrappers and bring older names up to date."""
        key = re.sub(r"^(module\.|_orig_mod\.|model\.|backbone\.)+", "", key)
        if key.startswith(("decode_head.", "auxiliary_head.", "neck.", "rpn_head.", "roi_head.", "outnorm")):
            return None
        for old, new in _RENAMED:
            key = re.sub(old, new, key)
        return key

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the weights by canonical names, with linear layers that were 1 × 1 convolutions as matrices."""
        result = super().tensors(checkpoint)
        for key, value in result.items():
            if key.endswith(".x_proj_weight"):  # also held as a grouped convolution, (K · (R + 2N), E, 1)
                routes = result[key.replace(".x_proj_weight", ".dt_projs_bias")].shape[0]
                inner = result[key.replace(".x_proj_weight", ".dt_projs_weight")].shape[1]
                result[key] = value.reshape(routes, -1, inner)
            elif key.endswith(_MATRICES) and value.dim() == 4:
                result[key] = value[:, :, 0, 0]
        return result

    def is_head(self, key: str) -> bool:
        """Whether a key belongs to the classifier."""
        return key.startswith("classifier.head.")

    def published(self, key: str, config: Any) -> str:
        """Our names are the published ones."""
        return key

    def read_config(self, checkpoint: Checkpoint) -> VMambaConfig:
        """See the class."""
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        dim = shape.of(f"{_BLOCK}norm.weight", 1)[0]
        count, inner, rank = shape.of(f"{_BLOCK}op.dt_projs_weight", 3)
        stages = shape.count(r"layers\.(\d+)\.")
        second = "patch_embed.5.weight" in tensors
        fields: dict[str, Any] = {
            "embed_dim": dim,
            "depths": tuple(shape.count(rf"layers\.{i}\.blocks\.(\d+)\.") for i in range(stages)),
            "in_chans": shape.of("patch_embed.0.weight", 4)[1],
            "num_classes": tensors["classifier.head.weight"].shape[0] if "classifier.head.weight" in tensors else 0,
            "d_state": shape.of(f"{_BLOCK}op.A_logs", 2)[1],
            "ssm_ratio": inner / dim,
            "conv": shape.of(f"{_BLOCK}op.conv2d.weight", 4)[2],
            "conv_bias": f"{_BLOCK}op.conv2d.bias" in tensors,
            "gate": shape.of(f"{_BLOCK}op.in_proj.weight", 2)[0] == 2 * inner,
            "mlp_ratio": shape.of(f"{_BLOCK}mlp.fc1.weight", 2)[0] / dim
            if f"{_BLOCK}mlp.fc1.weight" in tensors
            else 0.0,
            "stem": "v2" if second else "v1",
            "downsample": _downsample(tensors),
            "position_embedding": "pos_embed" in tensors,
            "channel_attention": f"{_BLOCK}op.multi_scan.attn.norm.weight" in tensors,
        }
        if rank != -(-dim // 16):
            fields["dt_rank"] = rank
        given = self._given(checkpoint)
        if fields["channel_attention"] and "routes" not in given:
            given |= self._local(checkpoint, fields["depths"])
        for name, value in given.items():
            if name in fields and name not in ("num_classes", "downsample") and fields[name] != value:
                raise UserError(
                    f"{checkpoint.path}: {name} is {value!r} by its configuration, {fields[name]!r} by weights"
                )
        if "pos_embed" in tensors and "img_size" not in given:
            height, width = tensors["pos_embed"].shape[2:]
            given["img_size"] = (4 * height, 4 * width)
        config = VMambaConfig(**{**given, **fields})
        named = len(route_names(config.block_routes()[0]))
        if named != count:
            raise UserError(f"{checkpoint.path}: its weights are of {count} routes, its configuration names {named}")
        return config

    def _local(self, checkpoint: Checkpoint, depths: tuple[int, ...]) -> dict[str, Any]:
        """Return what LocalVMamba's weights do not show: the directions, by the depths of the published models."""
        known = {config.depths: config for config in (local_vmamba(t) for t in (LOCAL_VMAMBA_TINY, LOCAL_VMAMBA_SMALL))}
        if depths not in known:
            raise UserError(
                f"{checkpoint.path}: a LocalVMamba of depths {depths}; its directions are unknown, pass "
                "config={'routes': [['h', 'v_flip', 'w2', 'w7'], …], 'padded': True}"
            )
        return {"routes": known[depths].routes, "padded": True}

    def _given(self, checkpoint: Checkpoint) -> dict[str, Any]:
        stated = checkpoint.config
        if not stated:
            return {}
        if isinstance(stated.get("constructor"), dict):
            stated = stated["constructor"]
        ours = set(VMambaConfig.__dataclass_fields__)
        if set(stated) <= ours:
            fields = {**stated, **({"depths": tuple(stated["depths"])} if "depths" in stated else {})}
        else:
            full = vmamba_from_published(stated)
            fields = {name: getattr(full, name) for name in ours - {"class_names"}}
        return {name: value for name, value in fields.items() if value is not None}

    def write_config(self, config: Any) -> dict[str, Any]:
        """Return our own fields, which :meth:`read_config` understands."""
        return dataclasses.asdict(config)


def _downsample(tensors: Mapping[str, Tensor]) -> str:
    kernel = tensors.get("layers.0.downsample.1.weight")
    if kernel is None:
        return "v1" if "layers.0.downsample.reduction.weight" in tensors else "v3"  # a single stage has none
    if kernel.dim() != 4 or kernel.shape[2] == 1:
        return "v1"
    return "v2" if kernel.shape[2] == 2 else "v3"


register_format(VMambaCheckpoint())
