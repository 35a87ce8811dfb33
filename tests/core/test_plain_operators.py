"""The operators in PyTorch's own operations equal the operators, and gradients of neither are needed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.ops import linear_scan, selective_scan, short_conv
from longscan.core.plain_operators import decompositions, scan

BATCH, LENGTH, DIM, STATE = 2, 37, 6, 4


def run(name: str, **arguments: Any) -> tuple[Tensor, ...]:
    """Call what stands for an operator, with the operator's own defaults left to it."""
    overload = getattr(torch.ops.longscan, name).default
    plain = decompositions()[overload]
    given: dict[str, Any] = {"cu_seqlens": None, "initial_state": None, **arguments}
    ordered = [given.get(argument.name) for argument in overload._schema.arguments]
    return plain(*ordered)


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 33, 300])
def test_scan_against_the_recurrence(length: int) -> None:
    factors, x = torch.rand(2, length, 3, dtype=torch.float64), torch.randn(2, length, 3, dtype=torch.float64)
    state, rows = torch.zeros(2, 3, dtype=torch.float64), []
    for t in range(length):
        state = factors[:, t] * state + x[:, t]
        rows.append(state)
    torch.testing.assert_close(scan(factors, x), torch.stack(rows, 1))


def test_scan_where_nothing_or_everything_is_forgotten() -> None:
    x = torch.randn(1, 50, 2)
    torch.testing.assert_close(scan(torch.ones_like(x), x), x.cumsum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scan(torch.zeros_like(x), x), x)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("groups", [None, 1, 3, "constant"])
@pytest.mark.parametrize("full", [False, True])
def test_selective_scan(reverse: bool, groups: Any, full: bool) -> None:
    shape = {None: (BATCH, LENGTH, STATE), "constant": (DIM, STATE)}.get(groups, (BATCH, LENGTH, groups, STATE))
    arguments = {
        "u": torch.randn(BATCH, LENGTH, DIM),
        "delta": torch.randn(BATCH, LENGTH, DIM) if full else torch.rand(BATCH, LENGTH, DIM),
        "A": -torch.rand(DIM, STATE),
        "B": torch.randn(shape),
        "C": torch.randn(shape),
    }
    options: dict[str, Any] = {"delta_softplus": full}
    if full:
        arguments |= {
            "D": torch.randn(DIM),
            "z": torch.randn(BATCH, LENGTH, DIM),
            "delta_bias": torch.randn(DIM),
        }
        options["initial_state"] = torch.randn(BATCH, DIM, STATE)
    want = selective_scan(**arguments, **options, reverse=reverse, return_final_state=True)
    got = run("selective_scan", **arguments, **options, reverse=reverse)
    torch.testing.assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("state", [False, True])
def test_short_conv_and_linear_scan(reverse: bool, state: bool) -> None:
    x, weight, bias = torch.randn(BATCH, LENGTH, DIM), torch.randn(DIM, 4), torch.randn(DIM)
    initial = torch.randn(BATCH, 3, DIM) if state else None
    for silu in (True, False):
        want = short_conv(
            x,
            weight,
            bias,
            "silu" if silu else None,
            initial_state=initial,
            return_final_state=True,
            reverse=reverse,
        )
        got = run("short_conv", x=x, weight=weight, bias=bias, initial_state=initial, silu=silu, reverse=reverse)
        torch.testing.assert_close(got[0], want[0])
        torch.testing.assert_close(got[1], want[1])
    a = torch.rand(BATCH, LENGTH, DIM)
    first = torch.randn(BATCH, DIM) if state else None
    want = linear_scan(a, x, initial_state=first, reverse=reverse, return_final_state=True)
    got = run("linear_scan", a=a, x=x, initial_state=first, reverse=reverse)
    torch.testing.assert_close(got[0], want[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-5)


def test_bfloat16_is_computed_in_float32() -> None:
    u, delta = (torch.rand(1, 300, DIM, dtype=torch.bfloat16) for _ in range(2))
    A, B = -torch.rand(DIM, STATE), torch.randn(1, 300, STATE, dtype=torch.bfloat16)
    want = selective_scan(u, delta, A, B, B, delta_softplus=True)
    got = run("selective_scan", u=u, delta=delta, A=A, B=B, C=B, delta_softplus=True, reverse=False)[0]
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, want)


def test_what_has_no_form() -> None:
    x = torch.randn(1, 4, 2)
    with pytest.raises(UserError, match="packed sequences cannot be exported"):
        run("linear_scan", a=x, x=x, cu_seqlens=torch.tensor([0, 4]), reverse=False)
    with pytest.raises(UserError, match="complex states cannot be exported"):
        run("linear_scan", a=x.to(torch.complex64), x=x, reverse=False)
