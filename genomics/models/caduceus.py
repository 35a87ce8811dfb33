"""Caduceus: a bidirectional model of DNA that respects reverse complements (Schiff et al. 2024, arXiv:2403.03234)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.backbone import BackboneConfig
from ...core.errors import UserError
from ...core.heads import ClassificationHead, HeadConfig
from ...core.mixers import State
from ...core.models.token_model import TokenModel, round_up
from ...core.registry import ModelEntry, register_architecture, register_model
from ..tokenizer import COMPLEMENT


@dataclass(frozen=True, kw_only=True)
class CaduceusConfig(HeadConfig):
    """Dimensions and variants of a Caduceus; defaults are those of the published models."""

    d_model: int
    """Width of one strand."""
    n_layer: int
    """Number of BiMamba blocks."""
    rcps: bool = False
    """PS: every layer is equivariant to the reverse complement. Otherwise Ph (post-hoc)."""
    rcps_swap: bool = True
    """PS only: exchange the strands before each block, as the published models do (``fused_add_norm`` of theirs)."""
    d_state: int = 16
    """State size of Mamba."""
    d_conv: int = 4
    """Width of Mamba's convolution."""
    expand: int | float = 2
    """Mamba's inner width over d_model."""
    dt_rank: int | Literal["auto"] = "auto"
    """Rank of Mamba's step sizes."""
    dt_min: float = 0.001
    """Smallest initial step size."""
    dt_max: float = 0.1
    """Largest initial step size."""
    dt_init: Literal["random", "constant"] = "random"
    """Initialisation of the step sizes' projection."""
    dt_scale: float = 1.0
    """Scale of that."""
    dt_init_floor: float = 1e-4
    """Floor of the initial step sizes."""
    conv_bias: bool = True
    """Bias of Mamba's convolution."""
    bias: bool = False
    """Biases of Mamba's projections."""
    bidirectional: bool = True
    """Scan from both ends."""
    bidirectional_strategy: Literal["add", "ew_multiply"] = "add"
    """How the two directions meet."""
    bidirectional_weight_tie: bool = True
    """Share the projections between the directions."""
    rms_norm: bool = True
    """RMSNorm, or LayerNorm."""
    norm_epsilon: float = 1e-5
    """Epsilon of the norms."""
    residual_in_fp32: bool = True
    """Residual stream in float32 (the published configurations say false; in float32 it is the same)."""
    vocab_size: int = 16
    """Rows of the embedding that are used."""
    pad_vocab_size_multiple: int = 8
    """The embedding has a multiple of this many rows."""
    complement_map: tuple[int, ...] = COMPLEMENT
    """Id of the complement of each id."""
    pad_token_id: int | None = None
    """Id that a masked-language-model loss ignores, if the configuration names one."""
    conjoin: bool = False
    """Ph classifiers: average the logits of the sequence and of its reverse complement."""
    initializer_range: float = 0.02
    """Standard deviation of the initial embedding."""
    rescale_prenorm_residual: bool = True
    """Shrink output projections with depth."""
    embedding_dropout: float = 0.0
    """Dropout of the embeddings (not published; for fine-tuning small data)."""
    dropout: float = 0.0
    """Dropout of what each block adds (likewise)."""
    drop_path: float = 0.0
    """Stochastic depth (likewise)."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""
    head_bias: bool = False
    """Bias of a classification head; published ones have none."""
    tokenizer: dict[str, Any] | None = None
    """Settings of the tokenizer that the model was trained with; ``None`` is the published one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.complement_map, Mapping):  # JSON has string keys
            pairs = {int(key): int(value) for key, value in self.complement_map.items()}
            object.__setattr__(self, "complement_map", tuple(pairs[i] for i in range(len(pairs))))
        object.__setattr__(self, "complement_map", tuple(self.complement_map))
        if self.rcps and self.conjoin:
            raise UserError("conjoin is for Ph models; a PS model (rcps) treats both strands alike by itself")

    def backbone(self) -> BackboneConfig:
        """Return the stack of BiMamba blocks."""
        mamba = {
            "name": "mamba",
            "d_state": self.d_state,
            "d_conv": self.d_conv,
            "expand": self.expand,
            "dt_rank": self.dt_rank,
            "dt_min": self.dt_min,
            "dt_max": self.dt_max,
            "dt_init": self.dt_init,
            "dt_scale": self.dt_scale,
            "dt_init_floor": self.dt_init_floor,
            "conv_bias": self.conv_bias,
            "bias": self.bias,
        }
        both = {
            "name": "bidirectional",
            "mixer": mamba,
            "tie": "projections" if self.bidirectional_weight_tie else "none",
            "combine": {"add": "add", "ew_multiply": "multiply"}[self.bidirectional_strategy],
        }
        return BackboneConfig(
            d_model=self.d_model,
            layers=[both if self.bidirectional else mamba],
            repeat=self.n_layer,
            norm="rmsnorm" if self.rms_norm else "layernorm",
            norm_epsilon=self.norm_epsilon,
            residual_in_fp32=self.residual_in_fp32,
            dropout=self.dropout,
            drop_path=self.drop_path,
            gradient_checkpointing=self.gradient_checkpointing,
            initializer_range=self.initializer_range,
            rescale_prenorm_residual=self.rescale_prenorm_residual,
        )


def reverse_complement(features: Tensor) -> Tensor:
    """Return the reverse complement of features (…, length, channels): both dimensions flipped."""
    return features.flip(-2, -1)


@register_architecture("Caduceus", CaduceusConfig)
class Caduceus(TokenModel):
    """Caduceus-Ph and -PS with a language-model or classification head.

    **Ph**: embedding, BiMamba blocks, tied head. With ``conjoin`` a classifier averages the logits of both strands.

    **PS** runs both strands, each in its own 5'→3' frame, through the same weights. The public hidden layout is
    (batch, length, 2 · d_model): the forward strand's features, then those of the reverse strand flipped along length
    and channels, so that ``features(rc(x)) = rc(features(x))``. Logits are equivariant, classifier logits invariant.

    Inputs are ids (batch, length); a conjoining classifier also takes (batch, length, 2), both strands given.
    """

    config: CaduceusConfig
    complement: Tensor

    def __init__(self, config: CaduceusConfig) -> None:
        rows = round_up(config.vocab_size, config.pad_vocab_size_multiple)
        super().__init__(config, config.backbone(), vocab_rows=rows, embedding_dropout=config.embedding_dropout)
        if len(config.complement_map) > rows:
            raise UserError(f"complement_map has {len(config.complement_map)} entries, the vocabulary {rows}")
        complement = [*config.complement_map, *range(len(config.complement_map), rows)]
        self.register_buffer("complement", torch.tensor(complement), persistent=False)

    def reverse_complement_ids(self, input_ids: Tensor) -> Tensor:
        """Return the ids (batch, length) of the other strand, 5'→3'."""
        return self.complement[input_ids].flip(1)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return logits."""
        if not (self.config.conjoin and isinstance(self.head, ClassificationHead)):
            return super().forward(input_ids, mask, cu_seqlens=cu_seqlens)
        if input_ids.dim() == 3:
            strands = input_ids.unbind(-1)
            masks = (mask, mask)  # both strands were padded by the same rule
        else:
            strands = (input_ids, self.reverse_complement_ids(input_ids))
            masks = (mask, None if mask is None else mask.flip(1))
        logits = [super(Caduceus, self).forward(ids, m) for ids, m in zip(strands, masks, strict=True)]
        return (logits[0] + logits[1]) / 2

    def forward_features(self, input_ids: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Return the hidden sequence: (batch, length, d_model), for PS (batch, length, 2 · d_model).

        Raises:
            ValueError: for packed sequences in PS, whose strands are turned as a whole.
        """
        if not self.config.rcps:
            return super().forward_features(input_ids, cu_seqlens=cu_seqlens)
        if cu_seqlens is not None:
            raise ValueError("cu_seqlens: Caduceus-PS turns whole sequences around; pad them into a batch instead")
        x = self.backbone.stream(self.embed(torch.cat([input_ids, self.reverse_complement_ids(input_ids)])))
        for block in self.backbone.blocks():
            if self.config.rcps_swap:
                x = reverse_complement(x).roll(len(input_ids), dims=0)
            x = self.backbone.run_block(block, x)
        forward, reverse = self.backbone.final_norm(x).chunk(2)
        return torch.cat([forward, reverse_complement(reverse)], dim=-1)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> list[State]:
        """Return the empty state for generation, which only a Ph model with ``bidirectional=False`` has.

        Raises:
            ValueError: for every other model.
        """
        self._check_one_way("init_state")
        return super().init_state(batch_size, device, dtype)

    def prefill(self, input_ids: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """See :meth:`TokenModel.prefill`; for the models that :meth:`init_state` serves."""
        self._check_one_way("prefill")
        return super().prefill(input_ids, state)

    def prefill_features(self, input_ids: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """See :meth:`TokenModel.prefill_features`; for the models that :meth:`init_state` serves."""
        self._check_one_way("prefill_features")
        return super().prefill_features(input_ids, state)

    def step(self, input_ids: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """See :meth:`TokenModel.step`; for the models that :meth:`init_state` serves."""
        self._check_one_way("step")
        return super().step(input_ids, state)

    def _check_one_way(self, method: str) -> None:
        if self.config.rcps or self.config.bidirectional:
            raise ValueError(
                f"Caduceus.{method} needs a causal model, and this one reads the sequence from both ends; "
                "call forward on the whole sequence instead"
            )

    def forward_head(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits of the hidden sequence."""
        if not self.config.rcps:
            return super().forward_head(features, mask)
        forward, reverse = features.chunk(2, dim=-1)
        if isinstance(self.head, ClassificationHead):
            # Pool the reverse strand in its own frame, where it was padded on the other side.
            other = self.head(reverse_complement(reverse), None if mask is None else mask.flip(1))
            return (self.head(forward, mask) + other) / 2
        return self.token_logits(features)

    def token_logits(self, features: Tensor) -> Tensor:
        """See :meth:`TokenModel.token_logits`; for PS the sum over both strands."""
        if not self.config.rcps:
            return super().token_logits(features)
        forward, reverse = features.chunk(2, dim=-1)
        weight = self.embedding.weight
        return F.linear(forward.to(weight.dtype), weight) + F.linear(
            reverse.flip(-1).to(weight.dtype), weight[self.complement]
        )


#: name: (published name, rcps, d_model, n_layer).
_PUBLISHED = {
    f"caduceus_{kind}_{name}": (f"caduceus-{kind}_{published}", kind == "ps", d_model, n_layer)
    for kind in ("ph", "ps")
    for name, published, d_model, n_layer in (
        ("1k_d118", "seqlen-1k_d_model-118_n_layer-4_lr-8e-3", 118, 4),
        ("1k_d256", "seqlen-1k_d_model-256_n_layer-4_lr-8e-3", 256, 4),
        ("131k", "seqlen-131k_d_model-256_n_layer-16", 256, 16),
    )
}
for _name, (_published, _rcps, _d_model, _n_layer) in _PUBLISHED.items():
    register_model(
        ModelEntry(
            name=_name,
            domain="genomics",
            config=partial(CaduceusConfig, d_model=_d_model, n_layer=_n_layer, rcps=_rcps),
            architecture="Caduceus",
            aliases=(_published, f"kuleshov-group/{_published}"),
            hub=f"kuleshov-group/{_published}",
            description=f"Caduceus-{'PS' if _rcps else 'Ph'}, {_n_layer} BiMamba blocks of width {_d_model}",
        )
    )
