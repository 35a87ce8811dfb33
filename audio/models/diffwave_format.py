"""Checkpoints of the published DiffWave with a SaShiMi backbone."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .diffwave import DiffWaveConfig
from .published_names import flat_level, pools, stack_name, version_4, version_4_value, without_wrappers

_NAMES = (
    (r"^init_conv\.0\.conv\.", "encoder."),
    (r"^final_conv\.0\.conv\.", "decoder."),
    (r"^final_conv\.2\.conv\.", "output."),
    (r"^norm\.", "backbone.norm."),
    (r"\.ff\.ff\.0\.conv\.", ".inner."),
    (r"\.ff\.ff\.2\.conv\.", ".outer."),
    (r"\.linear\.conv\.", ".linear."),
)


class DiffWaveSaShiMi(CheckpointFormat):
    """The unconditional model; S4 as in version 3, weight-normed convolutions of width 1."""

    name = "diffwave-sashimi"
    architecture = "DiffWave"
    description = "DiffWave with a SaShiMi backbone, unconditional"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the blocks' projections of the diffusion step."""
        return any(re.search(r"[dcu]_layers\.\d+\.fc_t\.", key) for key in checkpoint.tensors)

    def canonical(self, key: str) -> str | None:
        """Translate to our names; the modules of ``u_layers`` keep their number (see :meth:`tensors`)."""
        key = stack_name(version_4(without_wrappers(key)))
        for pattern, replacement in _NAMES:
            key = re.sub(pattern, replacement, key)
        return key

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the weights by our names, in the shapes of version 4."""
        result: dict[str, Tensor] = {}
        per_level = flat_level(checkpoint)
        for key, tensor in checkpoint.tensors.items():
            name = self.canonical(key)
            assert name is not None
            tensor = version_4_value(key, name, tensor)
            if flat := re.match(r"backbone\.up\.(\d+)\.(?!\d)(.+)", name):
                level, module = divmod(int(flat[1]), per_level)
                name = f"backbone.up.{level}.{module}.{flat[2]}"
            result[name] = tensor
        return result

    def published(self, key: str, config: Any) -> str:
        """Our names are the canonical ones."""
        return key

    def read_config(self, checkpoint: Checkpoint) -> DiffWaveConfig:
        """Take dimensions from the weights, the noise schedule from the configuration, published values else."""
        tensors = self.tensors(checkpoint)
        if any("mel" in key for key in tensors):
            raise UserError(f"{checkpoint.path}: this DiffWave is conditioned on mel spectra, which is not supported")
        shape = ShapeReader(checkpoint.path, tensors)
        width = d_model = shape.of("encoder.weight_v", 2)[0]
        pool, expand = [], 2
        for outputs, inputs in pools(tensors):
            pool.append(inputs // width)
            expand, width = outputs // width, outputs
        hidden, features = shape.of("fc_t1.weight", 2)
        given = dict(checkpoint.config or {})
        given |= given.pop("diffusion", None) or {}
        return DiffWaveConfig(
            d_model=d_model,
            n_layers=shape.count(r"backbone\.center\.(\d+)\."),
            pool=tuple(pool),
            expand=expand,
            ff=shape.of("backbone.center.0.inner.weight_v", 2)[0] // width,
            unet=any(re.match(r"backbone\.down\.\d+\.layer\.", key) for key in tensors),
            d_state=2 * shape.of("backbone.center.0.layer.layer.kernel.A_real", 2)[1],
            step_features=features,
            step_hidden=hidden,
            step_width=shape.of("fc_t2.weight", 2)[0],
            diffusion_steps=int(given.get("T", 200)),
            beta_min=float(given.get("beta_0", 1e-4)),
            beta_max=float(given.get("beta_T", 0.02)),
        )


register_format(DiffWaveSaShiMi())
