"""Mamba language models: the public sizes, and their two published formats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from ..backbone import BackboneConfig
from ..checkpoint_files import Checkpoint
from ..errors import UserError
from ..pretrained import CheckpointFormat, register_format
from ..registry import ModelEntry, register_model
from ..shapes import ShapeReader
from .language_model import LanguageModel, LanguageModelConfig


class _MambaFormat(CheckpointFormat):
    """What both formats share: the names differ in the embedding's alone, the configurations in their fields."""

    architecture = "LanguageModel"
    embedding: str

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the embedding's name and a Mamba mixer directly in the layer; Falcon's has the same names."""
        if (checkpoint.config or {}).get("model_type", "mamba") != "mamba":
            return False
        keys = {self.canonical(key) for key in checkpoint.tensors}
        return self.embedding in keys and "backbone.layers.0.mixer.A_log" in keys

    def canonical(self, key: str) -> str | None:
        """Strip ``model.`` and ``module.``; the head is a copy of the embedding wherever it is stored tied."""
        return re.sub(r"^(model\.|module\.|_orig_mod\.)+", "", key)

    def published(self, key: str, config: LanguageModelConfig) -> str:
        """Translate one of our names."""
        if key == "embedding.weight":
            return self.embedding
        if key == "head.weight":
            return "lm_head.weight"
        return key.replace("backbone.final_norm", "backbone.norm_f")

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Drop a stored head that is the embedding once more."""
        tensors = super().tensors(checkpoint)
        head, embedding = tensors.get("lm_head.weight"), tensors.get(self.embedding)
        published = checkpoint.config or {}
        tied = published.get("tie_word_embeddings", published.get("tie_embeddings", True))
        if head is not None and embedding is not None and tied and head.equal(embedding):
            del tensors["lm_head.weight"]
        return tensors

    def read_config(self, checkpoint: Checkpoint) -> LanguageModelConfig:
        """Take dimensions from the weights; norms and ties from the configuration."""
        published = checkpoint.config or {}
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        rows, d_model = shape.of(self.embedding, 2)
        d_inner, d_state = shape.of("backbone.layers.0.mixer.A_log", 2)
        first = "backbone.layers.0.mixer."
        mixer: dict[str, Any] = {
            "d_state": d_state,
            "d_conv": shape.of(first + "conv1d.weight", 3)[2],
            "expand": d_inner / d_model if d_inner % d_model else d_inner // d_model,
            "dt_rank": shape.of(first + "dt_proj.weight", 2)[1],
            "conv_bias": first + "conv1d.bias" in tensors,
            "bias": first + "in_proj.bias" in tensors,
        }
        shape.agree(published, {"d_model": d_model, "hidden_size": d_model, "state_size": d_state})
        shape.agree(published, {"intermediate_size": d_inner, "conv_kernel": mixer["d_conv"]})
        shape.agree(published, {"time_step_rank": mixer["dt_rank"]})
        n_layer = shape.count(r"backbone\.layers\.(\d+)\.")
        shape.agree(published, {"n_layer": n_layer, "num_hidden_layers": n_layer})
        return LanguageModelConfig(
            vocab_size=rows,
            tie_embeddings="lm_head.weight" not in tensors,
            backbone=BackboneConfig(
                d_model=d_model,
                layers=[{"name": "mamba", **mixer}],
                repeat=n_layer,
                norm="layernorm" if "backbone.norm_f.bias" in tensors else "rmsnorm",
                norm_epsilon=float(published.get("layer_norm_epsilon", published.get("norm_epsilon", 1e-5))),
                residual_in_fp32=bool(published.get("residual_in_fp32", True)),
            ),
        )

    def _mixer(self, config: LanguageModelConfig) -> dict[str, Any]:
        """Return the options of the one mixer, or raise if the model is no plain Mamba language model."""
        if config.head != "language_model":
            raise UserError(f"format {self.name!r} holds language models, not a {config.head} head")
        layers = config.backbone.layers
        if len(layers) != 1 or not isinstance(layers[0], Mapping) or layers[0].get("name") != "mamba":
            raise UserError(f"format {self.name!r} holds plain Mamba stacks, not {layers}")
        return {"d_state": 16, "d_conv": 4, "expand": 2, **layers[0]}


class MambaOriginal(_MambaFormat):
    """``state-spaces/mamba-*``: pickled weights and a configuration of few words."""

    name = "mamba-original"
    description = "Mamba language models as published by state-spaces"
    embedding = "backbone.embedding.weight"

    def write_config(self, config: LanguageModelConfig) -> dict[str, Any]:
        """Return the configuration as mamba-ssm reads it."""
        mixer = {key: value for key, value in self._mixer(config).items() if key != "name"}
        return {
            "d_model": config.backbone.d_model,
            "n_layer": config.backbone.repeat,
            "vocab_size": config.vocab_size,
            "ssm_cfg": mixer,
            "rms_norm": config.backbone.norm == "rmsnorm",
            "residual_in_fp32": config.backbone.residual_in_fp32,
            "fused_add_norm": True,
            "pad_vocab_size_multiple": config.pad_vocab_size_multiple,
            "tie_embeddings": config.tie_embeddings,
        }


class MambaTransformers(_MambaFormat):
    """``state-spaces/mamba-*-hf``: as transformers' MambaForCausalLM stores it."""

    name = "mamba-transformers"
    description = "Mamba language models as transformers stores them"
    embedding = "backbone.embeddings.weight"

    def write_config(self, config: LanguageModelConfig) -> dict[str, Any]:
        """Return the configuration as transformers reads it."""
        mixer = self._mixer(config)
        d_model = config.backbone.d_model
        rank = mixer.get("dt_rank", "auto")
        return {
            "architectures": ["MambaForCausalLM"],
            "model_type": "mamba",
            "hidden_size": d_model,
            "num_hidden_layers": config.backbone.repeat,
            "vocab_size": config.vocab_size,
            "state_size": mixer["d_state"],
            "conv_kernel": mixer["d_conv"],
            "expand": mixer["expand"],
            "intermediate_size": int(mixer["expand"] * d_model),
            "time_step_rank": -(-d_model // 16) if rank == "auto" else rank,
            "use_conv_bias": mixer.get("conv_bias", True),
            "use_bias": mixer.get("bias", False),
            "layer_norm_epsilon": config.backbone.norm_epsilon,
            "residual_in_fp32": config.backbone.residual_in_fp32,
            "tie_word_embeddings": config.tie_embeddings,
        }


register_format(MambaOriginal())
register_format(MambaTransformers())

#: name: (d_model, layers), vocabulary 50,280 (Gu and Dao 2023, table 12).
_SIZES = {"130m": (768, 24), "370m": (1024, 48), "790m": (1536, 48), "1.4b": (2048, 48), "2.8b": (2560, 64)}
for _size, (_d_model, _n_layer) in _SIZES.items():
    register_model(
        ModelEntry(
            name=f"mamba_{_size.replace('.', '_')}",
            domain="core",
            config=partial(LanguageModel.mamba_config, _d_model, _n_layer, 50280),
            architecture="LanguageModel",
            aliases=(f"state-spaces/mamba-{_size}", f"state-spaces/mamba-{_size}-hf", f"mamba-{_size}"),
            hub=f"state-spaces/mamba-{_size}-hf",
            description=f"Mamba-1 language model, {_size} parameters",
        )
    )
