"""A diagonal linear system with many inputs and outputs, run by the parallel scan: the inside of S5 and the LRU."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..norms import float32_at_least
from ..ops import linear_scan
from ..ops._dtypes import complex_dtype

Discretization = Literal["zoh", "bilinear"]

# Complex numbers in one block of states (32 MiB in complex64); a few blocks live beside inputs and outputs.
_BUDGET = 1 << 22


def as_complex(parts: Tensor) -> Tensor:
    """View (…, 2) real and imaginary parts, in float32 at least, as complex numbers."""
    return torch.view_as_complex(float32_at_least(parts).contiguous())


def complex_expm1(z: Tensor) -> Tensor:
    """Return exp(z) - 1 of complex ``z`` without cancellation near zero."""
    a, b = z.real, z.imag
    half = torch.sin(b / 2)
    return torch.complex(torch.expm1(a) * torch.cos(b) - 2 * half * half, torch.exp(a) * torch.sin(b))


def discretize(A: Tensor, dt: Tensor, method: Discretization) -> tuple[Tensor, Tensor]:
    """Return the factor of the state and the factor of B for a step ``dt`` of ``x' = A x + B u``, A diagonal::

        zoh:        exp(dt A)                       (exp(dt A) - 1) / A
        bilinear:   (1 + dt A/2) / (1 - dt A/2)     dt / (1 - dt A/2)

    Args:
        A: complex, of any shape.
        dt: real, broadcast against A.
        method: zero-order hold or bilinear (Tustin).
    """
    z = dt * A
    if method == "bilinear":
        below = 1 - z / 2
        return (1 + z / 2) / below, dt / below
    # (exp(z) - 1) / z by its series where z vanishes and the quotient is 0 / 0.
    small = z.real.square() + z.imag.square() < 1e-8
    safe = torch.where(small, torch.ones_like(z), z)
    return torch.exp(z), dt * torch.where(small, 1 + z / 2 + z * z / 6, complex_expm1(safe) / safe)


def run_diagonal_system(
    u: Tensor,
    factors: Tensor,
    B: Tensor,
    C: Tensor,
    *,
    initial_state: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run ``x_t = factors · x_{t-1} + B u_t``, ``y_t = Re(C x_t)`` and return y and the last states.

    States exist for one block of tokens at a time (all of them only where gradients are wanted, or sequences are
    packed), so that a million tokens fit. The arithmetic is complex64, or complex128 for float64 inputs.

    Args:
        u: (batch, length, inputs).
        factors: (states,) complex.
        B: (states, inputs) complex.
        C: (outputs, states) complex.
        initial_state: (batch or sequences, states) complex.
        cu_seqlens, reverse: as in :func:`longscan.core.ops.linear_scan`.

    Returns:
        y (batch, length, outputs) in float32, or float64 for float64 inputs; states (batch or sequences, states).
    """
    with torch.autocast(u.device.type, enabled=False):
        batch, length, _ = u.shape
        dtype = complex_dtype(float32_at_least(u).dtype)
        factors, state = factors.to(dtype), initial_state
        # Complex numbers as pairs of columns: one real product each for B and C.
        columns_in = torch.view_as_real(B.to(dtype).T.contiguous()).flatten(1)
        columns_out = torch.view_as_real(C.to(dtype).conj().resolve_conj()).flatten(1).T
        block = length if cu_seqlens is not None else max(1, min(length, _BUDGET // (batch * len(factors))))
        outputs = []
        for begin in range(0, length, block):
            piece = slice(max(0, length - begin - block), length - begin) if reverse else slice(begin, begin + block)
            inputs = float32_at_least(u[:, piece]) @ columns_in
            x = torch.view_as_complex(inputs.unflatten(-1, (-1, 2)))
            x, state = linear_scan(
                factors.expand(x.shape),
                x,
                initial_state=state,
                return_final_state=True,
                cu_seqlens=cu_seqlens,
                reverse=reverse,
            )
            outputs.append(torch.view_as_real(x).flatten(-2) @ columns_out)
            del inputs, x
        assert state is not None
        y = outputs[0] if len(outputs) == 1 else torch.cat(outputs[::-1] if reverse else outputs, dim=1)
        return y, state


def step_diagonal_system(u: Tensor, factors: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token of :func:`run_diagonal_system`: u (batch, inputs), state (batch, states) complex."""
    with torch.autocast(u.device.type, enabled=False):
        wide = float32_at_least(u).to(state.real.dtype)
        state = factors.to(state.dtype) * state + (wide.to(state.dtype) @ B.to(state.dtype).T)
        return (state @ C.to(state.dtype).T).real, state


def empty_states(
    batch_size: int,
    states: tuple[int, ...],
    parameter: Tensor,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """Zero states (batch_size, *states): complex64, or complex128 where ``dtype`` or the parameters are float64."""
    wide = (dtype or parameter.dtype) == torch.float64
    kind = torch.complex128 if wide else torch.complex64
    return torch.zeros(batch_size, *states, device=device or parameter.device, dtype=kind)
