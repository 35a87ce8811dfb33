"""HyenaDNA: a causal model of single nucleotides up to a million long (Nguyen et al. 2023, arXiv:2306.15794)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ...core.backbone import BackboneConfig
from ...core.heads import HeadConfig
from ...core.models.token_model import TokenModel, round_up
from ...core.registry import ModelEntry, register_architecture, register_model


@dataclass(frozen=True, kw_only=True)
class HyenaDNAConfig(HeadConfig):
    """Dimensions of a HyenaDNA; defaults are the published constants."""

    d_model: int
    """Width."""
    n_layer: int
    """Blocks, each a Hyena operator and an MLP."""
    max_length: int
    """Grid of the filters (l_max): the published nominal length + 2. Longer inputs are an error."""
    d_inner: int | None = None
    """Hidden width of the MLPs, by default 4 · d_model."""
    order: int = 2
    """Order of the Hyena operator."""
    emb_dim: int = 5
    """Positional features of the implicit filters (odd)."""
    filter_order: int = 64
    """Width of the filters' MLP."""
    num_inner_mlps: int = 2
    """Its inner layers."""
    short_filter_order: int = 3
    """Width of the short convolution."""
    activation_freq: float = 10.0
    """Initial frequency of the sine activations (w)."""
    train_freq: bool = True
    """Whether that frequency is trained."""
    shift: float = 0.05
    """Offset of the filters' window: 0.05 in the published models, 0.0 in the training repository's own layer."""
    use_bias: bool = True
    """Biases of the operator's projections."""
    embed_dropout: float = 0.1
    """Dropout of the embeddings in training."""
    resid_dropout: float = 0.0
    """Dropout of what each layer adds to the residual stream."""
    layer_norm_epsilon: float = 1e-5
    """Epsilon of the layer norms."""
    vocab_size: int = 12
    """Characters and special tokens."""
    pad_vocab_size_multiple: int = 8
    """The embedding has this multiple of rows: 16."""
    tie_embeddings: bool = True
    """Tied in the original checkpoints; the ``-hf`` ones have a head of their own."""
    residual_in_fp32: bool = True
    """Residual stream in float32."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""
    tokenizer: dict[str, Any] | None = None
    """Settings of the tokenizer that the model was trained with; ``None`` is the published one."""

    def backbone(self) -> BackboneConfig:
        """Return the stack: ``h = h + Hyena(LN(h)); h = h + MLP(LN(h))`` in each block."""
        hyena = {
            "name": "hyena",
            "max_length": self.max_length,
            "order": self.order,
            "emb_dim": self.emb_dim,
            "filter_order": self.filter_order,
            "num_inner_mlps": self.num_inner_mlps,
            "short_filter_order": self.short_filter_order,
            "activation_freq": self.activation_freq,
            "train_freq": self.train_freq,
            "shift": self.shift,
            "bias": self.use_bias,
        }
        mlp = {"name": "mlp", "d_inner": self.d_inner or 4 * self.d_model, "activation": "gelu_tanh"}
        return BackboneConfig(
            d_model=self.d_model,
            layers=[{"mixer": hyena, "channel_mixer": mlp}],
            repeat=self.n_layer,
            norm="layernorm",
            norm_epsilon=self.layer_norm_epsilon,
            residual_in_fp32=self.residual_in_fp32,
            dropout=self.resid_dropout,
            gradient_checkpointing=self.gradient_checkpointing,
            initializer="normal",
            initializer_range=self.initializer_range,
        )


@register_architecture("HyenaDNA", HyenaDNAConfig)
class HyenaDNA(TokenModel):
    """Embedding, Hyena blocks, and a language-model or classification head.

    The mathematics is that of the backbone (:class:`longscan.core.mixers.Hyena` and an MLP, pre-norm); generation and
    streaming come with it (``prefill``, ``step``).
    """

    config: HyenaDNAConfig

    def __init__(self, config: HyenaDNAConfig) -> None:
        super().__init__(
            config,
            config.backbone(),
            vocab_rows=round_up(config.vocab_size, config.pad_vocab_size_multiple),
            tie_embeddings=config.tie_embeddings,
            embedding_dropout=config.embed_dropout,
        )


#: name: (published name, d_model, n_layer, nominal length).
_PUBLISHED = {
    "hyenadna_tiny_1k": ("hyenadna-tiny-1k-seqlen", 128, 2, 1024),
    "hyenadna_tiny_1k_d256": ("hyenadna-tiny-1k-seqlen-d256", 256, 2, 1024),
    "hyenadna_tiny_16k": ("hyenadna-tiny-16k-seqlen-d128", 128, 2, 16384),
    "hyenadna_small_32k": ("hyenadna-small-32k-seqlen", 256, 4, 32768),
    "hyenadna_medium_160k": ("hyenadna-medium-160k-seqlen", 256, 8, 160000),
    "hyenadna_medium_450k": ("hyenadna-medium-450k-seqlen", 256, 8, 450000),
    "hyenadna_large_1m": ("hyenadna-large-1m-seqlen", 256, 8, 1000000),
}
for _name, (_published, _d_model, _n_layer, _length) in _PUBLISHED.items():
    register_model(
        ModelEntry(
            name=_name,
            domain="genomics",
            config=partial(HyenaDNAConfig, d_model=_d_model, n_layer=_n_layer, max_length=_length + 2),
            architecture="HyenaDNA",
            aliases=(_published, f"{_published}-hf", f"LongSafari/{_published}", f"LongSafari/{_published}-hf"),
            hub=f"LongSafari/{_published}-hf",
            description=f"HyenaDNA, {_n_layer} layers of width {_d_model}, up to {_length:,} bases",
        )
    )
