"""The published format of Vim: training checkpoints ``{"model": …, "args": …}`` with the names that we use too."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .patches import Pair, grid_size
from .vim_config import VimConfig, from_published

_LAYER = "layers.0."


class VimCheckpoint(CheckpointFormat):
    """Checkpoints of ``hustvl/Vim``: a state dictionary, plain or under ``model``, of the trainer or of a backbone.

    What weights do not show comes from ``config`` (constructor arguments of the original class, or our own), then from
    the training arguments in the file, then from the released models: a class token in the middle, halved sums.
    """

    name = "vim"
    architecture = "Vim"
    description = "Vision Mamba checkpoints of hustvl/Vim"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the names of patches and of the first block's recurrence."""
        names = {self.canonical(key) for key in checkpoint.tensors}
        if "temporal_pos_embedding" in names:  # a VideoMamba
            return False
        return {"patch_embed.proj.weight", "norm_f.weight"} <= names and bool(
            names & {f"{_LAYER}mixer.A_log", f"{_LAYER}mixer.A_log_0"}
        )

    def canonical(self, key: str) -> str | None:
        """Strip the prefixes of wrappers and of segmentation and detection models."""
        key = re.sub(r"^(module\.|_orig_mod\.|model\.|backbone\.)+", "", key)
        return None if key.startswith(("decode_head.", "auxiliary_head.", "neck.")) else key

    def computed(self, key: str) -> bool:
        """Rotary tables are stored, though they follow from the grid."""
        return key.startswith("rope.")

    def is_head(self, key: str) -> bool:
        """Whether a key belongs to the classifier."""
        return key.startswith("head.")

    def published(self, key: str, config: Any) -> str:
        """Our names are the published ones."""
        return key

    def read_config(self, checkpoint: Checkpoint) -> VimConfig:
        """See the class."""
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        dim, channels, patch, _ = shape.of("patch_embed.proj.weight", 4)
        first = "_0" if f"{_LAYER}mixer.A_log_0" in tensors else ""  # LocalVim numbers its directions
        inner, d_state = shape.of(f"{_LAYER}mixer.A_log{first}", 2)
        given = self._given(checkpoint)
        fields: dict[str, Any] = {
            "embed_dim": dim,
            "depth": shape.count(r"layers\.(\d+)\."),
            "patch_size": patch,
            "in_chans": channels,
            "num_classes": tensors["head.weight"].shape[0] if "head.weight" in tensors else 0,
            "class_token": _class_token(tensors, given, checkpoint),
            "position_embedding": "pos_embed" in tensors,
            "rope": "vim" if any(key.startswith("rope.") for key in tensors) else given.get("rope", "none"),
            "directions": _directions(tensors),
            "d_state": d_state,
            "d_conv": shape.of(f"{_LAYER}mixer.conv1d{first}.weight", 3)[2],
            "expand": inner / dim,
            "dt_rank": shape.of(f"{_LAYER}mixer.dt_proj{first}.weight", 2)[1],
            "layer_scale": 1.0 if f"{_LAYER}mixer.gamma" in tensors else None,
            "norm": "layernorm" if "norm_f.bias" in tensors else "rmsnorm",
        }
        if first and "layers" not in given:
            fields |= self._local(checkpoint, fields)
        if fields["class_token"] != "none" and "global_pool" not in given:
            fields["global_pool"] = "token"
        for name, value in given.items():
            if (
                name in fields
                and name not in ("layer_scale", "rope", "rope_residual", "num_classes")
                and fields[name] != value
            ):
                raise UserError(
                    f"{checkpoint.path}: {name} is {value!r} by its configuration, {fields[name]!r} by weights"
                )
        merged = {**given, **fields}
        if "img_size" not in given or "patch_stride" not in given:
            tokens = tensors["pos_embed"].shape[1] if "pos_embed" in tensors else None
            extra = {"double": 2, "none": 0}.get(fields["class_token"], 1)
            size, stride = _geometry(checkpoint, patch, None if tokens is None else tokens - extra, given)
            merged |= {"img_size": size, "patch_stride": None if stride == patch else stride}
        return VimConfig(**merged)

    def _local(self, checkpoint: Checkpoint, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return what LocalVim's weights do not show: the directions, by the sizes of the published models."""
        from .local_names import LOCAL_VIM_SMALL, LOCAL_VIM_TINY, local_vim

        known = {(192, 20): LOCAL_VIM_TINY, (384, 20): LOCAL_VIM_SMALL}
        directions = known.get((fields["embed_dim"], fields["depth"]))
        if directions is None:
            raise UserError(
                f"{checkpoint.path}: a LocalVim of width {fields['embed_dim']} and {fields['depth']} blocks; its "
                "directions are unknown, pass config={'layers': [{'name': 'local_mamba', 'directions': […]}, …]}"
            )
        config = local_vim(fields["embed_dim"], directions, middle=fields["class_token"] == "middle")
        return {"layers": config.layers, "rope": config.rope, "rope_residual": config.rope_residual}

    def _given(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The fields of ours that a configuration beside the weights states."""
        stated = checkpoint.config
        if not stated:
            return {}
        if isinstance(stated.get("constructor"), dict):
            stated = stated["constructor"]
        ours = set(VimConfig.__dataclass_fields__)
        if set(stated) <= ours and not {"channels", "stride"} & set(stated):
            fields = {name: value for name, value in stated.items() if value is not None}
            return {"patch_stride": stated["patch_size"], **fields} if "patch_size" in stated else fields
        full = from_published(stated)
        fields = {name: getattr(full, name) for name in ours - {"init", "class_names"}}
        return {name: value for name, value in fields.items() if value is not None}

    def write_config(self, config: Any) -> dict[str, Any]:
        """Return our own fields, which :meth:`read_config` understands."""
        if config.layers is not None:
            raise UserError(
                "format 'vim' holds Vim's own blocks, and this model has other layers; use format='longscan'"
            )
        return dataclasses.asdict(config)


def _model_name(checkpoint: Checkpoint) -> str:
    """Return the name of the model in the training arguments, or nothing."""
    return str(_argument(checkpoint, "model") or "")


def _argument(checkpoint: Checkpoint, name: str) -> Any:
    arguments = checkpoint.extra.get("args")
    values = arguments if isinstance(arguments, Mapping) else getattr(arguments, "__dict__", {})
    return values.get(name)


def _class_token(tensors: Mapping[str, Tensor], given: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Return where the class token stands; weights do not tell the middle from the beginning."""
    if "cls_token_head" in tensors:
        return "double"
    if "cls_token" not in tensors:
        return "none"
    if given.get("class_token") in ("middle", "first"):
        return str(given["class_token"])
    name = _model_name(checkpoint)
    return "first" if name.startswith("vim_") and not re.search(r"mid", name) else "middle"


def _directions(tensors: Mapping[str, Tensor]) -> str:
    if f"{_LAYER}mixer.conv1d_b.weight" in tensors:
        return "v2"
    return "v1" if f"{_LAYER}mixer.A_b_log" in tensors else "none"


def _geometry(checkpoint: Checkpoint, patch: int, patches: int | None, given: Mapping[str, Any]) -> tuple[Pair, int]:
    """Return image size and stride: from the training arguments, or the square image that the positions are for.

    Where nothing states the stride it is the one at which the image has 224 pixels, the patch size or half of it, else
    the patch size.
    """
    name = _model_name(checkpoint)
    match = re.search(r"stride(\d+)", name)
    strides = [int(match[1])] if match else [patch] if "patch" in name else [patch, max(1, patch // 2)]
    if given.get("patch_stride"):
        strides = [int(given["patch_stride"])]
    size = given.get("img_size") or _argument(checkpoint, "input_size") or 224
    stated: Pair = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
    for stride in strides:
        if patches is None or math.prod(grid_size(stated, patch, stride)) == patches:
            return stated, stride
    side = math.isqrt(patches or 0)
    if side * side != patches:
        raise UserError(
            f"{checkpoint.path}: its {patches} positions are no square grid; pass "
            "config={'img_size': [height, width], 'patch_stride': …}"
        )
    pixels = (side - 1) * strides[0] + patch
    return (pixels, pixels), strides[0]


register_format(VimCheckpoint())
