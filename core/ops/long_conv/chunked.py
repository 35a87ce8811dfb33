"""The long convolution through the FFT, some channels at a time, for any device.

Spectra are recomputed in the backward pass: kept, they would be four times the size of the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .._dtypes import accumulation_dtype
from .arguments import Arguments

# Real numbers in one padded block of channels (128 MiB in float32); about six tensors of that size live at once.
_BUDGET = 1 << 25


class Gradients(NamedTuple):
    """Gradients of the differentiable arguments, in their order; None where the argument is None."""

    u: Tensor
    kernel: Tensor
    skip: Tensor | None
    gate_in: Tensor | None
    gate_out: Tensor | None


def fast_size(minimum: int) -> int:
    """The smallest number from ``minimum`` on that has no prime factor above 5, and is even above 1."""
    best = 1 << (minimum - 1).bit_length()
    fives = 1
    while fives < best:
        threes = fives
        while threes < best:
            # The least power of two (from 2 on) that lifts 3^a 5^b to the minimum.
            twos = max(1, (-(-minimum // threes) - 1).bit_length())
            best = min(best, threes << twos)
            threes *= 3
        fives *= 5
    return best


class _Block:
    """A range of channels: its inputs as (batch, channels, length), in working precision."""

    def __init__(self, arguments: Arguments, channels: slice, size: int) -> None:
        self.arguments, self.channels, self.size = arguments, channels, size
        self.dtype = accumulation_dtype(arguments.u.dtype)
        self.gate_in, self.gate_out = self.cut(arguments.gate_in), self.cut(arguments.gate_out)
        self.u = self.cut_given(arguments.u)
        self.v = self.u if self.gate_in is None else self.u * self.gate_in
        self.skip = None if arguments.skip is None else arguments.skip[channels].to(self.dtype)[:, None]

    def cut_given(self, tensor: Tensor) -> Tensor:
        # Brought into the order of the transform here, once, instead of by every operation that reads it.
        turned = tensor[..., self.channels].transpose(1, 2)
        return turned.to(self.dtype, memory_format=torch.contiguous_format).contiguous()

    def cut(self, tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else self.cut_given(tensor)

    def spectrum(self, signal: Tensor) -> Tensor:
        return torch.fft.rfft(signal, n=self.size)

    def kernel_spectrum(self) -> Tensor:
        """Of the kernel laid around lag 0, negative lags at the end; conjugated for ``reverse``."""
        lags, zero = self.arguments.lags, self.arguments.zero
        taps = self.arguments.kernel[self.channels, zero + lags.start : zero + lags.stop].to(self.dtype)
        if lags.start < 0:
            padded = taps.new_zeros(taps.shape[0], self.size)
            padded[:, : lags.stop] = taps[:, -lags.start :]
            padded[:, lags.start :] = taps[:, : -lags.start]
            taps = padded
        spectrum = self.spectrum(taps)
        return torch.conj_physical(spectrum) if self.arguments.reverse else spectrum

    def signal(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft(spectrum, n=self.size)[..., : self.arguments.u.shape[1]]

    def taps(self, spectrum: Tensor) -> Tensor:
        """The gradient of the kernel (channels, kernel_length) from its spectrum: zero at lags without effect."""
        lags, zero = self.arguments.lags, self.arguments.zero
        around = torch.fft.irfft(spectrum, n=self.size)
        taps = around.new_zeros(around.shape[0], self.arguments.kernel.shape[1])
        taps[:, zero : zero + lags.stop] = around[:, : lags.stop]
        if lags.start < 0:
            taps[:, zero + lags.start : zero] = around[:, lags.start :]
        return taps


def _blocks(arguments: Arguments) -> Iterator[_Block]:
    batch, length, dim = arguments.u.shape
    lags = arguments.lags
    # Circular wrapping must reach neither the outputs nor the other end of the kernel.
    size = fast_size(length + max(lags.stop - 1, -lags.start))
    step = max(1, min(dim, _BUDGET // (batch * size)))
    for begin in range(0, dim, step):
        yield _Block(arguments, slice(begin, min(begin + step, dim)), size)


def forward(arguments: Arguments) -> Tensor:
    """y, in the dtype of u."""
    y = torch.empty_like(arguments.u, memory_format=torch.contiguous_format)
    for block in _blocks(arguments):
        spectrum = block.spectrum(block.v)
        spectrum *= block.kernel_spectrum()
        out = block.signal(spectrum)
        del spectrum
        if block.skip is not None:
            out = out.addcmul(block.v, block.skip)
        if block.gate_out is not None:
            out = out * block.gate_out
        y[..., block.channels] = out.transpose(1, 2)
    return y


def backward(arguments: Arguments, grad_y: Tensor) -> Gradients:
    """The gradients of all inputs, in their dtypes."""
    u, kernel, skip, gate_in, gate_out, _, reverse = arguments
    like = torch.contiguous_format
    grad_u, grad_kernel = torch.empty_like(u, memory_format=like), torch.empty_like(kernel, memory_format=like)
    grad_skip = None if skip is None else torch.empty_like(skip)
    grad_in = None if gate_in is None else torch.empty_like(gate_in, memory_format=like)
    grad_out = None if gate_out is None else torch.empty_like(gate_out, memory_format=like)
    for block in _blocks(arguments):
        channels = block.channels
        grad = block.cut_given(grad_y)
        kernel_spectrum = block.kernel_spectrum()
        v_spectrum = block.spectrum(block.v)
        if grad_out is not None and block.gate_out is not None:
            convolved = block.signal(v_spectrum * kernel_spectrum)
            if block.skip is not None:
                convolved = convolved.addcmul(block.v, block.skip)
            grad_out[..., channels] = (grad * convolved).transpose(1, 2)
            del convolved
            grad = grad * block.gate_out
        grad_spectrum = block.spectrum(grad)
        # A lag's tap pairs v with the gradient that much later, or earlier with reverse.
        first, second = (v_spectrum, grad_spectrum) if reverse else (grad_spectrum, v_spectrum)
        grad_kernel[channels] = block.taps((first * second.conj()).sum(0))
        del first, second, v_spectrum
        grad_v = block.signal(grad_spectrum.mul_(kernel_spectrum.conj()))
        del grad_spectrum
        if grad_skip is not None and block.skip is not None:
            grad_skip[channels] = (grad * block.v).sum((0, 2))
            grad_v = grad_v.addcmul(grad, block.skip)
        if grad_in is not None and block.gate_in is not None:
            grad_in[..., channels] = (grad_v * block.u).transpose(1, 2)
            grad_v = grad_v * block.gate_in
        grad_u[..., channels] = grad_v.transpose(1, 2)
    return Gradients(grad_u, grad_kernel, grad_skip, grad_in, grad_out)
