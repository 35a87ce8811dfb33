"""A mixer that is one long convolution with an explicit kernel: the shared part of LongConv and SGConv."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..norms import float32_at_least
from ..ops import long_conv
from ..packing import repack, unpack
from .base import SequenceMixer
from .gated_output import GatedOutput, GateKind


def on_each_sequence(u: Tensor, cu_seqlens: Tensor | None, run: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply ``run`` to a batch, or to packed sequences spread over a zero-padded batch and back.

    Zeros before and behind a sequence have no effect on a convolution, in either direction.
    """
    if cu_seqlens is None:
        return run(u)
    batch, index = unpack(u, cu_seqlens)
    return repack(run(batch), index)


def two_sided(past: Tensor, future: Tensor) -> Tensor:
    """Join kernels (dim, taps) of lags 0, 1, … and of lags -1, -2, … to one centred at lag 0, (dim, 2 taps)."""
    return torch.cat([future.flip(-1), past], dim=-1)


class ConvolutionState(NamedTuple):
    """The inputs that the kernel still reaches: a ring, which grows until it is as long as the kernel."""

    window: Tensor
    """(batch, capacity, d_model): the input at position p is in row p modulo capacity."""
    reversed_kernel: Tensor
    """(taps, d_model), the last tap first, so that a step need not compute it."""
    position: int
    """Number of tokens seen."""


class ConvolutionMixer(SequenceMixer):
    """``out = activation(k * u + D u)`` with a kernel of ``max_length`` taps for each channel.

    Tokens further back than ``max_length`` have no effect, in the parallel form as in ``step``: sequences may be
    longer than the kernel. A step costs time and memory in proportion to the kernel.

    Subclasses define :meth:`kernels`.
    """

    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        max_length: int,
        bidirectional: bool,
        activation: GateKind,
        dropout: float,
    ) -> None:
        super().__init__()
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; expected at least 1")
        self.d_model, self.max_length, self.bidirectional = d_model, max_length, bidirectional
        self.causal = not bidirectional
        self.D = nn.Parameter(torch.randn(d_model))
        self.output = GatedOutput(d_model, activation, dropout)

    def kernels(self) -> Tensor:
        """Return (directions · d_model, max_length) in float32 at least; the second direction is lags -1, -2, …"""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        state: ConvolutionState | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`.

        Raises:
            ValueError: for a state with ``cu_seqlens`` or ``reverse``, or where the layer is bidirectional.
        """
        name = type(self).__name__
        if state is not None:
            if self.bidirectional:
                raise ValueError(f"state was given to a bidirectional {name}, which sees the whole sequence; pass None")
            if cu_seqlens is not None or reverse:
                raise ValueError(f"state was given with cu_seqlens or reverse; {name} carries a state only forward")
            return self.prefill(x, state)[0]
        kernel = self.kernels()
        if self.bidirectional:
            kernel = two_sided(*kernel.split(self.d_model))
        y = on_each_sequence(
            float32_at_least(x),
            cu_seqlens,
            lambda u: long_conv(u, kernel, float32_at_least(self.D), causal=self.causal, reverse=reverse),
        )
        return self.output(y.to(x.dtype))

    def prefill(self, x: Tensor, state: ConvolutionState | None = None) -> tuple[Tensor, ConvolutionState]:
        """See :meth:`SequenceMixer.prefill`."""
        self._check_causal("prefill")
        kernel = self.kernels()
        if state is None:
            state = self._empty(len(x), x, kernel)
        # The inputs before x that its first token reaches, oldest first.
        count = min(state.position, self.max_length - 1)
        past = state.window[:, self._rows(state.position - count, count, state.window)]
        inputs = torch.cat([past.to(x.dtype), x], dim=1)
        y = long_conv(float32_at_least(inputs), kernel, float32_at_least(self.D))[:, count:]

        position = state.position + x.shape[1]
        kept = min(inputs.shape[1], self.max_length)
        window = x.new_zeros(len(x), self._capacity(position), self.d_model)
        window[:, self._rows(position - kept, kept, window)] = inputs[:, -kept:]
        return self.output(y.to(x.dtype)), ConvolutionState(window, state.reversed_kernel, position)

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ConvolutionState:
        """See :meth:`SequenceMixer.init_state`; the window starts small and doubles as it fills."""
        self._check_causal("init_state")
        like = torch.empty(0, device=device or self.D.device, dtype=dtype or self.D.dtype)
        with torch.no_grad():
            return self._empty(batch_size, like, self.kernels())

    def step(self, x_t: Tensor, state: ConvolutionState) -> tuple[Tensor, ConvolutionState]:
        """See :meth:`SequenceMixer.step`."""
        self._check_causal("step")
        window, kernel, position = state
        capacity = self._capacity(position + 1)
        if capacity > window.shape[1]:  # nothing has been overwritten yet, so that rows keep their places
            window = nn.functional.pad(window, (0, 0, 0, capacity - window.shape[1]))
        row = position % capacity
        window[:, row] = x_t
        # The newest input and all before it in the ring, then the oldest ones behind it.
        new = _taps(window[:, : row + 1], kernel[self.max_length - 1 - row :])
        if position >= capacity:
            new = new + _taps(window[:, row + 1 :], kernel[: self.max_length - 1 - row])
        y = new + float32_at_least(self.D) * x_t
        return self.output(y.to(x_t.dtype)), ConvolutionState(window, kernel, position + 1)

    def _empty(self, batch_size: int, like: Tensor, kernel: Tensor) -> ConvolutionState:
        window = like.new_zeros(batch_size, self._capacity(1), self.d_model)
        reversed_kernel = kernel.detach().flip(-1).T.contiguous().to(like.device)
        return ConvolutionState(window, reversed_kernel, 0)

    def _capacity(self, needed: int) -> int:
        """Rows of the window for ``needed`` tokens: a power of two from 64 on, but never more than the kernel."""
        return min(self.max_length, max(64, 1 << (needed - 1).bit_length()))

    def _rows(self, first: int, count: int, window: Tensor) -> Tensor:
        return torch.arange(first, first + count, device=window.device) % window.shape[1]

    def _check_causal(self, method: str) -> None:
        if self.bidirectional:
            raise self._not_causal(method)


def _taps(window: Tensor, kernel: Tensor) -> Tensor:
    """Sum (batch, taps, dim) under a kernel (taps, dim) in the kernel's precision."""
    with torch.autocast(kernel.device.type, enabled=False):
        return torch.einsum("btd,td->bd", window.to(kernel.dtype), kernel)
