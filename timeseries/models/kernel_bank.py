"""Classification by a bank of random state-space kernels that are not trained, and a linear map in closed form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.registry import ModelEntry, register_architecture, register_model
from .classifier_config import ClassificationConfig
from .ridge_head import RidgeHead, fit_ridge_head
from .scaling import Scaling, known_mask

#: Features of each kernel: outputs above its threshold, their mean excess, their mean time; the maximum; steps at which
#: its output is the highest and the lowest of its group.
POOLS = 6
#: Kernels of a group.
GROUP = 8
#: Outputs below are 0: rounding must not tell which of them is the highest.
_SILENCE = 1e-5
#: Numbers that one block of outputs may have, so that memory stays in the tens of megabytes.
_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True)
class KernelBankConfig(ClassificationConfig):
    """Dimensions of a :class:`KernelBankClassifier`."""

    least: ClassVar[dict[str, int]] = {"kernels": 2, "length": 2}

    kernels: int = 2000
    """Kernels; every second one reads changes from step to step instead of values."""
    length: int = 100
    """Steps of a series of training: kernels decay over 1 … length / 2 steps, and end after ``length``."""


@register_architecture("KernelBankClassifier", KernelBankConfig)
class KernelBankClassifier(nn.Module):
    """Random diagonal state spaces, six pools of each one's output, a linear map.

    Each kernel is a diagonal state space of one complex mode, h[t] = Re(c exp((-1/τ + iω) t)), with a feed-through
    that takes its response to a constant away, and of norm 1. τ is log-uniform in 1 … length / 2, ω log-uniform in
    π / length … π (at least 1 / 2τ), the phase of c uniform. It reads a random mix of 1 … all variates, forwards or
    backwards in time, of the values or of their changes. Nothing of it is trained; it is to S4D (Gu et al. 2022,
    arXiv:2206.11893) what ROCKET (Dempster et al. 2020, arXiv:1910.13051) is to a convolutional network. Pooled are
    how many outputs lie above a threshold (a quantile of the outputs on training series), the mean excess and the mean
    time of these (Tan et al. 2022, arXiv:2102.00457), and the maximum; and, of groups of
    eight kernels, at how many steps each gives the highest and the lowest output (Dempster et al. 2023,
    arXiv:2203.13652). Times are in units of ``length``, so that how long a series lasts may count.

    ``fit`` finds thresholds and linear map in seconds. Padding lies behind a series and influences nothing.

    Args:
        config: dimensions; the kernels are drawn from torch's generator and kept with the weights.
    """

    architecture = "KernelBankClassifier"
    decay: Tensor
    frequency: Tensor
    phase: Tensor
    mix: Tensor
    backwards: Tensor
    threshold: Tensor

    def __init__(self, config: KernelBankConfig) -> None:
        super().__init__()
        self.config = config
        self.scaling = Scaling(config.scaling, config.variates)
        count, classes = config.kernels, config.num_classes
        assert classes is not None
        longest = max(2.0, config.length / 2)
        decay = torch.exp(-torch.rand(count) * math.log(longest))
        slowest = math.pi / config.length
        frequency = slowest * torch.exp(torch.rand(count) * math.log(config.length))
        self.register_buffer("decay", decay)
        self.register_buffer("frequency", torch.maximum(frequency, decay / 2).clamp(max=math.pi))
        self.register_buffer("phase", 2 * math.pi * torch.rand(count))
        self.register_buffer("mix", _random_mix(count, config.variates))
        self.register_buffer("backwards", torch.rand(count) < 0.5)
        self.register_buffer("threshold", torch.zeros(count))
        self.output = nn.Linear(POOLS * count, classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    # Learning

    @torch.no_grad()
    def fit(self, x: Tensor, labels: Tensor, mask: Tensor | None = None) -> RidgeHead:
        """Learn scales, thresholds and the linear map of training series, and return what the regression found.

        Args:
            x: (series, time, variates), NaN where missing.
            labels: int64 (series,).
            mask: bool (series, time), False at padding.

        Raises:
            UserError: series of another number of variates, or a variate that is nowhere observed.
        """
        self._check(x)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
        self.scaling.fit(x[real])
        inputs, real = self._inputs(x, mask, None)
        chosen = torch.randperm(len(x))[:32].to(x.device)  # enough outputs for a quantile
        level = 0.01 + 0.98 * torch.rand(self.config.kernels)  # quantile of each threshold
        steps = real[chosen]
        for kernels, outputs in self._outputs(inputs[:, chosen], len(chosen)):
            known = outputs[0].transpose(0, 1)[:, steps].sort(1).values
            place = (level[kernels.cpu()].to(known) * (known.shape[1] - 1)).long()[:, None]
            # Between two outputs that rounding can tell apart; many are 0, such as the change before the first step.
            near = known.gather(1, place) + 1e-4 * known.std(1, keepdim=True)
            above = torch.searchsorted(known, near, right=True).clamp(1, known.shape[1] - 1)
            self.threshold[kernels] = (known.gather(1, above - 1) + known.gather(1, above))[:, 0] / 2
        found = fit_ridge_head(self._pool(inputs, real), labels, self.output.out_features)
        self.output.weight.copy_(found.weight)
        self.output.bias.copy_(found.bias)
        return found

    # Prediction

    def forward(self, x: Tensor, mask: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Return logits (batch, num_classes); see `forward_features` for the arguments."""
        return self.output(self.forward_features(x, mask, observed))

    def forward_features(self, x: Tensor, mask: Tensor | None = None, observed: Tensor | None = None) -> Tensor:
        """Return the pooled outputs, float32 (batch, 6 · kernels).

        Args:
            x: (batch, time, variates) in units of the data, NaN where missing, which counts as the mean.
            mask: bool (batch, time), True at real steps.
            observed: bool (batch, time, variates), False where missing.

        Raises:
            UserError: another number of variates.
        """
        return self._pool(*self._inputs(x, mask, observed))

    def _check(self, x: Tensor) -> None:
        if x.dim() != 3 or x.shape[2] != self.config.variates:
            raise UserError(f"series of shape {tuple(x.shape)}, expected (batch, time, {self.config.variates})")

    def _inputs(self, x: Tensor, mask: Tensor | None, observed: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return scaled values and their changes, float32 (2, batch, time, variates), and the mask."""
        self._check(x)
        known = known_mask(x, observed)
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask.bool()
        known = known & real.unsqueeze(-1)
        values = torch.where(known, x, 0.0)
        scaled = torch.where(known, self.scaling.apply(values, self.scaling.measure(values, known)), 0.0)
        both = known[:, 1:] & known[:, :-1]
        change = torch.where(both, scaled[:, 1:] - scaled[:, :-1], 0.0)
        return torch.stack([scaled, nn.functional.pad(change, (0, 0, 1, 0))]), real

    def _kernels(self) -> Tensor:
        """Return the kernels, float32 (kernels, length of training), whatever the series at hand."""
        time = torch.arange(self.config.length, device=self.decay.device, dtype=torch.float64)
        decay, frequency, phase = (part.double()[:, None] for part in (self.decay, self.frequency, self.phase))
        kernel = torch.exp(-decay * time) * torch.cos(frequency * time + phase)
        kernel = kernel / kernel.norm(dim=1, keepdim=True).clamp(min=1e-12)
        kernel[:, 0] -= kernel.sum(1)
        return (kernel / kernel.norm(dim=1, keepdim=True).clamp(min=1e-12)).float()

    def _outputs(self, inputs: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the indices of some kernels, and their outputs (1, rows, kernels, time)."""
        length = inputs.shape[2]
        size = 2 ** math.ceil(math.log2(length + self.config.length))  # no end meets the other
        responses = torch.fft.rfft(self._kernels(), n=size)
        responses = torch.where(self.backwards[:, None], responses.conj(), responses)
        spectra = torch.fft.rfft(inputs.transpose(2, 3), n=size)  # (2, rows, variates, frequencies)
        count = max(1, _BLOCK // (rows * size * GROUP)) * GROUP  # whole groups
        for kind in range(2):
            numbers = torch.arange(kind, self.config.kernels, 2, device=inputs.device)
            for kernels in numbers.split(count):
                mixed = torch.einsum("nvf,kv->nkf", spectra[kind], self.mix[kernels].to(spectra.dtype))
                yield kernels, torch.fft.irfft(mixed * responses[kernels], n=size)[None, ..., :length]

    def _pool(self, inputs: Tensor, real: Tensor) -> Tensor:
        """Return the features of scaled inputs."""
        length = inputs.shape[2]
        result = inputs.new_zeros(inputs.shape[1], self.config.kernels, POOLS)
        rows_at_once = max(1, _BLOCK // (16 * 2 * length))
        time = torch.arange(length, device=inputs.device, dtype=torch.float32)
        for rows in torch.arange(len(real), device=inputs.device).split(rows_at_once):
            steps = real[rows][:, None]
            for kernels, outputs in self._outputs(inputs[:, rows], len(rows)):
                excess = outputs[0] - self.threshold[kernels][None, :, None]
                above = (excess > 0) & steps
                number = above.sum(2)
                several = number.clamp(min=1)
                pools = [
                    number / self.config.length,
                    torch.where(above, excess, 0.0).sum(2) / several,
                    torch.where(number > 0, (above * time).sum(2) / several / self.config.length, -0.5),
                    outputs[0].masked_fill(~steps, -math.inf).amax(2).clamp(min=torch.finfo(torch.float32).min),
                    *(wins / self.config.length for wins in _wins(outputs[0], steps)),
                ]
                result[rows[:, None], kernels] = torch.stack(pools, 2)
        return result.flatten(1)

    # Files

    def model_config(self) -> dict[str, Any]:
        """Return the architecture's name and configuration as JSON-able data, from which the model can be rebuilt."""
        return {"architecture": self.architecture, "config": dataclasses.asdict(self.config)}

    def save_pretrained(self, folder: str | Path, *, format: str = "longscan") -> Path:
        """Write weights and configuration; see :func:`longscan.core.pretrained.save_pretrained`."""
        from ...core.pretrained import save_pretrained

        return save_pretrained(self, folder, format=format)


def _wins(outputs: Tensor, steps: Tensor) -> Iterator[Tensor]:
    """Give the steps at which each kernel's output is the highest of its group, and the lowest, (rows, kernels).

    Args:
        outputs: (rows, kernels, time).
        steps: bool (rows, 1, time), False at padding.
    """
    heard = torch.where(outputs.abs() < _SILENCE, 0.0, outputs)
    kernels = heard.shape[1]
    for sign in (1, -1):
        # The last group may be smaller: what fills it never wins.
        groups = nn.functional.pad(sign * heard, (0, 0, 0, -kernels % GROUP), value=-math.inf).unflatten(1, (-1, GROUP))
        won = torch.zeros_like(groups).scatter_(2, groups.argmax(2, keepdim=True), 1.0).flatten(1, 2)[:, :kernels]
        yield (won * steps).sum(2)


def _random_mix(count: int, variates: int) -> Tensor:
    """Return normal weights of random subsets of the variates, as often few as many, (count, variates)."""
    if variates == 1:
        return torch.ones(count, 1)
    size = torch.exp2(torch.rand(count) * math.log2(variates + 1)).floor().clamp(max=variates)
    rank = torch.rand(count, variates).argsort(1).argsort(1)
    kept = rank < size[:, None]
    return torch.where(kept, torch.randn(count, variates), 0.0) / size[:, None].sqrt()


register_model(
    ModelEntry(
        name="kernel_bank_classifier",
        domain="timeseries",
        config=KernelBankConfig,
        architecture="KernelBankClassifier",
        description="classes of whole series: 2,000 random state-space kernels, a linear map in closed form",
    )
)
