"""The two published forms of SaShiMi: the standalone backbone and checkpoints of the training repository."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .published_names import (
    flat_level,
    layer_options,
    pools,
    stack_name,
    version_4,
    version_4_value,
    without_wrappers,
)
from .sashimi import SaShiMiConfig

_STACK_KEY = re.compile(r"^(model\.|module\.|_orig_mod\.)*[dcu]_layers\.")


class _SaShiMiFormat(CheckpointFormat):
    architecture = "SaShiMi"

    def canonical(self, key: str) -> str | None:
        """Translate to our names; the modules of a flat ``u_layers`` keep their number (see :meth:`tensors`)."""
        if "torchmetrics" in key or key.startswith("loss"):
            return None
        key = version_4(without_wrappers(key))
        key = re.sub(r"^encoder\.(0\.)?weight$", "embedding.weight", key)
        key = re.sub(r"^decoder\.(0\.)?output_transform\.", "head.", key)
        key = re.sub(r"^norm\.", "backbone.norm.", key)
        key = stack_name(key)
        key = re.sub(r"\.norm\.norm\.", ".norm.", key)
        return key.replace(".ff.0.0.", ".inner.").replace(".ff.2.", ".outer.")

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the weights by our names, in the shapes of version 4."""
        result: dict[str, Tensor] = {}
        per_level = flat_level(checkpoint)
        for key, tensor in checkpoint.tensors.items():
            name = self.canonical(key)
            if name is None:
                continue
            tensor = version_4_value(key, name, tensor)
            if flat := re.match(r"backbone\.up\.(\d+)\.(?!\d)(.+)", name):
                level, module = divmod(int(flat[1]), per_level)
                name = f"backbone.up.{level}.{module}.{flat[2]}"
            result[name] = tensor
        return result

    def published(self, key: str, config: Any) -> str:
        """Our names are the canonical ones."""
        return key

    def read_config(self, checkpoint: Checkpoint) -> SaShiMiConfig:
        """Take dimensions from the weights, what they do not show from the configuration, published values else."""
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        options = layer_options(checkpoint.config)
        (d_model,) = shape.of("backbone.norm.weight", 1)
        shapes = pools(tensors)
        pool, expand, width = [], 2, d_model
        for outputs, inputs in shapes:
            if outputs % width or inputs % width:
                raise UserError(f"{checkpoint.path}: a pool maps {inputs} to {outputs} features at width {width}")
            pool.append(inputs // width)
            expand, width = outputs // width, outputs
        first = "backbone.center.0.layer."
        kernel = first + "layer.kernel."
        copies, modes = shape.of(kernel + "A_real", 2)
        channels = shape.of(first + "layer.D", 2)[0]
        blocks = shape.count(r"backbone\.center\.(\d+)\.")
        fed = "backbone.center.1.layer.inner.weight" in tensors
        top = "backbone.up.0.2.layer.inner.weight" if shapes else "backbone.center.1.layer.inner.weight"
        ff = shape.of(top, 2)[0] // (width // expand if shapes else width)
        low_rank = kernel + "P" in tensors
        if low_rank:
            rank = shape.of(kernel + "P", 4)[0]
            layer: dict[str, Any] = {"rank": rank} | ({"init": "legt"} if rank == 2 else {})
        else:
            layer = {"dt_tie": shape.of(kernel + "inv_dt", 2)[1] == 1}
        if channels != 1:
            layer["channels"] = channels
        layer |= {key: value for key, value in options.items() if key not in ("dt_transform", "disc", "init")}
        if low_rank:
            layer |= {"init": options["init"]} if "init" in options else {}
        elif "disc" in options:
            layer["disc"] = options["disc"]
        vocabulary = tensors.get("embedding.weight")
        return SaShiMiConfig(
            d_model=d_model,
            n_layers=blocks // 2 if fed else blocks,
            pool=tuple(pool),
            expand=expand,
            ff=ff,
            center_ff=shape.of("backbone.center.1.layer.inner.weight", 2)[0] // width if fed else 0,
            unet=any(re.match(r"backbone\.down\.\d+\.layer\.", key) for key in tensors),
            bidirectional=shape.of(kernel + "C", 4)[0] == 2 * channels,
            mixer="s4" if low_rank else "s4d",
            d_state=2 * modes,
            n_ssm=None if copies == width else copies,
            dt_transform=str(options.get("dt_transform", "exp")),
            final_act="glu" if shape.of(first + "output_linear.0.weight", 2)[0] == 2 * width else "id",
            layer=layer,
            norm="scalar" if "backbone.center.0.norm.m" in tensors else "layer",
            weight_norm=any(key.endswith(".weight_g") for key in tensors),
            vocab_size=None if vocabulary is None else len(vocabulary),
            range="minmax",
        )


class SaShiMiTraining(_SaShiMiFormat):
    """Lightning checkpoints of the training repository, with embedding and head, S4 of version 3 or 4."""

    name = "sashimi-training"
    description = "SaShiMi checkpoints of the S4 training repository (versions 3 and 4)"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the three stacks and the encoder."""
        return _has_stacks(checkpoint) and any(re.search(r"\bencoder\.(0\.)?weight$", k) for k in checkpoint.tensors)


class SaShiMiStandalone(_SaShiMiFormat):
    """The standalone backbone, (batch, length, d_model) to the same shape."""

    name = "sashimi-standalone"
    description = "SaShiMi's standalone backbone"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the three stacks without an encoder; DiffWave's blocks have a ``fc_t`` each."""
        keys = checkpoint.tensors
        return (
            _has_stacks(checkpoint)
            and not any(re.search(r"\bencoder\.(0\.)?weight$", key) for key in keys)
            and not any(".fc_t." in key for key in keys)
        )


def _has_stacks(checkpoint: Checkpoint) -> bool:
    stacks = {match[0][-len("c_layers.") :] for key in checkpoint.tensors if (match := _STACK_KEY.match(key))}
    return "c_layers." in stacks and any(".kernel." in key for key in checkpoint.tensors)


register_format(SaShiMiTraining())
register_format(SaShiMiStandalone())
