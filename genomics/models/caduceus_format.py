"""Caduceus as published on the hub (Ph, PS, PlantCaduceus) and as the training repository's checkpoints hold it."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .caduceus import Caduceus, CaduceusConfig

_EMBEDDING = "backbone.embeddings.word_embeddings.weight"
_SSM_FIELDS = ("dt_min", "dt_max", "dt_init", "dt_scale", "dt_init_floor")


class CaduceusHub(CheckpointFormat):
    """``kuleshov-group/caduceus-*``; PS models wrap embedding and mixer, tied copies are absent."""

    name = "caduceus-hf"
    architecture = "Caduceus"
    description = "Caduceus Ph and PS repositories of the hub, and Lightning checkpoints of them"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By its two mixers, or the configuration's model type."""
        if (checkpoint.config or {}).get("model_type") == "caduceus":
            return True
        return any(".mamba_fwd." in key for key in checkpoint.tensors)

    def canonical(self, key: str) -> str | None:
        """Strip prefixes and the wrappers of PS models."""
        if "torchmetrics" in key or key.startswith("loss"):
            return None
        key = re.sub(r"^(module\.|_orig_mod\.|model\.|caduceus\.)+", "", key)
        key = re.sub(r"^(decoder\.0\.output_transform|head\.output_transform)\.", "score.", key)
        key = key.replace("lm_head.lm_head.", "lm_head.").replace(".submodule.", ".")
        return key.replace("word_embeddings.embedding.", "word_embeddings.")

    def computed(self, key: str) -> bool:
        """The complement map is stored as a tensor in PS models."""
        return key.endswith(".complement_map")

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Drop a stored head that is the embedding.

        Raises:
            UserError: for a head of its own, which no published Caduceus has.
        """
        tensors = super().tensors(checkpoint)
        head = tensors.pop("lm_head.weight", None)
        if head is not None and not torch.equal(head, tensors.get(_EMBEDDING, head)):
            raise UserError(f"{checkpoint.path}: lm_head.weight is not the embedding; untied heads are not supported")
        return tensors

    def published(self, key: str, config: CaduceusConfig) -> str:
        """Translate one of our names."""
        if key == "embedding.weight":
            return _EMBEDDING
        key = key.replace("head.output.", "score.").replace("backbone.final_norm.", "backbone.norm_f.")
        if not config.bidirectional:
            return key.replace(".mixer.", ".mixer.mamba_fwd.")
        return key.replace(".forward_mixer.", ".mamba_fwd.").replace(".reverse_mixer.", ".mamba_rev.")

    def read_config(self, checkpoint: Checkpoint) -> CaduceusConfig:
        """Take dimensions and the variant from the weights, the rest from the configuration."""
        published = checkpoint.config or {}
        ssm = published.get("ssm_cfg") or {}
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        rows, d_model = shape.of(_EMBEDDING, 2)
        first = "backbone.layers.0.mixer.mamba_fwd."
        d_inner, d_state = shape.of(first + "A_log", 2)
        n_layer = shape.count(r"backbone\.layers\.(\d+)\.")
        shape.agree(published, {"d_model": d_model, "n_layer": n_layer})
        d_conv, dt_rank = shape.of(first + "conv1d.weight", 3)[2], shape.of(first + "dt_proj.weight", 2)[1]
        shape.agree(ssm, {"d_state": d_state, "d_conv": d_conv, "dt_rank": dt_rank, "expand": d_inner // d_model})
        multiple = int(published.get("pad_vocab_size_multiple", 8))
        rcps = any("word_embeddings.embedding." in key for key in checkpoint.tensors)
        if published.get("rcps", rcps) != rcps:
            raise UserError(f"{checkpoint.path}: config.json says rcps = {published['rcps']}, the weights say {rcps}")
        complement = next((value for key, value in tensors.items() if key.endswith(".complement_map")), None)
        return CaduceusConfig(
            d_model=d_model,
            n_layer=n_layer,
            rcps=rcps,
            rcps_swap=self._swap(checkpoint, published) if rcps else True,
            d_state=d_state,
            d_conv=d_conv,
            expand=d_inner // d_model if d_inner % d_model == 0 else d_inner / d_model,
            dt_rank=dt_rank,
            conv_bias=first + "conv1d.bias" in tensors,
            bias=first + "in_proj.bias" in tensors,
            bidirectional=any(".mamba_rev." in key for key in tensors),
            bidirectional_strategy=published.get("bidirectional_strategy") or "add",
            bidirectional_weight_tie=bool(published.get("bidirectional_weight_tie", True)),
            rms_norm="backbone.norm_f.bias" not in tensors,
            norm_epsilon=float(published.get("norm_epsilon", 1e-5)),
            vocab_size=rows,
            pad_vocab_size_multiple=1 if rows % multiple else multiple,
            pad_token_id=published.get("pad_token_id"),
            conjoin=bool(published.get("conjoin_train") or published.get("conjoin_eval")) and not rcps,
            complement_map=tuple(complement.tolist())
            if complement is not None
            else published.get("complement_map") or CaduceusConfig.complement_map,
            **{key: ssm[key] for key in _SSM_FIELDS if key in ssm},
            **self._head(tensors, published),
        )

    @staticmethod
    def _swap(checkpoint: Checkpoint, published: dict[str, Any]) -> bool:
        """Whether the strands are exchanged before each block, which the names of the norms tell."""
        fused = not any(key.endswith(".norm.submodule.weight") for key in checkpoint.tensors)
        if published.get("fused_add_norm", fused) != fused:
            raise UserError(
                f"{checkpoint.path}: config.json says fused_add_norm = {published['fused_add_norm']}, the names of the "
                f"norms say {fused}; the two compute different functions, so set the configuration right"
            )
        return fused

    @staticmethod
    def _head(tensors: dict[str, Tensor], published: dict[str, Any]) -> dict[str, Any]:
        if "score.weight" not in tensors:
            return {}
        return {
            "head": "classification",
            "num_classes": tensors["score.weight"].shape[0],
            "head_bias": "score.bias" in tensors,
            "pooling": published.get("pooling_strategy", "mean"),
        }

    def check(self, tensors: dict[str, Tensor], model: nn.Module) -> None:  # type: ignore[override]
        """Compare the stored complement maps, which can be two, with the one in use."""
        assert isinstance(model, Caduceus)
        for key, value in tensors.items():
            if self.computed(key) and value.tolist() != model.complement.tolist():
                raise UserError(f"{key} is {value.tolist()}, the model's complement map {model.complement.tolist()}")

    def stored(self, key: str, config: CaduceusConfig) -> str:
        """Return a canonical name as a file of this variant holds it."""
        if config.rcps:
            key = key.replace("word_embeddings.weight", "word_embeddings.embedding.weight")
            key = key.replace(".mixer.", ".mixer.submodule.")
            if not config.rcps_swap:
                key = re.sub(r"(\.norm|norm_f)\.(weight|bias)$", r"\1.submodule.\2", key)
        return f"caduceus.{key}" if key.startswith("backbone.") else key

    def computed_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """PS files hold the complement map with the embedding and, if there is one, the language-model head."""
        assert isinstance(model, Caduceus)
        if not model.config.rcps:
            return {}
        names = ["caduceus.backbone.embeddings.word_embeddings.complement_map"]
        if model.config.head == "language_model":
            names.append("lm_head.complement_map")
        return {name: model.complement.clone() for name in names}

    def write_config(self, config: CaduceusConfig) -> dict[str, Any]:
        """Return the hub's config.json."""
        classification = config.head == "classification"
        fields = {
            "architectures": ["CaduceusForSequenceClassification" if classification else "CaduceusForMaskedLM"],
            "model_type": "caduceus",
            "d_model": config.d_model,
            "n_layer": config.n_layer,
            "vocab_size": config.vocab_size,
            "pad_vocab_size_multiple": config.pad_vocab_size_multiple,
            "ssm_cfg": {
                "d_state": config.d_state,
                "d_conv": config.d_conv,
                "expand": config.expand,
                "dt_rank": "auto" if config.dt_rank == -(-config.d_model // 16) else config.dt_rank,
                "conv_bias": config.conv_bias,
                "bias": config.bias,
                "use_fast_path": True,
                **{key: getattr(config, key) for key in _SSM_FIELDS},
            },
            "rms_norm": config.rms_norm,
            "fused_add_norm": config.rcps_swap,
            "residual_in_fp32": config.residual_in_fp32,
            "norm_epsilon": config.norm_epsilon,
            "initializer_cfg": {
                "initializer_range": config.initializer_range,
                "rescale_prenorm_residual": config.rescale_prenorm_residual,
                "n_residuals_per_layer": 1,
            },
            "bidirectional": config.bidirectional,
            "bidirectional_strategy": config.bidirectional_strategy,
            "bidirectional_weight_tie": config.bidirectional_weight_tie,
            "rcps": config.rcps,
            "complement_map": {str(i): value for i, value in enumerate(config.complement_map)},
        }
        if config.pad_token_id is not None:
            fields["pad_token_id"] = config.pad_token_id
        if classification:
            fields |= {
                "num_labels": config.num_classes,
                "pooling_strategy": config.pooling,
                "conjoin_train": False,
                "conjoin_eval": config.conjoin,
            }
        return fields


register_format(CaduceusHub())
