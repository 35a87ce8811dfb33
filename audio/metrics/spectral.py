"""Distances between magnitude spectra at several resolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import UserError

#: (Fourier length, hop, window) of Parallel WaveGAN, which are those of most effect models.
RESOLUTIONS = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240))


class MultiResolutionSTFT(nn.Module):
    """The multi-resolution STFT loss (Yamamoto et al. 2020, arXiv:1910.11480, equations 4 to 6).

    For each resolution, with S and Ŝ the magnitudes of target and output: ‖S - Ŝ‖ / ‖S‖ (Frobenius norms, over each
    clip and channel by itself) plus the mean of |log S - log Ŝ|; the mean over resolutions, clips and channels. Ends
    are padded with silence, so that clips may be of any length.

    Args:
        resolutions: (Fourier length, hop, window) in samples of each.
        floor: below which magnitudes are taken for it; keeps logarithm and gradient finite at silence.
    """

    def __init__(self, resolutions: Sequence[tuple[int, int, int]] = RESOLUTIONS, floor: float = 1e-4) -> None:
        super().__init__()
        if not resolutions:
            raise UserError("the multi-resolution STFT needs at least one resolution")
        for size, hop, window in resolutions:
            if not 0 < hop <= window <= size:
                raise UserError(f"resolution ({size}, {hop}, {window}): hop ≤ window ≤ Fourier length must hold")
        self.resolutions, self.floor = [tuple(each) for each in resolutions], floor
        for index, (_, _, window) in enumerate(resolutions):
            self.register_buffer(f"window_{index}", torch.hann_window(window), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss, a float32 scalar, for ``output`` and ``target`` (batch, frames, channels)."""
        return self.each(output, target).mean()

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each clip, float32 (batch,)."""
        batch = len(output)
        output, target = (x.float().transpose(1, 2).flatten(0, 1) for x in (output, target))
        total = torch.zeros(len(output), device=output.device)
        for index, (size, hop, window) in enumerate(self.resolutions):
            taper = self.get_buffer(f"window_{index}").to(output.device)
            found, wanted = (self._magnitude(x, size, hop, window, taper) for x in (output, target))
            norm = torch.linalg.vector_norm(wanted, dim=(1, 2))
            total = total + torch.linalg.vector_norm(wanted - found, dim=(1, 2)) / norm
            total = total + (wanted.log() - found.log()).abs().mean((1, 2))
        return (total / len(self.resolutions)).reshape(batch, -1).mean(1)

    def _magnitude(self, x: Tensor, size: int, hop: int, window: int, taper: Tensor) -> Tensor:
        spectrum = torch.stft(x, size, hop, window, taper, center=True, pad_mode="constant", return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.clamp(min=self.floor**2).sqrt()
