"""A controllable audio effect of S4D layers, causal and streaming (Simionato and Fasciani 2024, arXiv:2403.16331)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...core.errors import UserError, nearest
from ...core.mixers import S4D
from ...core.registry import ModelEntry, register_architecture, register_model

if TYPE_CHECKING:
    from .compressor_stream import CompressorStream

#: Samples of a smaller magnitude have the level of this one, -120 dB.
LEVEL_FLOOR = 1e-6
#: Gains stay within e to the power of ± this, 87 dB, so that outputs are finite whatever the input.
LARGEST_LOG_GAIN = 10.0
_OUTPUTS = ("sample", "gain")


@dataclass(frozen=True, kw_only=True)
class S4CompressorConfig:
    """Dimensions of an :class:`S4Compressor`; defaults are the published model of the LA-2A."""

    in_channels: int = 1
    """Channels of the audio, of input and output."""
    n_controls: int = 2
    """Controls: of the LA-2A, peak reduction and the compress/limit switch, each scaled to [0, 1]. 0 has none."""
    control_names: tuple[str, ...] | None = None
    """Their names, in order, for messages and listings."""
    control_width: tuple[int, ...] = (16, 32)
    """Hidden layers of the network that reads the controls; its output has d_model features."""
    d_model: int = 32
    """Width."""
    n_layers: int = 4
    """Blocks."""
    d_state: int = 4
    """Size of the states of each feature."""
    output: Literal["sample", "gain"] = "sample"
    """What the decoder gives: ``sample``, as published, whose tanh is the output; or ``gain``, the logarithm of what
    the input is multiplied by, for effects that are a gain which varies with time, as those of dynamics (the form of
    Wright and Välimäki 2022, "Grey-box modelling of dynamic range compression"). Such a model also reads the level of
    the samples in decibels, in which thresholds and ratios are linear."""
    dt_min: float = 0.001
    """Least step size of the states at initialisation. Modes decay over 2 / dt samples, so that times T that an effect
    remembers need dt_min ≤ 2 / (T · sample_rate)."""
    dt_max: float = 0.1
    """Greatest step size."""
    sample_rate: int = 44100
    """Of the audio that the model was made for, in Hz."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "control_width", tuple(self.control_width))
        for name in ("in_channels", "d_model", "n_layers", "sample_rate"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.output not in _OUTPUTS:
            raise UserError(f"output is {self.output!r}; {nearest(self.output, _OUTPUTS)}")
        if self.control_names is not None:
            object.__setattr__(self, "control_names", tuple(self.control_names))
            if len(self.control_names) != self.n_controls:
                raise UserError(f"control_names has {len(self.control_names)} names, n_controls is {self.n_controls}")


class CompressorState(NamedTuple):
    """What a compressor carries from block to block; :func:`longscan.core.mixers.clone_state` copies it."""

    data: Tensor
    """(batch, n_layers, 2, d_state / 2, d_model), real and imaginary parts of the modes."""
    stream: CompressorStream
    """The discretised model, shared."""


class CompressorBlock(nn.Module):
    """``skip · x + prelu(film(norm(s4d(prelu(linear(x))))))``."""

    def __init__(self, config: S4CompressorConfig) -> None:
        super().__init__()
        width = config.d_model
        self.linear = nn.Linear(width, width)
        self.inner_activation = nn.PReLU()
        self.mixer = S4D(
            width,
            d_state=config.d_state,
            dt_min=config.dt_min,
            dt_max=config.dt_max,
            activation="none",
            final_act="id",
        )
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.film = nn.Linear(width, 2 * width) if config.n_controls else None
        self.outer_activation = nn.PReLU()
        self.skip = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor, controls: Tensor | None) -> Tensor:
        """(batch, length, d_model), controls (batch, d_model), to (batch, length, d_model)."""
        y = self.mixer(self.inner_activation(self.linear(x)))
        y = self.norm(y.flatten(0, 1)).view_as(y)
        if self.film is not None and controls is not None:
            scale, shift = self.film(controls)[:, None].chunk(2, dim=-1)
            y = scale * y + shift
        return self.skip * x + self.outer_activation(y)


@register_architecture("S4Compressor", S4CompressorConfig)
class S4Compressor(nn.Module):
    """Linear encoder, blocks of S4D conditioned on the controls by FiLM, linear decoder, and tanh or a gain.

    ``forward`` maps samples (batch, length, in_channels) or (batch, length), within ±1, and controls
    (batch, n_controls) to samples of the same shape. ``process`` computes the same block by block, in evaluation mode,
    and does not depend on how the signal is cut into blocks: there is no look-ahead, so latency is the block's length.

    Args:
        config: dimensions.
    """

    def __init__(self, config: S4CompressorConfig) -> None:
        super().__init__()
        self.config = config
        self.controls: nn.Sequential | None = None
        if config.n_controls:
            widths = (config.n_controls, *config.control_width, config.d_model)
            layers: list[nn.Module] = []
            for inputs, outputs in pairwise(widths):
                layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            self.controls = nn.Sequential(*layers)
        features = config.in_channels * (2 if config.output == "gain" else 1)
        self.encoder = nn.Linear(features, config.d_model)
        self.blocks = nn.ModuleList(CompressorBlock(config) for _ in range(config.n_layers))
        self.decoder = nn.Linear(config.d_model, config.in_channels)

    def forward(self, x: Tensor, controls: Tensor | None = None) -> Tensor:
        """Return the processed samples, in the shape of ``x``.

        Raises:
            UserError: for another number of channels or controls than the model's.
        """
        sequence = self._samples(x)
        conditions = self.condition(controls, len(x))
        gain = self.config.output == "gain"
        y = self.encoder(torch.cat([sequence, scaled_level(sequence)], dim=-1) if gain else sequence)
        for block in self.blocks:
            y = block(y, conditions)
        y = self.decoder(y)
        return (sequence * torch.exp(y.clamp(-LARGEST_LOG_GAIN, LARGEST_LOG_GAIN)) if gain else torch.tanh(y)).view(
            x.shape
        )

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> CompressorState:
        """Return the state before the first sample; it holds the model's weights as they are now.

        Streaming runs on the CPU, in float64 for a float64 model or ``dtype`` and in float32 otherwise.
        """
        from .compressor_stream import CompressorStream

        return CompressorStream(self, dtype).empty(batch_size)

    @torch.no_grad()
    def process(
        self, x: Tensor, state: CompressorState, controls: Tensor | None = None
    ) -> tuple[Tensor, CompressorState]:
        """Process a block of any length, (batch, length, in_channels) or (batch, length).

        The given state is overwritten. Controls may change from block to block.

        Raises:
            UserError: for another number of channels or controls than the model's.
        """
        y = state.stream.process(self._samples(x), state.data, controls)
        return y.view(x.shape), state

    def condition(self, controls: Tensor | None, batch: int) -> Tensor | None:
        """Features (batch, d_model) of the controls.

        Raises:
            UserError: where their number is not the model's.
        """
        expected = self.config.n_controls
        found = 0 if controls is None else controls.shape[-1]
        if found != expected:
            raise UserError(f"{found} controls were given, this model has {expected}; pass (batch, {expected}) values")
        if self.controls is None or controls is None:
            return None
        return self.controls(controls.to(self.encoder.weight).expand(batch, expected))

    def _samples(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-1) if x.ndim == 2 else x
        if x.shape[-1] != self.config.in_channels:
            raise UserError(f"the audio has {x.shape[-1]} channels, this model reads {self.config.in_channels}")
        return x.to(self.encoder.weight.dtype)

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": "S4Compressor", "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def scaled_level(x: Tensor) -> Tensor:
    """Return the level of samples: from -1 at :data:`LEVEL_FLOOR`, -120 dB, to 1 at full scale, shaped as ``x``."""
    return 1 - 2 * torch.log(x.abs().clamp(min=LEVEL_FLOOR)) / math.log(LEVEL_FLOOR)


register_model(
    ModelEntry(
        name="s4_compressor",
        domain="audio",
        config=S4CompressorConfig,
        architecture="S4Compressor",
        description="controllable effect of 4 causal S4D blocks, as published for the LA-2A compressor",
    )
)
