"""The published layer around the kernels of S4, S4D and DSS: convolution with skip, activation and projection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UserError, nearest
from ..norms import float32_at_least
from ..ops import long_conv
from ..packing import repack, unpack
from ..state_spaces.recurrence import Recurrence
from .base import SequenceMixer

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class StateSpaceState(NamedTuple):
    """What S4, S4D and DSS carry between tokens."""

    ssm: Tensor
    """(batch, d_model, d_state / 2), complex64, or complex128 for a float64 layer."""
    recurrence: Recurrence
    """The discretised system, so that a step need not compute it; shared by all sequences, complex128."""


class Convolution(nn.Module):
    """``y = kernel * u + D u`` for each channel of the kernel.

    Attributes:
        D: (channels, d_model).
        kernel: a kernel module; with ``bidirectional`` it has twice as many channels, the second half of which runs
            backwards: y_t = sum_{s <= t} k0[t - s] u_s + sum_{s > t} k1[s - t - 1] u_s + D u_t.
    """

    def __init__(self, kernel: Any, channels: int, d_model: int, bidirectional: bool, l_max: int | None) -> None:
        super().__init__()
        self.channels, self.bidirectional, self.l_max = channels, bidirectional, l_max
        self.D = nn.Parameter(torch.randn(channels, d_model))
        self.kernel = kernel

    def forward(self, u: Tensor, rate: float, reverse: bool = False, whole: bool = False) -> Tensor:
        """(batch, length, d_model) to (batch, length, channels · d_model); ``whole`` ignores ``l_max``."""
        length = u.shape[1] if whole else self.reach(u.shape[1], rate)
        with torch.autocast(u.device.type, enabled=False):
            kernel = self.kernel(length, rate)
            if self.bidirectional:
                ahead, behind = kernel.split(self.channels)
                # Lag 0 is at the middle; the first tap of the second kernel meets the next token.
                kernel = torch.cat([behind.flip(-1), ahead], dim=-1)
        skip = float32_at_least(self.D).flatten()
        u = u.repeat(1, 1, self.channels) if self.channels > 1 else u
        return long_conv(u, kernel.flatten(0, 1), skip, causal=not self.bidirectional, reverse=reverse)

    def reach(self, length: int, rate: float) -> int:
        """Length of the kernel that an input of ``length`` meets."""
        return length if self.l_max is None else max(1, min(length, round(self.l_max / rate)))


class StateSpaceMixer(SequenceMixer):
    """The published layer: convolution with D, activation, dropout, then a linear map with a gated linear unit.

    The parameter names are those of the published code (version 4): ``layer.D``, ``layer.kernel.*``,
    ``output_linear.0.weight`` and ``output_linear.0.bias``.

    Attributes:
        rate: factor on the step sizes; a layer trained at 16 kHz reads audio of 8 kHz with 2.
    """

    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        kernel: Any,
        channels: int,
        bidirectional: bool,
        l_max: int | None,
        activation: str,
        final_act: Literal["glu", "id"],
        dropout: float,
        tie_dropout: bool,
        rate: float,
    ) -> None:
        super().__init__()
        if activation not in _ACTIVATIONS:
            raise UserError(f"activation is {activation!r}; {nearest(activation, _ACTIVATIONS)}")
        if final_act not in ("glu", "id"):
            raise UserError(f"final_act is {final_act!r}; expected 'glu' or 'id'")
        if not 0 <= dropout < 1:
            raise UserError(f"dropout is {dropout}; expected 0 <= dropout < 1")
        if l_max is not None and l_max < 1:
            raise UserError(f"l_max is {l_max}; expected a positive length or None")
        if not rate > 0:
            raise UserError(f"rate is {rate}; expected a positive factor on the step sizes")
        self.d_model, self.causal, self.rate = d_model, not bidirectional, rate
        self.activation, self.dropout, self.tie_dropout = activation, dropout, tie_dropout
        self.layer = Convolution(kernel, channels, d_model, bidirectional, l_max)
        gated = final_act == "glu"
        linear = nn.Linear(channels * d_model, (2 if gated else 1) * d_model)
        self.output_linear = nn.Sequential(linear, nn.GLU(dim=-1)) if gated else nn.Sequential(linear)

    @property
    def kernel(self) -> Any:
        """The kernel module."""
        return self.layer.kernel

    def set_length(self, length: int, rate: float | None = None) -> None:
        """Make kernels that depend on a length (S4's) ready for inputs of up to ``length``, so that ``forward`` changes
        no parameter; nothing to do for others."""
        rate = self.rate if rate is None else rate
        if hasattr(self.kernel, "set_length"):
            self.kernel.set_length(math.ceil(self.layer.reach(length, rate) * rate))

    def forward(
        self,
        x: Tensor,
        *,
        state: StateSpaceState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
        rate: float | None = None,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`.

        ``l_max`` cuts the kernel off here, as published, unless a ``state`` is given; ``prefill`` and ``step`` have the
        whole response, so that they differ on inputs longer than ``l_max``.

        Args:
            rate: in place of the attribute.

        Raises:
            ValueError: for ``state`` with ``reverse``, or given to a bidirectional layer.
        """
        rate = self.rate if rate is None else rate
        if state is not None and (reverse or not self.causal):
            raise ValueError(
                f"state was given to {type(self).__name__} with reverse or bidirectional; a state only enters forward"
            )
        if cu_seqlens is None:
            return self._project(self._convolve(x, state, reverse, rate))
        # Padding is zero, and so takes no part in either direction.
        batch, index = unpack(x, cu_seqlens)
        return self._project(repack(self._convolve(batch, state, reverse, rate), index))

    def prefill(
        self, x: Tensor, state: StateSpaceState | None = None, rate: float | None = None
    ) -> tuple[Tensor, StateSpaceState]:
        """See :meth:`SequenceMixer.prefill`."""
        if not self.causal:
            raise self._not_causal("prefill")
        rate = self.rate if rate is None else rate
        y = self._project(self._convolve(x, state, False, rate, whole=True))
        with torch.autocast(x.device.type, enabled=False):
            after = self.kernel.final_state(x, None if state is None else state.ssm, rate)
            recurrence = self._recurrence(rate) if state is None else state.recurrence
        return y, StateSpaceState(after, recurrence)

    def init_state(
        self,
        batch_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rate: float | None = None,
    ) -> StateSpaceState:
        """See :meth:`SequenceMixer.init_state`; the state holds the system as it is now, at ``rate``."""
        if not self.causal:
            raise self._not_causal("init_state")
        recurrence = self._recurrence(self.rate if rate is None else rate)
        device = device or self.layer.D.device
        wide = self.kernel.complex_dtype == torch.complex128 if dtype is None else dtype == torch.float64
        shape = (batch_size, *self.kernel.state_shape)
        ssm = torch.zeros(shape, device=device, dtype=torch.complex128 if wide else torch.complex64)
        return StateSpaceState(ssm, Recurrence(*(tensor.to(device) for tensor in recurrence)))

    def step(self, x_t: Tensor, state: StateSpaceState) -> tuple[Tensor, StateSpaceState]:
        """See :meth:`SequenceMixer.step`; the given state is left as it is."""
        if not self.causal:
            raise self._not_causal("step")
        y, ssm = state.recurrence.step(state.ssm, x_t)
        y = (y + self.layer.D.double() * x_t.double()[:, None]).flatten(1)
        return self._project(y.to(x_t.dtype)), state._replace(ssm=ssm)

    def _convolve(
        self, x: Tensor, state: StateSpaceState | None, reverse: bool, rate: float, whole: bool = False
    ) -> Tensor:
        y = self.layer(x, rate, reverse, whole or state is not None)
        if state is None:
            return y
        with torch.autocast(x.device.type, enabled=False):
            entering = self.kernel.response(state.ssm, x.shape[1], rate).flatten(1, 2).transpose(1, 2)
        return (y + entering).to(y.dtype)

    def _project(self, y: Tensor) -> Tensor:
        """(…, channels · d_model) to (…, d_model)."""
        y = _ACTIVATIONS[self.activation](y)
        if self.training and self.dropout:
            if self.tie_dropout and y.ndim == 3:
                y = y * F.dropout(torch.ones_like(y[:, :1]), self.dropout)
            else:
                y = F.dropout(y, self.dropout)
        return self.output_linear(y)

    @torch.no_grad()
    def _recurrence(self, rate: float) -> Recurrence:
        return self.kernel.recurrence(rate)
