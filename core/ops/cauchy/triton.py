# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The Cauchy sums in Triton, in real numbers: the table of fractions lives in registers alone.

Differences that nearly vanish at a resonance are formed in float64; the rest is float32. A program of the forward pass
takes a block of frequencies of one channel for every coefficient, and one of the backward pass walks over a range of
frequencies with a block of modes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .arguments import Arguments

_FREQUENCIES = 256  # of a program of the forward pass
_BACKWARD_FREQUENCIES, _MODES = 64, 16
_RANGE = 1 << 12  # frequencies that a program of the backward pass walks over


@triton.jit
def _invert(real, imaginary):
    """1 / (real + i imaginary)."""
    norm = 1.0 / (real * real + imaginary * imaginary)
    return real * norm, -imaginary * norm


@triton.jit
def _forward(
    v, poles, frequencies, scales, out, channels, dim, state, number, blocks,
    FREQUENCIES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    block, program = program % blocks, program // blocks
    h, first = program % dim, (program // dim) * CHANNELS
    j = block * FREQUENCIES + tl.arange(0, FREQUENCIES)
    here = j < number
    w, s = tl.load(frequencies + j, here, 1.0), tl.load(scales + j, here, 0.0)
    k = first + tl.arange(0, CHANNELS)
    there = k < channels
    real = tl.zeros((CHANNELS, FREQUENCIES), tl.float32)
    imaginary = tl.zeros((CHANNELS, FREQUENCIES), tl.float32)
    for n in range(state):
        pole = poles + (h * state + n) * 2
        decay, pitch = -s * tl.load(pole), s * tl.load(pole + 1)
        a, b = _invert(decay.to(tl.float32), (w - pitch).to(tl.float32))
        c, d = _invert(decay.to(tl.float32), (w + pitch).to(tl.float32))
        place = v + ((k * dim + h) * state + n) * 2
        x, y = tl.load(place, there, 0.0), tl.load(place + 1, there, 0.0)
        real += x[:, None] * (a + c)[None, :] + y[:, None] * (d - b)[None, :]
        imaginary += x[:, None] * (b + d)[None, :] + y[:, None] * (a - c)[None, :]
    place = out + ((k[:, None] * dim + h) * number + j[None, :]) * 2
    valid = there[:, None] & here[None, :]
    tl.store(place, real, valid)
    tl.store(place + 1, imaginary, valid)


@triton.jit
def _backward(
    poles, frequencies, scales, grad, sums, channels, dim, state, number, walk, ranges, mode_blocks,
    FREQUENCIES: tl.constexpr, MODES: tl.constexpr,
):  # fmt: skip
    """sums[range, power, k, h, n] over a range of frequencies; see ``chunked.backward``."""
    program = tl.program_id(0).to(tl.int64)
    mode_block, program = program % mode_blocks, program // mode_blocks
    part, program = program % ranges, program // ranges
    h, k = program % dim, program // dim
    n = mode_block * MODES + tl.arange(0, MODES)
    real_mode = n < state
    pole = poles + (h * state + n) * 2
    alpha, beta = tl.load(pole, real_mode, -1.0), tl.load(pole + 1, real_mode, 0.0)
    first_real, first_imaginary = tl.zeros((MODES,), tl.float32), tl.zeros((MODES,), tl.float32)
    second_real, second_imaginary = tl.zeros((MODES,), tl.float32), tl.zeros((MODES,), tl.float32)
    start = part * walk
    for begin in range(0, walk, FREQUENCIES):
        j = start + begin + tl.arange(0, FREQUENCIES)
        here = j < number
        w, s = tl.load(frequencies + j, here, 1.0), tl.load(scales + j, here, 0.0)
        place = grad + ((k * dim + h) * number + j) * 2
        g, i = tl.load(place, here, 0.0)[None, :], tl.load(place + 1, here, 0.0)[None, :]
        decay = (-alpha[:, None] * s[None, :]).to(tl.float32)
        pitch = beta[:, None] * s[None, :]
        a, b = _invert(decay, (w[None, :] - pitch).to(tl.float32))
        c, d = _invert(decay, (w[None, :] + pitch).to(tl.float32))
        first_real += tl.sum(g * (a + c) + i * (b + d), axis=1)
        first_imaginary += tl.sum(g * (d - b) + i * (a - c), axis=1)
        scale = s.to(tl.float32)[None, :]
        aa, bb, cc, dd = a * a - b * b, 2.0 * a * b, c * c - d * d, 2.0 * c * d
        second_real += tl.sum(scale * (g * (aa + cc) + i * (bb + dd)), axis=1)
        second_imaginary += tl.sum(scale * (g * (dd - bb) + i * (aa - cc)), axis=1)
    place = sums + ((((part * 2) * channels + k) * dim + h) * state + n) * 2
    tl.store(place, first_real, real_mode)
    tl.store(place + 1, first_imaginary, real_mode)
    place += (channels + 0 * k) * dim * state * 2
    tl.store(place, second_real, real_mode)
    tl.store(place + 1, second_imaginary, real_mode)


def _shared(arguments: Arguments) -> tuple[Tensor, Tensor, Tensor]:
    poles = torch.view_as_real(arguments.poles.to(torch.complex128).resolve_conj().contiguous())
    return poles, arguments.frequencies.double().contiguous(), arguments.scales.double().contiguous()


def forward(arguments: Arguments) -> Tensor:
    """The responses."""
    v = torch.view_as_real(arguments.coefficients.resolve_conj().contiguous())
    channels, dim, number = arguments.shape
    result = torch.empty(arguments.shape, dtype=torch.complex64, device=v.device)
    together = min(4, triton.next_power_of_2(channels))
    blocks = triton.cdiv(number, _FREQUENCIES)
    _forward[(blocks * dim * triton.cdiv(channels, together),)](
        v, *_shared(arguments), torch.view_as_real(result), channels, dim, v.shape[2], number, blocks,
        FREQUENCIES=_FREQUENCIES, CHANNELS=together,
    )  # fmt: skip
    return result


def backward(arguments: Arguments, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the coefficients and the poles; formulas in ``chunked``."""
    coefficients, poles = arguments.coefficients, arguments.poles
    channels, dim, number = arguments.shape
    state = poles.shape[1]
    given = torch.view_as_real(grad.to(torch.complex64).resolve_conj().contiguous())
    ranges, modes = triton.cdiv(number, _RANGE), triton.cdiv(state, _MODES)
    sums = torch.empty(ranges, 2, channels, dim, state, 2, dtype=torch.float32, device=poles.device)
    _backward[(modes * ranges * dim * channels,)](
        *_shared(arguments), given, sums, channels, dim, state, number, _RANGE, ranges, modes,
        FREQUENCIES=_BACKWARD_FREQUENCIES, MODES=_MODES,
    )  # fmt: skip
    total = torch.view_as_complex(sums.double().sum(0))
    return total[0].to(coefficients.dtype), (coefficients.conj() * total[1]).sum(0).to(poles.dtype)
