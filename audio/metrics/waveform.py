"""Errors between waveforms, as losses and as metrics of a whole set; bits per sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric

from ...core.errors import UserError
from ...core.training.metrics import IGNORED
from .spectral import MultiResolutionSTFT


def bits_per_sample(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of codes in bits: a float32 scalar.

    Args:
        logits: (batch, frames, codes).
        labels: int64 (batch, frames), -100 ignored.
    """
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return losses / (labels != IGNORED).sum().clamp(min=1) / math.log(2)


def pre_emphasized(x: Tensor, coefficient: float = 0.85) -> Tensor:
    """Return x_t - coefficient · x_(t-1) along dimension 1, with silence before the first sample.

    The errors of effect models are measured so (Wright and Välimäki 2020, arXiv:1911.08922): high frequencies, which
    are heard well, have little energy.
    """
    return x - coefficient * torch.nn.functional.pad(x.transpose(1, -1), (1, 0)).transpose(1, -1)[:, :-1]


def error_to_signal_ratio(
    output: Tensor, target: Tensor, mask: Tensor | None = None, pre_emphasis: float = 0.0
) -> Tensor:
    """Return the energy of the error over that of the target, both summed over the batch: a float32 scalar, 0 best.

    Args:
        output: (batch, frames, channels).
        target: likewise.
        mask: bool (batch, frames), True where there is signal.
        pre_emphasis: of both, before; 0 is none. 0.85 is usual.

    Returns:
        The ratio; a silent target is taken for one of energy 1e-10.
    """
    error, target = _masked(output.float() - target.float(), mask), _masked(target.float(), mask)
    if pre_emphasis:
        error, target = pre_emphasized(error, pre_emphasis), pre_emphasized(target, pre_emphasis)
    return error.square().sum() / target.square().sum().clamp(min=1e-10)


def mean_absolute_error(output: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of |output - target| over what ``mask`` keeps: a float32 scalar; shapes as
    :func:`error_to_signal_ratio`."""
    error = _masked((output.float() - target.float()).abs(), mask)
    return error.sum() / _count(error, mask)


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else torch.where(mask[..., None], x, 0.0)


def _count(x: Tensor, mask: Tensor | None) -> Tensor:
    samples = torch.tensor(x[..., 0].numel(), device=x.device) if mask is None else mask.sum()
    return (samples * x.shape[-1]).clamp(min=1)


class EffectMetrics(Metric):
    """Errors of an effect model over a whole set: ``mae``, ``esr`` (with and, as ``esr_pre_emphasis``, after
    pre-emphasis 0.85), ``dc`` (energy of the mean error of each clip over the energy of its samples) and ``stft``
    (multi-resolution spectral distance, the mean over clips).

    Energies are summed over the set before they are divided, in float64, so that a silent clip does no harm.

    Args:
        name: of the set, for messages.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.distance = MultiResolutionSTFT()
        # Absolute error, samples, error energy, target energy, the two after pre-emphasis, DC energy, distance, clips.
        self.add_state("sums", torch.zeros(9, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, output: Tensor, target: Tensor, mask: Tensor | None = None) -> None:  # type: ignore[override]
        """Add a batch: ``output`` and ``target`` (batch, frames, channels), ``mask`` bool (batch, frames)."""
        if mask is not None:  # clips without a sample only even out several processes
            kept = mask.any(1)
            output, target, mask = output[kept], target[kept], mask[kept]
        if len(output) == 0:
            return
        output, target = _masked(output.float(), mask), _masked(target.float(), mask)
        error = output - target
        count = _count(error, mask)
        frames = torch.full((len(error),), error.shape[1], device=error.device) if mask is None else mask.sum(1)
        loud, quiet = pre_emphasized(error), pre_emphasized(target)
        values = (
            error.abs().double().sum(),
            count,
            error.double().square().sum(),
            target.double().square().sum(),
            loud.double().square().sum(),
            quiet.double().square().sum(),
            (error.double().sum(1).square() / frames[:, None]).sum(),
            self.distance.each(output, target).double().sum(),
            torch.tensor(len(output), device=error.device),
        )
        self.sums += torch.stack([value.double() for value in values]).to(self.sums.device)

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name.

        Raises:
            UserError: the set has no sample, or its targets are silent.
        """
        absolute, samples, error, target, loud, quiet, dc, distance, clips = self.sums.unbind()
        if samples == 0:
            raise UserError(f"the {self.name} set has no sample")
        if target == 0:
            raise UserError(f"the targets of the {self.name} set are silent; errors relative to them mean nothing")
        result = {"mae": absolute / samples, "esr": error / target, "esr_pre_emphasis": loud / quiet}
        result |= {"dc": dc / target, "stft": distance / clips}
        return {name: value.float() for name, value in result.items()}
