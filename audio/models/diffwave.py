"""DiffWave on a SaShiMi backbone: diffusion of raw audio (Kong et al. 2021, arXiv:2009.09761; Goel et al. 2022)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers import S4
from ...core.registry import ModelEntry, register_architecture, register_model
from .half_cauchy import HalfCauchyKernel
from .noise_schedule import NoiseSchedule
from .pooling import PoolLinear
from .sashimi_backbone import MultiRateStack
from .sashimi_blocks import ScalarNorm


@dataclass(frozen=True, kw_only=True)
class DiffWaveConfig:
    """Dimensions of a :class:`DiffWave`; defaults are the published unconditional model of spoken digits."""

    d_model: int = 128
    """Width at the rate of the samples."""
    n_layers: int = 6
    """Blocks at each rate, before and behind the center."""
    pool: tuple[int, ...] = (4, 4)
    """Factors between the rates, from fine to coarse."""
    expand: int = 2
    """Growth of the width with each pool."""
    ff: int = 2
    """Growth of the width inside feed-forward maps."""
    unet: bool = True
    """Blocks before each pool as well."""
    d_state: int = 64
    """Size of the states of S4, which looks both ways."""
    conjugate_pairs: bool = True
    """Whether S4's sums hold both states of each pair, as they should; ``False`` computes what the published code does
    where it falls back on its own slow sum (see :class:`longscan.audio.models.half_cauchy.HalfCauchyKernel`)."""
    step_features: int = 128
    """Sines and cosines of the diffusion step."""
    step_hidden: int = 512
    """Hidden width of the network that reads them."""
    step_width: int = 512
    """Width of its output."""
    diffusion_steps: int = 200
    """Steps T from data to noise."""
    beta_min: float = 1e-4
    """Variance of the noise in the first step."""
    beta_max: float = 0.02
    """Variance in the last; linear in between."""
    sample_rate: int = 16000
    """Of the audio that the model was made for, in Hz."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", tuple(self.pool))
        for name in ("d_model", "n_layers", "expand", "ff", "step_features", "step_hidden", "step_width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.step_features % 2 or self.step_features < 4:
            raise UserError(f"step_features is {self.step_features}; expected an even number of at least 4")


class DiffWaveBlock(nn.Module):
    """``x += S4(norm(x) + fc_t(step));  x += ff(norm(x))``, with S4 in both directions."""

    def __init__(self, width: int, config: DiffWaveConfig) -> None:
        super().__init__()
        self.fc_t = nn.Linear(config.step_width, width)
        self.norm1 = ScalarNorm()
        self.layer = S4(width, d_state=config.d_state, bidirectional=True)
        if not config.conjugate_pairs:
            self.layer.layer.kernel = HalfCauchyKernel(width, config.d_state, channels=2)
        self.norm2 = ScalarNorm()
        self.inner = _normed(width, width * config.ff)
        self.outer = _normed(width * config.ff, width)

    def forward(self, x: Tensor, step: Tensor) -> Tensor:
        """(batch, length, width) and the step's features (batch, step_width) to (batch, length, width)."""
        x = x + self.layer(self.norm1(x) + self.fc_t(step)[:, None])
        return x + self.outer(F.gelu(self.inner(self.norm2(x))))


@register_architecture("DiffWave", DiffWaveConfig)
class DiffWave(nn.Module):
    """Predicts the noise in a noisy waveform; ``sample`` turns noise into audio step by step.

    ``forward`` maps noisy samples (batch, length, 1) or (batch, length) and diffusion steps (batch,) int64, 0 the
    least noisy, to the noise, in the shape of the samples. Lengths that are no multiple of all pools together (16) are
    padded with zeros.

    Args:
        config: dimensions.
    """

    def __init__(self, config: DiffWaveConfig) -> None:
        super().__init__()
        self.config = config
        self.schedule = NoiseSchedule(config.diffusion_steps, config.beta_min, config.beta_max)
        self.fc_t1 = nn.Linear(config.step_features, config.step_hidden)
        self.fc_t2 = nn.Linear(config.step_hidden, config.step_width)
        self.encoder = _normed(1, config.d_model)

        def blocks(width: int) -> list[nn.Module]:
            return [DiffWaveBlock(width, config) for _ in range(config.n_layers)]

        self.backbone = MultiRateStack(
            config.d_model, config.pool, config.expand, blocks,
            unet=config.unet, norm=ScalarNorm(), weight_norm=True, shift=False,
        )  # fmt: skip
        self.decoder = _normed(config.d_model, config.d_model)
        self.output = nn.Linear(config.d_model, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Return the noise that the model sees in ``x``.

        Raises:
            UserError: for audio of more than one channel.
        """
        samples = x.unsqueeze(-1) if x.ndim == 2 else x
        if samples.shape[-1] != 1:
            raise UserError(f"the audio has {samples.shape[-1]} channels, DiffWave reads 1")
        step = self.embed_step(steps).to(samples.dtype)
        step = F.silu(self.fc_t2(F.silu(self.fc_t1(step))))
        h = F.relu(self.encoder(samples))
        h = self.backbone(h, block=lambda block, h: block(h, step))
        return self.output(F.relu(self.decoder(h))).view(x.shape)

    def embed_step(self, steps: Tensor) -> Tensor:
        """Sines, then cosines of ``t · 10000^(-k / (n - 1))``, (batch, step_features)."""
        half = self.config.step_features // 2
        dtype = self.fc_t1.weight.dtype if self.fc_t1.weight.dtype == torch.float64 else torch.float32
        powers = torch.arange(half, device=steps.device, dtype=dtype)
        phases = steps.reshape(-1, 1).to(dtype) * torch.exp(powers * (-math.log(10000) / (half - 1)))
        return torch.cat([torch.sin(phases), torch.cos(phases)], dim=1)

    @torch.no_grad()
    def sample(
        self, batch: int, length: int, generator: torch.Generator | Sequence[torch.Generator] | None = None
    ) -> Tensor:
        """Draw waveforms (batch, length, 1) by the whole reverse process.

        Args:
            batch: waveforms.
            length: samples of each.
            generator: of the noise, on the CPU or the model's device; or one for each waveform, whose noise then does
                not depend on the others.

        Raises:
            UserError: for another number of generators than of waveforms.
        """
        weight = self.output.weight

        def normal(rows: int, generator: torch.Generator | None) -> Tensor:
            device = weight.device if generator is None else generator.device
            return torch.randn(rows, length, 1, generator=generator, device=device, dtype=weight.dtype).to(
                weight.device
            )

        def noise() -> Tensor:
            if generator is None or isinstance(generator, torch.Generator):
                return normal(batch, generator)
            return torch.cat([normal(1, each) for each in generator])

        if isinstance(generator, Sequence) and len(generator) != batch:
            raise UserError(f"{len(generator)} generators were given for {batch} waveforms; give one for each")

        x = noise()
        for step in reversed(range(self.config.diffusion_steps)):
            predicted = self(x, torch.full((batch,), step, device=weight.device))
            x = self.schedule.reverse(x, predicted, step, noise() if step else None)
        return x

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": "DiffWave", "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def _normed(inputs: int, outputs: int) -> PoolLinear:
    """A weight-normed linear map with the published start: weights of variance 2 / inputs."""
    linear = PoolLinear(inputs, outputs, weight_norm=True)
    with torch.no_grad():
        nn.init.kaiming_normal_(linear.weight_v)
        linear.weight_g.copy_(linear.weight_v.norm(dim=1, keepdim=True))
    return linear


for _name, _d_model, _size in (("diffwave_sashimi", 128, "23 M"), ("diffwave_sashimi_small", 64, "7.7 M")):
    register_model(
        ModelEntry(
            name=_name,
            domain="audio",
            config=partial(DiffWaveConfig, d_model=_d_model),
            architecture="DiffWave",
            description=f"DiffWave on a SaShiMi U-Net of width {_d_model} ({_size}), unconditional, as published",
        )
    )
