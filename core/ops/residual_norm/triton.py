# mypy: disable-error-code="no-untyped-def, assignment, var-annotated"
"""The residual norm in Triton: a program holds a few whole rows, so that every number is read and written once.

The backward pass computes the statistics again instead of storing them. Its programs go over the rows with a fixed
stride and keep their share of the gradients of weight and bias in registers; a second kernel adds
the shares of all programs, in an order that does not vary from run to run.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._triton import add_shares, ceil_div, multiprocessors, power_of_two
from .arguments import Arguments

_ELEMENTS = 2048  # of a program's tile of rows and channels, unless a row is longer


@triton.jit
def _statistics(values, here, dim, eps, LAYER: tl.constexpr):
    """Values less their mean (with LAYER), and one over their root mean square, for each row."""
    if LAYER:
        values = tl.where(here, values - (tl.sum(values, 1) / dim)[:, None], 0.0)
    return values, 1.0 / tl.sqrt(tl.sum(values * values, 1) / dim + eps)


@triton.jit
def _forward(
    x, residual, gate, weight, bias, y, stream,
    rows, dim, x_row, residual_row, gate_row, eps,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, LAYER: tl.constexpr, HAS_RESIDUAL: tl.constexpr, HAS_GATE: tl.constexpr,
    NORM_FIRST: tl.constexpr, HAS_BIAS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    channel = tl.arange(0, WIDTH)
    in_row = channel < dim
    here = (row < rows) & in_row[None, :]
    values = tl.load(x + row * x_row + channel, here, 0.0).to(tl.float32)
    if HAS_RESIDUAL:
        values += tl.load(residual + row * residual_row + channel, here, 0.0).to(tl.float32)
        kept = values.to(stream.dtype.element_ty)
        if KEEP:
            tl.store(stream + row * dim + channel, kept, here)
        values = kept.to(tl.float32)
    if HAS_GATE:
        z = tl.load(gate + row * gate_row + channel, here, 0.0).to(tl.float32)
        factor = z / (1.0 + tl.exp(-z))
        if not NORM_FIRST:
            values = values * factor
    values, scale = _statistics(values, here, dim, eps, LAYER)
    result = values * scale[:, None] * tl.load(weight + channel, in_row, 0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        result += tl.load(bias + channel, in_row, 0.0).to(tl.float32)[None, :]
    if HAS_GATE and NORM_FIRST:
        result = result * factor
    tl.store(y + row * dim + channel, result.to(y.dtype.element_ty), here)


@triton.jit
def _backward(
    stream, gate, weight, bias, grad_y, grad_stream, grad_x, grad_residual, grad_gate, shares,
    rows, dim, stream_row, gate_row, grad_y_row, grad_stream_row, eps,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, LAYER: tl.constexpr, HAS_GATE: tl.constexpr, NORM_FIRST: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_GRAD_STREAM: tl.constexpr, TWO_DTYPES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    channel = tl.arange(0, WIDTH)
    in_row = channel < dim
    weights = tl.load(weight + channel, in_row, 0.0).to(tl.float32)[None, :]
    if HAS_BIAS:
        biases = tl.load(bias + channel, in_row, 0.0).to(tl.float32)[None, :]
    weight_sum = tl.zeros((ROWS, WIDTH), tl.float32)
    bias_sum = tl.zeros((ROWS, WIDTH), tl.float32)
    for first in range(program * ROWS, rows, tl.num_programs(0) * ROWS):
        row = (first + tl.arange(0, ROWS)).to(tl.int64)[:, None]
        here = (row < rows) & in_row[None, :]
        values = tl.load(stream + row * stream_row + channel, here, 0.0).to(tl.float32)
        grad = tl.load(grad_y + row * grad_y_row + channel, here, 0.0).to(tl.float32)
        if HAS_GATE:
            z = tl.load(gate + row * gate_row + channel, here, 0.0).to(tl.float32)
            sigmoid = 1.0 / (1.0 + tl.exp(-z))
            factor = z * sigmoid
            slope = sigmoid * (1.0 + z * (1.0 - sigmoid))
            ungated = values
            if not NORM_FIRST:
                values = values * factor
        normed, scale = _statistics(values, here, dim, eps, LAYER)
        normed = normed * scale[:, None]
        if HAS_GATE and NORM_FIRST:
            result = normed * weights
            if HAS_BIAS:
                result += biases
            grad_z = grad * result * slope
            tl.store(grad_gate + row * dim + channel, grad_z.to(grad_gate.dtype.element_ty), here)
            grad = grad * factor
        weight_sum += grad * normed
        if HAS_BIAS:
            bias_sum += grad
        grad = grad * weights
        along = grad - normed * (tl.sum(grad * normed, 1) / dim)[:, None]
        if LAYER:
            along -= (tl.sum(grad, 1) / dim)[:, None]
        grad = along * scale[:, None]
        if HAS_GATE and not NORM_FIRST:
            grad_z = grad * ungated * slope
            tl.store(grad_gate + row * dim + channel, grad_z.to(grad_gate.dtype.element_ty), here)
            grad = grad * factor
        if HAS_GRAD_STREAM:
            grad += tl.load(grad_stream + row * grad_stream_row + channel, here, 0.0).to(tl.float32)
        tl.store(grad_x + row * dim + channel, grad.to(grad_x.dtype.element_ty), here)
        if TWO_DTYPES:
            tl.store(grad_residual + row * dim + channel, grad.to(grad_residual.dtype.element_ty), here)
    place = shares + program.to(tl.int64) * 2 * dim + channel
    tl.store(place, tl.sum(weight_sum, 0), in_row)
    if HAS_BIAS:
        tl.store(place + dim, tl.sum(bias_sum, 0), in_row)


def _tile(dim: int) -> tuple[int, int, int]:
    """Rows, channels (a power of two) and warps of a program."""
    width = power_of_two(dim)
    rows = min(64, max(1, _ELEMENTS // width))
    return rows, width, min(16, max(1, rows * width // 512))


def _rows(tensor: Tensor | None, like: Tensor) -> Tensor:
    """As (rows, dim) with adjacent channels, where it lies in memory if it can; ``like`` stands in for what is None."""
    if tensor is None:
        return like
    flat = tensor.reshape(-1, tensor.shape[-1])
    return flat if flat.stride(1) == 1 else flat.contiguous()


def forward(arguments: Arguments, keep: bool) -> tuple[Tensor, Tensor]:
    """y, and the sum if it is to be kept and not x itself; else an empty tensor."""
    x, residual, gate, weight, bias, layer, norm_before_gate, eps, dtype = arguments
    dim = x.shape[-1]
    keep = keep and residual is not None
    y = x.new_empty(x.shape, dtype=dtype)
    stream = x.new_empty(x.shape if keep else (0,), dtype=arguments.stream_dtype)
    if not x.numel():
        return y, stream
    flat = _rows(x, x)
    others = [_rows(tensor, flat) for tensor in (residual, gate)]
    rows, width, warps = _tile(dim)
    _forward[(ceil_div(len(flat), rows),)](
        flat, *others, weight.contiguous(), weight if bias is None else bias.contiguous(), y, stream,
        len(flat), dim, flat.stride(0), others[0].stride(0), others[1].stride(0), eps,
        ROWS=rows, WIDTH=width, LAYER=layer, HAS_RESIDUAL=residual is not None, HAS_GATE=gate is not None,
        NORM_FIRST=norm_before_gate, HAS_BIAS=bias is not None, KEEP=keep, num_warps=warps,
    )  # fmt: skip
    return y, stream


def backward(
    arguments: Arguments,
    x_dtype: torch.dtype,
    residual_dtype: torch.dtype,
    grad_y: Tensor,
    grad_stream: Tensor | None,
) -> list[Tensor]:
    """The gradients of x, of the residual where its dtype is another, of the gate, the weight and the bias.

    ``arguments.x`` is the sum that was normalised.
    """
    stream, _, gate, weight, bias, layer, norm_before_gate, eps, _ = arguments
    dim = stream.shape[-1]
    grads = [stream.new_empty(stream.shape, dtype=d) for d in dict.fromkeys((x_dtype, residual_dtype))]
    grad_gate = None if gate is None else torch.empty_like(gate, memory_format=torch.contiguous_format)
    flat = _rows(stream, stream)
    rows, width, warps = _tile(dim)
    programs = min(ceil_div(len(flat), rows), multiprocessors(stream.device.index or 0) * max(1, 12 // warps))
    shares = torch.empty((programs, 2, dim), dtype=torch.float32, device=stream.device)
    if programs:
        gates, grad_ys, grad_streams = (_rows(tensor, flat) for tensor in (gate, grad_y, grad_stream))
        _backward[(programs,)](
            flat, gates, weight.contiguous(), weight if bias is None else bias.contiguous(), grad_ys, grad_streams,
            grads[0], grads[-1], flat if grad_gate is None else grad_gate, shares,
            len(flat), dim, flat.stride(0), gates.stride(0), grad_ys.stride(0), grad_streams.stride(0), eps,
            ROWS=rows, WIDTH=width, LAYER=layer, HAS_GATE=gate is not None, NORM_FIRST=norm_before_gate,
            HAS_BIAS=bias is not None, HAS_GRAD_STREAM=grad_stream is not None, TWO_DTYPES=len(grads) > 1,
            num_warps=warps,
        )  # fmt: skip
    vectors = add_shares(shares, weight, bias)
    return [*grads, *(tensor for tensor in (grad_gate, *vectors) if tensor is not None)]
