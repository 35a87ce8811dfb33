"""The residual norm: plain paths and kernels against float64, on a GPU where there is one, else interpreted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from operator_cases import assert_agree, distance, normal, run
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.ops import residual_norm

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: The interpreter cuts off what rounding to nearest would round.
BFLOAT16 = 2**-7


def norm_inputs(rows: int, dim: int, everything: bool = True, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    inputs = {"x": normal(rows, dim, dtype=dtype), "weight": normal(dim, dtype=torch.float32)}
    if everything:
        inputs |= {
            "bias": normal(dim, dtype=torch.float32),
            "residual": normal(rows, dim, dtype=torch.float32),
            "gate": normal(rows, dim, dtype=dtype),
        }
    return inputs


def moved(inputs: dict[str, Any], device: str = DEVICE, dtype: torch.dtype | None = None) -> dict[str, Any]:
    return {key: value.to(device, dtype) if isinstance(value, Tensor) else value for key, value in inputs.items()}


def against_float64(function: Callable[..., Any], inputs: dict[str, Tensor], tolerance: float, **options: Any) -> None:
    """Values and gradients of the kernels against the reference in float64."""
    expected = run(function, moved(inputs, "cpu", torch.float64), "reference", **options)
    found = run(function, moved(inputs), "triton", **options)
    assert_agree({key: value.cpu().double() for key, value in found.items()}, expected, tolerance)


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("norm_before_gate", [True, False])
@pytest.mark.parametrize(("rows", "dim"), [(1, 1), (2, 3), (5, 96), (3, 1000), (130, 40)])
def test_norm(kind: str, norm_before_gate: bool, rows: int, dim: int) -> None:
    # One channel has a gradient only as far as eps counts, and none less its mean.
    inputs = norm_inputs(rows, 2 if dim == 1 and kind == "layer" else dim)
    options = {"kind": kind, "norm_before_gate": norm_before_gate, "eps": 0.5}
    against_float64(residual_norm, inputs, 2e-5, return_residual=True, **options)


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("dim", [1, 3, 96, 1000])
def test_norm_alone(kind: str, dim: int) -> None:
    inputs = norm_inputs(4, dim, everything=False)
    if dim > 1:  # of one channel the sign is left, which has no gradient
        against_float64(residual_norm, inputs, 2e-5, kind=kind)
        against_float64(residual_norm, inputs | {"residual": normal(4, dim).float()}, 2e-5, kind=kind)
    x, weight = moved(inputs).values()
    y, stream = residual_norm(x, weight, kind=kind, return_residual=True, backend="triton")
    assert stream is x
    assert torch.equal(y, residual_norm(x, weight, kind=kind, backend="triton"))


def test_gradient_of_the_stream_alone_and_of_the_norm_alone() -> None:
    for chosen in (0, 1):
        leaves = {key: value.requires_grad_() for key, value in moved(norm_inputs(3, 20)).items()}
        grads = {}
        for backend in ("torch", "triton"):
            outputs = residual_norm(**leaves, return_residual=True, backend=backend)
            grads[backend] = torch.autograd.grad(
                outputs[chosen].square().sum(), list(leaves.values()), allow_unused=True
            )
        for plain, kernel in zip(*grads.values(), strict=True):
            assert distance(kernel, torch.zeros_like(kernel) if plain is None else plain) < 1e-5


@pytest.mark.parametrize("everything", [True, False])
def test_norm_of_bfloat16_beside_a_float32_stream(everything: bool) -> None:
    inputs = norm_inputs(5, 96, everything, torch.bfloat16)
    against_float64(residual_norm, inputs, BFLOAT16, return_residual=everything)
    given = moved(inputs)
    if everything:
        y, stream = residual_norm(**given, return_residual=True, backend="triton")
        assert (y.dtype, stream.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(stream, given["x"].float() + given["residual"])  # the stream loses nothing
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert residual_norm(**given, dtype=dtype, backend="triton").dtype == dtype


def test_the_gradient_of_a_float32_stream_stays_float32() -> None:
    inputs = norm_inputs(5, 96, True, torch.bfloat16)
    options = {"dtype": torch.float32, "return_residual": True}
    found = run(residual_norm, moved(inputs), "triton", **options)["gradient of residual"]
    wide = run(residual_norm, moved(inputs, "cpu", torch.float64), "reference", return_residual=True)
    assert distance(found.cpu().double(), wide["gradient of residual"]) < 1e-5


def test_a_short_stream_is_rounded_before_the_norm() -> None:
    """What is normalised is what the next layer adds to."""
    x, residual = (torch.tensor(values).bfloat16().to(DEVICE) for values in ([[1e-3, 1.0]], [[1.0, 1.0]]))
    weight = torch.ones(2, device=DEVICE)
    y, stream = residual_norm(x, weight, None, residual, return_residual=True, dtype=torch.float32, backend="triton")
    assert stream.tolist() == [[1.0, 2.0]]
    assert distance(y.cpu(), residual_norm(stream.float(), weight, backend="torch").cpu()) < 1e-6


@pytest.mark.parametrize("kind", ["rms", "layer"])
def test_norm_of_large_and_tiny_numbers(kind: str) -> None:
    for scale, eps in ((1e4, 1e-5), (1e-4, 1e-12)):
        inputs = norm_inputs(5, 96)
        inputs["x"] *= scale
        inputs["residual"] *= scale
        against_float64(residual_norm, inputs, 2e-5, kind=kind, eps=eps, return_residual=True)


def test_norm_reads_rows_where_they_lie_in_memory() -> None:
    pair = normal(2, 5, 24).float().to(DEVICE).requires_grad_()
    weight = normal(12).float().to(DEVICE)
    found = []
    for contiguous in ("", "x", "x and gate"):
        x, gate = pair.chunk(2, dim=-1)
        assert not x.is_contiguous()
        x = x.contiguous() if "x" in contiguous else x
        gate = gate.contiguous() if "gate" in contiguous else gate
        y = residual_norm(x, weight, gate=gate, backend="triton")
        found.append((y, *torch.autograd.grad(y.square().sum(), pair)))
    for strided, mixed, expected in zip(*found, strict=True):
        assert distance(strided.cpu(), expected.cpu()) < 1e-6
        assert distance(mixed.cpu(), expected.cpu()) < 1e-6
    across = normal(12, 5).float().to(DEVICE).T
    plain = residual_norm(across, weight, backend="torch")
    assert distance(residual_norm(across, weight, backend="triton").cpu(), plain.cpu()) < 1e-5
    assert residual_norm(across[:0], weight, backend="triton").shape == (0, 12)


@pytest.mark.gpu
def test_norm_of_more_elements_than_32_bits_count() -> None:
    """The last rows of 2^31 elements and more, and their gradients, equal those of these rows alone."""
    rows, dim = 2**31 // 512 + 1000, 512
    g = torch.Generator("cuda").manual_seed(0)
    x = torch.randn(rows, dim, device="cuda", dtype=torch.bfloat16, generator=g)
    weight = torch.rand(dim, device="cuda", generator=g) + 0.5

    def last(start: int) -> tuple[Tensor, Tensor]:
        leaf = x[start:].requires_grad_()
        y = residual_norm(leaf, weight, backend="triton")
        assert isinstance(y, Tensor)
        (gradient,) = torch.autograd.grad(y, leaf, y.detach())
        return y[-2000:].detach().clone(), gradient[-2000:].clone()

    for whole, end in zip(last(0), last(rows - 3000), strict=True):
        assert end.abs().max() > 0
        assert torch.equal(whole, end)


def test_norm_repeats_its_bits() -> None:
    inputs = moved(norm_inputs(257, 33))
    first, second = (run(residual_norm, inputs, "triton", return_residual=True) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("norm_before_gate", [True, False])
def test_plain_norm(backend: str, kind: str, norm_before_gate: bool) -> None:
    """Derivatives of both orders, and the values of the two plain paths."""
    inputs = moved(norm_inputs(2, 4), "cpu", torch.float64)
    options = {"kind": kind, "norm_before_gate": norm_before_gate, "return_residual": True}
    assert_agree(
        run(residual_norm, inputs, backend, **options), run(residual_norm, inputs, "reference", **options), 1e-12
    )

    def call(*tensors: Tensor) -> Any:
        return residual_norm(**dict(zip(inputs, tensors, strict=True)), **options, backend=backend)

    leaves = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "root"}, "kind='root' is unknown, expected 'rms' or 'layer'"),
        ({"weight": torch.ones(3)}, r"weight has shape \(3,\), expected \(dim,\) = \(4,\)"),
        ({"residual": torch.ones(4)}, r"residual has shape \(4,\), expected the shape of x = \(2, 4\)"),
        ({"gate": torch.ones(2, 4, dtype=torch.int64)}, "gate has dtype torch.int64, expected a floating dtype"),
        ({"x": torch.ones(())}, r"x has shape \(\), expected \(…, dim\) with dim ≥ 1"),
        ({"eps": -1.0}, "eps=-1.0, expected a number ≥ 0"),
        ({"dtype": torch.int32}, "dtype=torch.int32 is no floating dtype"),
        ({"backend": "mamba_ssm"}, "backend='mamba_ssm' is unknown"),
    ],
)
def test_norm_mistakes(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        residual_norm(**({"x": torch.ones(2, 4), "weight": torch.ones(4)} | change))


def test_registration_of_the_norm() -> None:
    from longscan.core.ops.residual_norm import registration

    inputs = moved({key: value.requires_grad_() for key, value in norm_inputs(2, 5).items()})
    x, weight, bias, residual, gate = (value.detach().requires_grad_() for value in inputs.values())
    for residual_or_none, keep in ((residual, True), (None, False)):
        call = (x, residual_or_none, gate, weight, bias, True, True, 1e-5, torch.float32, keep)
        torch.library.opcheck(registration._norm, call)
