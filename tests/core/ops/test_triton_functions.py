"""What the Triton kernels share: elementwise functions and sums over programs."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from operator_cases import distance, normal
from torch import Tensor
from triton_cases import DEVICE

from longscan.core.ops import _triton


@triton.jit
def _apply(x, y, SIZE: tl.constexpr, KIND: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.arange(0, SIZE)
    value = tl.load(x + place)
    if KIND == 0:
        value = _triton.softplus(value)
    elif KIND == 1:
        value = _triton.sigmoid(value)
    else:
        value = _triton.silu(value)
    tl.store(y + place, value)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize(
    ("kind", "right"),
    [(0, torch.nn.functional.softplus), (1, torch.sigmoid), (2, torch.nn.functional.silu)],
    ids=["softplus", "sigmoid", "silu"],
)
def test_functions_are_right_to_rounding(kind: int, right: object) -> None:
    x = torch.cat([torch.linspace(-85, 85, 4094), torch.tensor([-1e4, 1e4])])
    y = torch.empty_like(x).to(DEVICE)
    _apply[(1,)](x.to(DEVICE), y, SIZE=4096, KIND=kind)
    expected = right(x.double())  # type: ignore[operator]
    error = (y.cpu().double() - expected).abs() / expected.abs().clamp(min=1e-37)
    assert error.max() < (2e-5 if kind else 1e-5)  # of the exponent's own rounding, |x| times 6e-8
    near = x.abs() < 10
    assert error[near].max() < 2e-6


@pytest.mark.parametrize(("programs", "width", "dim"), [(1, 1, 1), (300, 3, 40), (129, 4, 33), (0, 2, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shares_of_programs_are_added(programs: int, width: int, dim: int, dtype: torch.dtype) -> None:
    shares = normal(programs, width + 1, dim).float()
    weight = torch.zeros((dim, width) if width > 1 else (dim,), dtype=dtype)
    total = shares.double().sum(0)
    for bias in (None, torch.zeros(dim)):
        found = _triton.add_shares(shares.to(DEVICE), weight, bias)
        assert found[0].dtype == dtype
        assert near(found[0], total[:width].T.reshape(weight.shape), 1e-5 if dtype == torch.float32 else 2**-7)
        if bias is None or found[1] is None:
            assert bias is found[1]
        else:
            assert near(found[1], total[width], 1e-5)


def near(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    return distance(found.cpu().double(), expected) <= tolerance


def test_sizes() -> None:
    assert [_triton.ceil_div(n, 4) for n in (0, 1, 4, 5)] == [0, 1, 1, 2]
    assert [_triton.power_of_two(n) for n in (0, 1, 2, 3, 1000, 1024)] == [1, 1, 2, 4, 1024, 1024]
