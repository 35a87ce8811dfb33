"""The parameters that S4 and its diagonal kin share, by the names and shapes of the published code (version 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..declared_parameters import FullPrecision, declare
from ..errors import UserError
from .initialization import initialize
from .transforms import check_transform, inverse_transform, transform

#: Learning rates of dt, A (with P) and B; ``None`` is the optimiser's own.
LearningRates = float | Mapping[str, float | None] | None


class StateSpaceParameters(FullPrecision):
    """Step sizes and matrices of ``d_model`` state spaces with ``channels`` outputs each.

    ============  ====================  =========================================================================
    ``inv_dt``    (H, 1) or (H, n)      dt = dt_transform(inv_dt), the step size
    ``A_real``    (S, n)                A = -real_transform(A_real) - i imag_transform(A_imag)
    ``A_imag``    (S, n)                positive where A's imaginary part is negative
    ``B``         (1, S, n, 2)          real and imaginary part
    ``C``         (channels, H, n, 2)   real and imaginary part
    ============  ====================  =========================================================================

    H is d_model, n = d_state / 2 (one of each pair of conjugates) and S = n_ssm; channel h uses copy h mod S.
    ``inv_dt``, ``A_real``, ``A_imag``, ``B`` (and ``P``) declare their learning rate and no weight decay, as published.
    All stay in float32 where ``half()`` or ``bfloat16()`` takes a model to half precision.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int,
        channels: int,
        n_ssm: int | None,
        init: str,
        rank: int,
        B_init: str,
        dt_min: float,
        dt_max: float,
        dt_tie: bool,
        dt_transform: str,
        real_transform: str,
        imag_transform: str,
        lr: LearningRates,
    ) -> None:
        super().__init__()
        for argument, value in (
            ("dt_transform", dt_transform),
            ("real_transform", real_transform),
            ("imag_transform", imag_transform),
        ):
            check_transform(argument, value)
        if not 0 < dt_min <= dt_max:
            raise UserError(f"dt_min is {dt_min} and dt_max {dt_max}; expected 0 < dt_min <= dt_max")
        copies = d_model if n_ssm is None else n_ssm
        if copies < 1 or d_model % copies:
            raise UserError(f"n_ssm is {n_ssm}; expected a divisor of d_model, {d_model}")
        self.d_model, self.d_state, self.channels = d_model, d_state, channels
        self.dt_transform, self.real_transform, self.imag_transform = dt_transform, real_transform, imag_transform
        half = d_state // 2
        # Computed on the CPU whatever the default device, which the parameters then move to.
        with torch.device("cpu"):
            A, B, P = initialize(init, d_state, copies, rank, B_init)
            spread = torch.rand(d_model, 1 if dt_tie else half, dtype=torch.float64)
            C = torch.randn(channels, d_model, half, dtype=torch.complex128)
        dt = torch.exp(math.log(dt_min) + spread * (math.log(dt_max) - math.log(dt_min)))
        self.inv_dt = _parameter(inverse_transform(dt, dt_transform, floor=0.0))
        self.A_real = _parameter(inverse_transform(-A.real, real_transform))
        self.A_imag = _parameter(inverse_transform(-A.imag, imag_transform))
        self.B = _parameter(torch.view_as_real(B.resolve_conj().contiguous())[None])
        self.C = _parameter(torch.view_as_real(C))
        rates: Mapping[str, float | None] = lr if isinstance(lr, Mapping) else dict.fromkeys(("dt", "A", "B"), lr)
        unknown = sorted(set(rates) - {"dt", "A", "B"})
        if unknown:
            raise UserError(f"lr names {unknown[0]!r}; expected dt, A and B alone")
        if rank:
            self.P = _parameter(torch.view_as_real(P.resolve_conj().contiguous()))
            declare(self, "P", lr=rates.get("A"))
        declare(self, "inv_dt", lr=rates.get("dt"))
        declare(self, "A_real", "A_imag", lr=rates.get("A"))
        declare(self, "B", lr=rates.get("B"))

    def full_precision_names(self) -> tuple[str, ...]:
        """All of them: C as well, since that of S4 is a small difference of powers."""
        return tuple(self._parameters)

    def dt(self, rate: float = 1.0) -> Tensor:
        """Step sizes (d_model, 1 or state), float64."""
        return transform(self.inv_dt.double(), self.dt_transform) * rate

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """A (d_model, state), B (d_model, state) and C (channels, d_model, state), complex128."""
        A = torch.complex(
            -transform(self.A_real.double(), self.real_transform), -transform(self.A_imag.double(), self.imag_transform)
        )
        return self.spread(A), self.spread(complex_parameter(self.B)[0]), complex_parameter(self.C)

    def spread(self, copies: Tensor) -> Tensor:
        """(..., n_ssm, state) to (..., d_model, state)."""
        repeats = self.d_model // copies.shape[-2]
        return copies if repeats == 1 else copies.repeat(*[1] * (copies.ndim - 2), repeats, 1)

    @property
    def state_shape(self) -> tuple[int, int]:
        """(d_model, complex states) of one sequence's state."""
        return self.d_model, self.d_state // 2

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of kernels: float64 for float64 parameters, else float32."""
        return torch.float64 if self.C.dtype == torch.float64 else torch.float32

    @property
    def complex_dtype(self) -> torch.dtype:
        """Complex dtype of kernels and states."""
        return torch.complex128 if self.C.dtype == torch.float64 else torch.complex64


def complex_parameter(parameter: Tensor) -> Tensor:
    """(..., 2) real to (...) complex128."""
    return torch.view_as_complex(parameter.double().contiguous())


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.to(torch.get_default_device(), torch.get_default_dtype()).contiguous())
