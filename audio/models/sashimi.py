"""SaShiMi: autoregressive models of raw audio (Goel et al. 2022, arXiv:2202.09729)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers import create_mixer
from ...core.registry import ModelEntry, register_architecture, register_model
from ..quantization import Law, Quantizer, Range
from .sashimi_backbone import MultiRateStack
from .sashimi_blocks import FeedForward, NormName, ResidualBlock, block_norm
from .sashimi_state import SaShiMiState, StepProgram, prefill_stack


@dataclass(frozen=True, kw_only=True)
class SaShiMiConfig:
    """Dimensions of a SaShiMi; defaults are the published model of 4.06 million parameters."""

    d_model: int = 64
    """Width at the rate of the samples."""
    n_layers: int = 8
    """Pairs of a state space block and a feed-forward block at each rate."""
    pool: tuple[int, ...] = (4, 4)
    """Factors between the rates, from fine to coarse; () has one rate alone."""
    expand: int = 2
    """Growth of the width with each pool."""
    ff: int = 2
    """Growth of the width inside feed-forward blocks."""
    unet: bool = False
    """Blocks before each pool as well."""
    center_ff: int | None = None
    """The same in the blocks of the center; 0 leaves them out there, ``None`` is that of the others."""
    bidirectional: bool = False
    """State spaces that look both ways; such a model does not generate."""
    mixer: Literal["s4", "s4d"] = "s4"
    """The state space layer."""
    d_state: int = 64
    """Size of its states."""
    n_ssm: int | None = 1
    """Sets of A and B in a layer; 1 ties all features, ``None`` none."""
    dt_transform: str = "exp"
    """How ``inv_dt`` gives the step size."""
    final_act: Literal["glu", "id"] = "id"
    """What follows the state space layer's projection; the paper's sizes are those of ``id``."""
    layer: dict[str, Any] = field(default_factory=dict)
    """Further options of the mixer."""
    norm: NormName = "scalar"
    """Of the blocks: ``scalar`` in the training repository, ``layer`` in the standalone model."""
    weight_norm: bool = True
    """Of the pools: in the training repository's plain model."""
    dropout: float = 0.0
    """In the blocks, in training."""
    vocab_size: int | None = 256
    """Codes; ``None`` for a plain backbone, which maps (batch, length, d_model) to the same shape."""
    law: Law = "mu"
    """Quantisation of the samples, see :class:`longscan.audio.quantization.Quantizer`."""
    range: Range = "fixed"
    """What spans the codes; the published models took ``minmax``."""
    sample_rate: int = 16000
    """Of the audio that the model was made for, in Hz."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", tuple(self.pool))
        for name in ("d_model", "n_layers", "expand", "ff", "sample_rate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1")
        if any(factor < 1 for factor in self.pool):
            raise UserError(f"pool is {self.pool}; expected factors of at least 1")


@register_architecture("SaShiMi", SaShiMiConfig)
class SaShiMi(nn.Module):
    """Embedding, :class:`MultiRateStack` of S4 and feed-forward blocks, and logits of the next code.

    ``forward`` maps codes (batch, length), or samples in [-1, 1] of floating point, (batch, length) or
    (batch, length, 1), which are quantised first, to logits (batch, length, vocab_size); logits at t are those of the
    sample after t. ``step`` reads one code of every sequence and computes a coarse level only when its turn comes; it
    equals ``forward`` to rounding.

    Args:
        config: dimensions.
    """

    def __init__(self, config: SaShiMiConfig) -> None:
        super().__init__()
        self.config = config
        self.causal = not config.bidirectional
        self.embedding: nn.Embedding | None = None
        self.head: nn.Linear | None = None
        if config.vocab_size is not None:
            self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.backbone = MultiRateStack(
            config.d_model,
            config.pool,
            config.expand,
            partial(self._blocks, config.ff),
            center=partial(self._blocks, config.ff if config.center_ff is None else config.center_ff),
            unet=config.unet,
            weight_norm=config.weight_norm,
        )
        if config.vocab_size is not None:
            self.head = nn.Linear(config.d_model, config.vocab_size)

    def _blocks(self, expand: int, width: int) -> list[nn.Module]:
        config = self.config
        options = {
            "d_state": config.d_state,
            "n_ssm": config.n_ssm,
            "dt_transform": config.dt_transform,
            "final_act": config.final_act,
            "bidirectional": config.bidirectional,
            "dropout": config.dropout,
            **config.layer,
        }
        blocks: list[nn.Module] = []
        for _ in range(config.n_layers):
            mixer = create_mixer(config.mixer, width, **options)
            blocks.append(ResidualBlock(block_norm(config.norm, width), mixer))
            if expand:
                feed_forward = FeedForward(width, expand, config.dropout)
                blocks.append(ResidualBlock(block_norm(config.norm, width), feed_forward))
        return blocks

    @property
    def quantizer(self) -> Quantizer:
        """How the model's samples become codes."""
        return Quantizer((self._vocabulary() - 1).bit_length(), self.config.law, self.config.range)

    def forward(self, input_ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (batch, length, vocab_size), or features of a plain backbone. ``mask`` is not used: a causal
        model needs none for padding at the end, whose targets are left out.
        """
        return self.forward_head(self.forward_features(input_ids))

    def forward_features(self, input_ids: Tensor) -> Tensor:
        """Return the sequence after the final norm, (batch, length, d_model)."""
        return self.backbone(self.embed(input_ids))

    def forward_head(self, features: Tensor) -> Tensor:
        """Return logits of features (…, d_model)."""
        return features if self.head is None else self.head(features)

    def embed(self, inputs: Tensor) -> Tensor:
        """Look up codes, or samples of floating point once quantised."""
        if self.embedding is None:
            return inputs
        if inputs.is_floating_point():
            samples = inputs.squeeze(-1) if inputs.ndim == 3 else inputs
            clips = samples.detach().float().cpu().numpy()
            codes = [self.quantizer.encode(clip) for clip in clips]  # each over a range of its own
            inputs = torch.as_tensor(np.stack(codes), device=inputs.device).long()
        return self.embedding(inputs)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> SaShiMiState:
        """Return the empty state, all of it allocated; it holds the discretised system as it is now.

        Raises:
            ValueError: for a bidirectional model.
        """
        self._check_causal("init_state")
        return StepProgram.of(self, device, dtype).empty(batch_size)

    def prefill(self, input_ids: Tensor, state: SaShiMiState | None = None) -> tuple[Tensor, SaShiMiState]:
        """Read (batch, length) codes; return logits of every position and the state after the last.

        Whole periods (16 samples with the published pools) run in parallel, and carry gradients; what lies before the
        first and behind the last multiple of a period is stepped, without gradients.

        Raises:
            ValueError: for a bidirectional model.
        """
        self._check_causal("prefill")
        state = self.init_state(len(input_ids), input_ids.device) if state is None else state
        features, state = prefill_stack(self.backbone, self.embed(input_ids), state)
        return self.forward_head(features), state

    @torch.no_grad()
    def step(self, input_ids: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
        """Read one code of each sequence, (batch,); return logits (batch, vocab_size) and the state.

        The given state is overwritten. Weights are those at the time of ``init_state``.
        """
        self._check_causal("step")
        return state.program.step(input_ids, state)

    def _vocabulary(self) -> int:
        if self.config.vocab_size is None:
            raise UserError("this SaShiMi is a plain backbone without codes; give vocab_size")
        return self.config.vocab_size

    def _check_causal(self, method: str) -> None:
        if not self.causal:
            raise ValueError(f"SaShiMi.{method} needs a causal model, and this one is bidirectional; call forward")

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": "SaShiMi", "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def _register(name: str, description: str, *aliases: str, **options: Any) -> None:
    register_model(
        ModelEntry(
            name=name,
            domain="audio",
            config=partial(SaShiMiConfig, **options),
            architecture="SaShiMi",
            aliases=aliases,
            description=description,
        )
    )


_register("sashimi", "SaShiMi, 8 layers of width 64 at each rate, as published (4.1 M)", "sashimi_8")
for _layers in (2, 4, 6):
    _register(f"sashimi_{_layers}", f"SaShiMi, {_layers} layers of width 64 at each rate", n_layers=_layers)
_register("sashimi_small", "SaShiMi, 4 layers of width 32 at each rate", d_model=32, n_layers=4, final_act="glu")
_register(
    "sashimi_unet",
    "SaShiMi as a U-Net, the best of the published ones (6.8 M)",
    unet=True,
    n_ssm=None,
    final_act="glu",
    weight_norm=False,
)
