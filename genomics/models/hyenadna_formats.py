"""The two published formats of HyenaDNA: Lightning's ``weights.ckpt`` and the hub's ``-hf`` repositories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.mixers import Hyena
from ...core.pretrained import CheckpointFormat, register_format
from ...core.shapes import ShapeReader
from .hyenadna import HyenaDNA, HyenaDNAConfig

#: Ours to published, inside one layer; the filter's MLP is numbered and handled apart.
_LAYER_NAMES = (
    ("norm.", "norm1."),
    ("channel_norm.", "norm2."),
    ("mixer.filter.skip", "mixer.filter_fn.bias"),
    ("mixer.filter.freq", "mixer.filter_fn.implicit_filter.1.freq"),
    ("mixer.", "mixer."),
    ("channel_mixer.", "mlp."),
)


class _HyenaDNAFormat(CheckpointFormat):
    architecture = "HyenaDNA"

    def canonical(self, key: str) -> str | None:
        """Strip wrappers, activation-checkpointing's ``.layer``, and name every classifier head ``classifier``.

        The sines of one filter share their frequency, which files store once or three times.
        """
        if "torchmetrics" in key or key.startswith("loss"):
            return None
        key = re.sub(r"^(module\.|_orig_mod\.|model\.|hyena\.)+", "", key)
        key = re.sub(r"^(decoder\.0\.output_transform|head\.output_transform|score)\.", "classifier.", key)
        key = re.sub(r"\.(mixer|mlp)\.layer\.", r".\1.", key)
        return re.sub(r"implicit_filter\.\d+\.freq$", "implicit_filter.1.freq", key)

    def computed(self, key: str) -> bool:
        """Position grids and decay rates are stored, though they follow from the configuration."""
        return key.endswith((".pos_emb.z", ".pos_emb.t", ".modulation.deltas"))

    def is_head(self, key: str) -> bool:
        """Whether a canonical key belongs to one of the possible heads."""
        return key.startswith(("lm_head.", "classifier."))

    def published(self, key: str, config: HyenaDNAConfig) -> str:
        """Translate one of our names."""
        if key == "embedding.weight":
            return "backbone.embeddings.word_embeddings.weight"
        if key.startswith("head.output."):
            return key.replace("head.output.", "classifier.")
        if key == "head.weight":
            return "lm_head.weight"
        key = key.replace("backbone.final_norm.", "backbone.ln_f.")
        match = re.match(r"backbone\.layers\.(\d+)\.(.+)", key)
        if match is None:
            return key
        prefix, rest = f"backbone.layers.{match[1]}.", match[2]
        if inner := re.match(r"mixer\.filter\.layers\.(\d+)\.(.+)", rest):
            return f"{prefix}mixer.filter_fn.implicit_filter.{2 * int(inner[1])}.{inner[2]}"
        if rest == "mixer.filter.out.weight":
            return f"{prefix}mixer.filter_fn.implicit_filter.{2 * (config.num_inner_mlps + 1)}.weight"
        for ours, theirs in _LAYER_NAMES:
            if rest.startswith(ours):
                return prefix + theirs + rest.removeprefix(ours)
        return key

    def read_config(self, checkpoint: Checkpoint) -> HyenaDNAConfig:
        """Take dimensions from the weights, what they do not show from the configuration, published values else."""
        published = dict(checkpoint.config or {})
        published |= published.pop("layer", None) or {}
        tensors = self.tensors(checkpoint)
        shape = ShapeReader(checkpoint.path, tensors)
        first = "backbone.layers.0."
        filter_name = first + "mixer.filter_fn.implicit_filter."
        rows, d_model = shape.of("backbone.embeddings.word_embeddings.weight", 2)
        filter_order, emb_dim = shape.of(filter_name + "0.weight", 2)
        n_layer = shape.count(r"backbone\.layers\.(\d+)\.")
        linears = {int(m[1]) for key in tensors if (m := re.match(re.escape(filter_name) + r"(\d+)\.weight", key))}
        order = shape.of(first + "mixer.in_proj.weight", 2)[0] // d_model - 1
        d_inner = shape.of(first + "mlp.fc1.weight", 2)[0]
        grid = first + "mixer.filter_fn.pos_emb.t"
        max_length = published.get("max_seq_len", published.get("l_max"))
        if grid in tensors:
            stored = shape.of(grid, 3)[1]
            shape.agree(published, {"max_seq_len": stored, "l_max": stored})
            max_length = stored
        if max_length is None:
            raise UserError(
                f"{checkpoint.path}: the length of its filters is unknown; put config.json beside it or pass "
                "config={'max_seq_len': …} (the published nominal length + 2)"
            )
        shape.agree(published, {"d_model": d_model, "n_layer": n_layer, "d_inner": d_inner, "hyena_order": order})
        shape.agree(published, {"emb_dim": emb_dim, "filter_order": filter_order})
        embedding, head = tensors["backbone.embeddings.word_embeddings.weight"], tensors.get("lm_head.weight")
        return HyenaDNAConfig(
            d_model=d_model,
            n_layer=n_layer,
            max_length=max_length,
            d_inner=d_inner,
            order=order,
            emb_dim=emb_dim,
            filter_order=filter_order,
            num_inner_mlps=len(linears) - 2,
            short_filter_order=shape.of(first + "mixer.short_filter.weight", 3)[2],
            activation_freq=float(published.get("activation_freq", published.get("w", 10.0))),
            train_freq=bool(published.get("train_freq", True)),
            use_bias=first + "mixer.in_proj.bias" in tensors,
            embed_dropout=float(published.get("embed_dropout", 0.1)),
            resid_dropout=float(published.get("resid_dropout", 0.0)),
            layer_norm_epsilon=float(published.get("layer_norm_epsilon", 1e-5)),
            vocab_size=rows if rows % 8 else int(published.get("vocab_size", min(rows, 12))),
            pad_vocab_size_multiple=1 if rows % 8 else int(published.get("pad_vocab_size_multiple", 8)),
            tie_embeddings=torch.equal(head, embedding)
            if head is not None
            else bool(published.get("tie_word_embeddings", True)),
            **self._head(tensors),
        )

    def _head(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """A file with a classifier and no language-model head is a classifier; with both, ``head=`` chooses."""
        if "classifier.weight" not in tensors:
            return {}
        return {
            "head": "language_model" if "lm_head.weight" in tensors else "classification",
            "num_classes": tensors["classifier.weight"].shape[0],
            "head_bias": "classifier.bias" in tensors,
        }

    def check(self, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
        """Compare the stored grids and decay rates with ours, so that a model trained on other ones is noticed."""
        assert isinstance(model, HyenaDNA)
        for i, block in enumerate(model.backbone.blocks()):
            assert isinstance(block.mixer, Hyena)
            z, t = block.mixer.filter.positions(model.config.max_length)
            ours = {"pos_emb.z": z, "pos_emb.t": t, "modulation.deltas": block.mixer.filter.decay_rates()}
            for name, value in ours.items():
                stored = tensors.get(f"backbone.layers.{i}.mixer.filter_fn.{name}")
                if stored is None:
                    continue
                if stored.numel() != value.numel():
                    raise UserError(
                        f"layer {i}: the stored {name} is {tuple(stored.shape)}, which max_length = "
                        f"{model.config.max_length} and d_model = {model.config.d_model} contradict"
                    )
                if not torch.allclose(stored.flatten().float(), value.flatten(), atol=1e-4):
                    raise UserError(
                        f"layer {i}: the stored {name} is not the published grid; this checkpoint was trained with "
                        "learned positions or other decay rates, which are not supported"
                    )


class HyenaDNAGitHub(_HyenaDNAFormat):
    """``weights.ckpt`` of the training repository: Lightning's prefix, head tied to the embedding."""

    name = "hyenadna-github"
    description = "HyenaDNA weights.ckpt of the original repository"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the filter's names, where it is not the hub's."""
        return any(".filter_fn." in key for key in checkpoint.tensors) and not _is_hub(checkpoint)


class HyenaDNAHub(_HyenaDNAFormat):
    """The ``-hf`` repositories: prefix ``hyena.``, a head of its own, one frequency for each filter."""

    name = "hyenadna-hf"
    description = "HyenaDNA -hf repositories of the hub"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the filter's names and the hub's prefix."""
        return any(".filter_fn." in key for key in checkpoint.tensors) and _is_hub(checkpoint)

    def _head(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The hub's classifier reads the last token that is no padding."""
        head = super()._head(tensors)
        return {**head, "pooling": "last"} if head else {}

    def stored(self, key: str, config: HyenaDNAConfig) -> str:
        """Add the prefix back."""
        return f"hyena.{key}" if key.startswith("backbone.") else key.replace("classifier.", "score.")

    def computed_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The hub's files hold the grids."""
        assert isinstance(model, HyenaDNA)
        result = {}
        for i, block in enumerate(model.backbone.blocks()):
            assert isinstance(block.mixer, Hyena)
            z, t = block.mixer.filter.positions(model.config.max_length)
            prefix = f"hyena.backbone.layers.{i}.mixer.filter_fn."
            result[prefix + "pos_emb.z"], result[prefix + "pos_emb.t"] = z[None], t[None]
            result[prefix + "modulation.deltas"] = block.mixer.filter.decay_rates()[None, None]
        return result

    def write_config(self, config: HyenaDNAConfig) -> dict[str, Any]:
        """Return the hub's config.json."""
        if config.tie_embeddings and config.head == "language_model":
            raise UserError("format 'hyenadna-hf' has a head of its own; load the model with tie_embeddings=False")
        if config.shift != 0.05:
            raise UserError(f"format 'hyenadna-hf' fixes the window's shift at 0.05; this model has {config.shift}")
        classification = config.head == "classification"
        return {
            "architectures": ["HyenaDNAForSequenceClassification" if classification else "HyenaDNAForCausalLM"],
            "model_type": "hyenadna",
            "d_model": config.d_model,
            "n_layer": config.n_layer,
            "d_inner": config.d_inner or 4 * config.d_model,
            "vocab_size": config.vocab_size,
            "pad_vocab_size_multiple": config.pad_vocab_size_multiple,
            "max_seq_len": config.max_length,
            "emb_dim": config.emb_dim,
            "filter_order": config.filter_order,
            "num_inner_mlps": config.num_inner_mlps,
            "hyena_order": config.order,
            "short_filter_order": config.short_filter_order,
            "activation_freq": config.activation_freq,
            "train_freq": config.train_freq,
            "use_bias": config.use_bias,
            "embed_dropout": config.embed_dropout,
            "hyena_dropout": 0.0,
            "hyena_filter_dropout": 0.0,
            "layer_norm_epsilon": config.layer_norm_epsilon,
            "initializer_range": config.initializer_range,
            "tie_word_embeddings": False,
            "pad_token_id": 4,
        } | ({"num_labels": config.num_classes} if classification else {})


def _is_hub(checkpoint: Checkpoint) -> bool:
    if (checkpoint.config or {}).get("model_type") == "hyenadna":
        return True
    return any(re.match(r"(model\.)?hyena\.", key) for key in checkpoint.tensors)


register_format(HyenaDNAGitHub())
register_format(HyenaDNAHub())
