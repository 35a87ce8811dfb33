"""The diagonal-plus-low-rank kernel of S4 (Gu et al. 2022, arXiv:2111.00396), tied as in SaShiMi (arXiv:2202.09729)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed
from torch import Tensor

from ..errors import UserError
from ..ops import cauchy
from .parameters import LearningRates, StateSpaceParameters, complex_parameter
from .recurrence import (
    Recurrence,
    dense,
    from_real,
    krylov,
    output_from_real,
    to_real,
)

# Initialisations with modes that do not decay by themselves.
_UNDAMPED = ("legt", "fout", "fourier", "hippo", "all")


class DPLRKernel(StateSpaceParameters):
    """The kernel of ``A = Lambda - P P*`` under the bilinear rule, from its truncated generating function.

    At w_j = exp(-i t_j), t_j = 2 pi j / M, the sum of K[l] w_j^l over l < M is

        2 / (1 + w) · [C (z - dt Lambda)^-1 B, corrected by Woodbury's identity for P P*],   z = 2 (1 - w) / (1 + w)

    with the truncated C of below, and an inverse FFT of length M gives K. Here all fractions are multiplied by
    (1 + w) / 2, so that the last frequency of an even M, where z is infinite, needs no exception.

    ``C`` holds, as in published checkpoints, C~ = C (I - Abar^l_kernel), where the buffer ``l_kernel`` says for which
    length; 0 means that C is still plain. The first call sets it, in place; asked for a longer kernel, the length is
    doubled, C~ (I + Abar^l_kernel), as often as needed. Call :meth:`set_length` (or, of a whole model,
    :func:`longscan.core.state_spaces.set_kernel_length`) before compiling or sharding. Where several processes train
    one model, a call must not change C, which is an error: another length in each would make it another C in each, and
    of sharded parameters the change is lost.

    Further parameter: ``P`` (rank, n_ssm, n, 2). Arguments are those of
    :class:`longscan.core.state_spaces.DiagonalKernel`, with ``rank`` of P (LegT needs 2) and ``precision``, that of the
    sums at the frequencies: ``"float32"``, ``"float64"``, or ``"auto"``, which is float64 for LegT and FouT. Modes of
    theirs hardly decay until P is taken into account, and in float32 that difference of large numbers loses the
    gradients of dt and A (wrong by a third at 8,000 positions, where LegS is right to 1e-5).
    """

    l_kernel: Tensor

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        rank: int = 1,
        init: str = "legs",
        n_ssm: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_transform: str = "exp",
        real_transform: str = "exp",
        imag_transform: str = "none",
        B_init: str = "constant",
        lr: LearningRates = 1e-3,
        precision: Literal["auto", "float32", "float64"] = "auto",
    ) -> None:
        if precision not in ("auto", "float32", "float64"):
            raise UserError(f"precision is {precision!r}; expected 'auto', 'float32' or 'float64'")
        if rank < 1:
            raise UserError(f"rank is {rank}; expected at least 1 (without a correction, use a diagonal kernel)")
        super().__init__(
            d_model, d_state, channels, n_ssm, init, rank, B_init,
            dt_min, dt_max, True, dt_transform, real_transform, imag_transform, lr,
        )  # fmt: skip
        self.double_sums = precision == "float64" or (precision == "auto" and init in _UNDAMPED)
        self.register_buffer("l_kernel", torch.tensor(0))
        # What the buffer holds: reading it would wait for the GPU in every forward pass.
        self._length = 0

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[arg-type]
        stored = state_dict.get(prefix + "l_kernel")
        if stored is not None:
            self._length = int(stored)

    def corrections(self) -> Tensor:
        """P (rank, d_model, state), complex128."""
        return self.spread(complex_parameter(self.P))

    @torch.no_grad()
    def set_length(self, length: int) -> None:
        """Make ``C`` that of kernels of at least ``length``; a length already reached changes nothing."""
        if length <= self._length:
            return
        system = dense(self._recurrence(1.0, self.matrices()[2]))
        row = system.output
        if self._length == 0:
            row = row - _apply_power(row, system.transition, length)
            self._length = length
        while self._length < length:
            row = row + _apply_power(row, system.transition, self._length)
            self._length *= 2
        self.C.copy_(torch.view_as_real(output_from_real(row)))
        self.l_kernel.fill_(self._length)

    def forward(self, length: int, rate: float = 1.0) -> Tensor:
        """Return the kernels (channels, d_model, length) in float32, or float64 for float64 parameters."""
        size = self._size(length, rate)
        device, dtype = self.C.device, torch.complex128 if self.double_sums else self.complex_dtype
        j = torch.arange(size // 2 + 1, device=device, dtype=torch.float64)
        half = math.pi * j / size
        frequencies, scales = 2 * torch.sin(half), torch.cos(half)
        if size % 2 == 0:
            scales[-1] = 0
        dt = self.dt(rate)
        A, B, C = self.matrices()
        P = self.corrections()
        rank = len(P)
        inputs, outputs = torch.cat([B[None], P]), torch.cat([C, P.conj()])
        products = (dt * inputs[:, None] * outputs[None]).flatten(0, 1)
        response = cauchy(products.to(dtype), dt * A, frequencies, scales).unflatten(0, (1 + rank, -1))
        r_BC, r_BQ = response[0].split([self.channels, rank])
        r_PC, r_PQ = response[1:].split([self.channels, rank], dim=1)
        scale = scales.to(dtype)
        if rank == 1:
            correction = r_BQ[0] / (1 + scale * r_PQ[0, 0]) * r_PC[0]
        else:
            # (I + Q D P) is (r, s) for Q_r and P_s; r_PQ is (s, r, dim, j).
            matrix = torch.eye(rank, device=device, dtype=dtype) + (scale * r_PQ).permute(2, 3, 1, 0)
            solved = torch.linalg.solve(matrix, r_BQ.permute(1, 2, 0))
            correction = torch.einsum("hjs,schj->chj", solved, r_PC)
        spectrum = (r_BC - scale * correction) * torch.polar(torch.ones_like(half), half).to(dtype)
        return torch.fft.irfft(spectrum, n=size)[..., :length].to(self.dtype)

    def response(self, state: Tensor, length: int, rate: float = 1.0) -> Tensor:
        """Outputs of a state (batch, d_model, n) without input: (batch, channels, d_model, length)."""
        system = dense(self.recurrence(rate, length))
        steps = _block(length)
        blocks = 1 << max(0, math.ceil(math.log2(-(-length // steps))))
        first = torch.einsum("chn,hnm->chm", system.output, system.transition)
        rows, power = krylov(system.transition.transpose(-1, -2), first, steps)  # (channels, dim, 2n, steps)
        states, _ = krylov(power.transpose(-1, -2), to_real(state).double(), blocks)  # (batch, dim, 2n, blocks)
        y = torch.einsum("chns,bhnk->bchks", rows.to(self.dtype), states.to(self.dtype))
        return y.flatten(-2)[..., :length]

    def final_state(self, u: Tensor, state: Tensor | None = None, rate: float = 1.0) -> Tensor:
        """State (batch, d_model, n) after the inputs u (batch, length, d_model) from ``state``."""
        system = dense(self._recurrence(rate, self.matrices()[2]))
        length = u.shape[1]
        steps = _block(length)
        columns, power = krylov(system.transition, system.input, steps)  # (dim, 2n, steps), the last input first
        blocks = -(-length // steps)
        u = torch.nn.functional.pad(u.to(self.dtype).transpose(1, 2), (blocks * steps - length, 0))
        table = columns.flip(-1).transpose(-1, -2).to(self.dtype)
        ends = (u.unflatten(2, (blocks, steps)) @ table).double()  # (batch, dim, blocks, 2n)
        if state is not None:
            # The first block is padded in front: the state goes through what is left of it.
            through = torch.linalg.matrix_power(system.transition, length - (blocks - 1) * steps)
            entering = torch.einsum("hnm,bhm->bhn", through, to_real(state).double())
            ends = torch.cat([ends[:, :, :1] + entering[:, :, None], ends[:, :, 1:]], dim=2)
        while ends.shape[2] > 1:
            if ends.shape[2] % 2:
                ends = torch.nn.functional.pad(ends, (0, 0, 1, 0))
            ends = ends[:, :, 1::2] + ends[:, :, 0::2] @ power.transpose(-1, -2)
            power = power @ power
        return from_real(ends[:, :, 0]).to(self.complex_dtype)

    def recurrence(self, rate: float = 1.0, length: int = 1) -> Recurrence:
        """The discretised system, for steps: the plain C is recovered from the truncated one.

        At another rate it is that of the kernel which :meth:`forward` computes there, C~ (I - Abar^M)^-1 with the
        powers of the other step size, so that steps and convolution agree at every rate.
        """
        recurrence = self._recurrence(rate, self.matrices()[2])
        if self._length == 0 and length == 1:
            return recurrence  # C is plain still; truncated for a single step it would be another at other rates
        size = self._size(length, rate)
        recurrence = recurrence._replace(output=self.matrices()[2])
        system = dense(recurrence)
        rest = torch.eye(system.transition.shape[-1], dtype=torch.float64, device=self.C.device)
        rest = rest - torch.linalg.matrix_power(system.transition, size)
        plain = torch.linalg.solve(rest, system.output.transpose(0, 1), left=False).transpose(0, 1)
        return recurrence._replace(output=output_from_real(plain))

    def _size(self, length: int, rate: float) -> int:
        """M, the number of nodes, once C is that of ``length`` at ``rate``.

        Raises:
            UserError: C would have to change, and there are several processes.
        """
        wanted = math.ceil(length * rate)
        if wanted > self._length:
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                raise UserError(
                    f"an S4 kernel of length {wanted} was asked for in distributed training, where its C, made for "
                    f"{self._length}, must not change; before the model is wrapped, call "
                    "longscan.core.state_spaces.set_kernel_length(model, length) with the length of the longest input"
                )
            self.set_length(wanted)
        return max(length, round(self._length / rate))

    def _recurrence(self, rate: float, C: Tensor) -> Recurrence:
        """The bilinear rule in closed form, with ``C`` as given.

        With D = I - dt Lambda / 2, (I - dt A / 2)^-1 = D^-1 - dt/2 D^-1 P (I + dt/2 P* D^-1 P)^-1 P* D^-1 and
        Abar = 2 (I - dt A / 2)^-1 - I.
        """
        dt = self.dt(rate)
        A, B, _ = self.matrices()
        P = self.corrections()
        inverse = 1 / (1 - dt * A / 2)
        left, right = inverse * P, P.conj() * inverse
        inner = dt[..., None] * torch.einsum("rhn,shn->hrs", right, P).real  # dt/2 · 2 Re
        inner = torch.eye(len(P), dtype=torch.float64, device=dt.device) + inner
        left = torch.einsum("shn,hsr->rhn", dt * left, torch.linalg.inv(inner).to(left.dtype))
        seen = 2 * torch.einsum("rhn,hn->rh", right, B).real
        Bbar = dt * (inverse * B - torch.einsum("rh,rhn->hn", seen.to(left.dtype), left) / 2)
        return Recurrence((1 + dt * A / 2) * inverse, Bbar, C, left, right)


def _block(length: int) -> int:
    """A power of two next to the square root of the length."""
    return 1 << max(0, math.ceil(math.log2(length) / 2))


def _apply_power(row: Tensor, matrix: Tensor, exponent: int) -> Tensor:
    """row · matrix^exponent for rows (channels, dim, size) and matrices (dim, size, size)."""
    return torch.einsum("chn,hnm->chm", row, torch.linalg.matrix_power(matrix, exponent))
