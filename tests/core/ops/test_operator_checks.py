"""What the operators say about bad arguments, and how a backend is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.ops import linear_scan, long_conv, selective_scan, selective_state_update, short_conv

N = torch.randn
U = N(2, 7, 6)
ROW = N(1, 7, 6)
A = -torch.rand(6, 4)
B = N(2, 7, 4)
WEIGHT = N(6, 3)


def scan(**changed: Any) -> Any:
    return selective_scan(**({"u": U, "delta": U, "A": A, "B": B, "C": B} | changed))


def step(**changed: Any) -> Any:
    given = {"state": N(2, 6, 4), "u": U[:, 0], "delta": U[:, 0], "A": A, "B": B[:, 0], "C": B[:, 0]}
    return selective_state_update(**(given | changed))


def recurrence(**changed: Any) -> Any:
    return linear_scan(**({"a": ROW, "x": ROW} | changed))


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: scan(u=U[0]), r"selective_scan: u has shape \(7, 6\), expected 3 non-empty axes \(batch, length, dim\)"),
    (lambda: scan(u=U[:, :0]), r"u has shape \(2, 0, 6\), expected 3 non-empty axes"),
    (lambda: scan(u=U.long()), r"u has dtype torch.int64, expected a floating dtype"),
    (lambda: scan(delta=U[..., :5]), r"delta has shape \(2, 7, 5\), expected \(batch, length, dim\) = \(2, 7, 6\)"),
    (lambda: scan(delta=3.0), r"delta is float, expected a tensor"),
    (lambda: scan(delta=U.to("meta")), r"delta is on meta, expected cpu"),
    (lambda: scan(A=A.T), r"A has shape \(4, 6\), expected \(dim, state\) = \(6, any\)"),
    (
        lambda: scan(B=B[..., :3]),
        r"B has shape \(2, 7, 3\), expected \(batch, length, groups, state\) = \(2, 7, any, 4\) or "
        r"\(batch, length, state\) = \(2, 7, 4\) or \(dim, state\) = \(6, 4\)",
    ),
    (lambda: scan(C=N(2, 7, 4, 4)), r"C has 4 groups, expected a divisor of dim 6"),
    (lambda: scan(B=N(2, 7, 3, 4), C=N(2, 7, 2, 4)), r"B has 3 groups and C 2, expected the same number, or 1"),
    (lambda: scan(B=B + 0j), r"B has dtype torch.complex64, expected a floating dtype"),
    (lambda: scan(D=N(5)), r"D has shape \(5,\), expected \(dim,\) = \(6,\)"),
    (lambda: scan(delta_bias=N(1)), r"delta_bias has shape \(1,\), expected \(dim,\) = \(6,\)"),
    (lambda: scan(z=N(2, 6, 6)), r"z has shape \(2, 6, 6\)"),
    (lambda: scan(initial_state=N(1, 6, 4)), r"initial_state has shape \(1, 6, 4\), expected \(batch, dim, state\) ="),
    (lambda: scan(backend="gpu"), r"backend='gpu' is unknown; known: reference, cpu, torch, triton, mamba_ssm"),
    (lambda: scan(initial_state=N(2, 6, 4), backend="mamba_ssm"), r"initial_state is not possible with backend='mam"),
    (lambda: scan(u=U.double(), backend="mamba_ssm"), r"u of dtype float64 is not possible with backend='mamba_ssm'"),
    (lambda: step(u=U), r"selective_state_update: u has shape \(2, 7, 6\), expected 2 non-empty axes \(batch, dim\)"),
    (lambda: step(state=N(2, 6, 5)), r"state has shape \(2, 6, 5\), expected \(batch, dim, state\) = \(2, 6, 4\)"),
    (lambda: step(A=A + 0j), r"state has dtype torch.float32, expected a complex dtype"),
    (lambda: step(B=B), r"B has shape \(2, 7, 4\)|B has 7 groups, expected a divisor of dim 6"),
    (lambda: recurrence(a=U), r"linear_scan: a has shape \(2, 7, 6\), expected \(batch, length, dim\) like x"),
    (
        lambda: recurrence(initial_state=N(1, 5)),
        r"initial_state has shape \(1, 5\), expected \(batch, dim\) = \(1, 6\)",
    ),
    (lambda: recurrence(initial_state=N(1, 6) + 0j), r"initial_state has dtype torch.complex64, expected a floating"),
    (lambda: recurrence(backend="mamba_ssm"), r"backend='mamba_ssm' is unknown; known: reference, cpu, torch, triton$"),
    (lambda: recurrence(cu_seqlens=[0, 7]), r"cu_seqlens is list, expected an int32 or int64 tensor"),
    (lambda: recurrence(cu_seqlens=torch.tensor([0.0, 7.0])), r"cu_seqlens is torch.float32, expected an int32"),
    (lambda: recurrence(cu_seqlens=torch.tensor([[0, 7]])), r"cu_seqlens has shape \(1, 2\), expected \(num_seq"),
    (lambda: linear_scan(U, U, cu_seqlens=torch.tensor([0, 7])), r"cu_seqlens needs batch 1 .* given batch 2"),
    (
        lambda: recurrence(cu_seqlens=torch.tensor([0, 6])),
        r"cu_seqlens runs from 0 to 6, expected from 0 to the length 7",
    ),
    (lambda: recurrence(cu_seqlens=torch.tensor([1, 7])), r"cu_seqlens runs from 1 to 7"),
    (lambda: recurrence(cu_seqlens=torch.tensor([0, 3, 3, 7])), r"cu_seqlens\[2\] = 3 after 3, expected strictly incr"),
    (
        lambda: recurrence(cu_seqlens=torch.tensor([0, 3, 7]), initial_state=N(1, 6)),
        r"initial_state has shape \(1, 6\), expected \(num_sequences, dim\) = \(2, 6\)",
    ),
    (lambda: short_conv(U, WEIGHT.T), r"short_conv: weight has shape \(3, 6\), expected \(dim, width\) = \(6, any\)"),
    (lambda: short_conv(U, WEIGHT, activation="relu"), r"activation='relu' is unknown, expected None or 'silu'"),
    (lambda: short_conv(U, WEIGHT, N(3)), r"bias has shape \(3,\), expected \(dim,\) = \(6,\)"),
    (lambda: short_conv(U, WEIGHT, initial_state=N(2, 3, 6)), r"expected \(batch, width - 1, dim\) = \(2, 2, 6\)"),
    (
        lambda: long_conv(U, N(7, 6)),
        r"long_conv: kernel has shape \(7, 6\), expected \(dim, kernel_length\) = \(6, any\)",
    ),
    (lambda: long_conv(U, WEIGHT, N(7)), r"skip has shape \(7,\), expected \(dim,\) = \(6,\)"),
    (lambda: long_conv(U, WEIGHT, gate_in=ROW), r"gate_in has shape \(1, 7, 6\)"),
    (lambda: long_conv(U + 0j, WEIGHT), r"u has dtype torch.complex64, expected a floating dtype"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=range(len(BAD)))
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", ["reference", "cpu", "torch"])
def test_every_backend_checks_cu_seqlens(backend: str) -> None:
    bad = torch.tensor([0, 5, 4, 7])
    for call in (
        lambda: linear_scan(ROW, ROW, cu_seqlens=bad, backend=backend),
        lambda: short_conv(ROW, WEIGHT, cu_seqlens=bad, backend=backend),
        lambda: selective_scan(ROW, ROW, A, N(1, 7, 4), N(1, 7, 4), cu_seqlens=bad, backend=backend),
    ):
        with pytest.raises(UserError, match=r"cu_seqlens\[2\] = 4 after 5, expected strictly increasing"):
            call()


def test_the_step_leaves_the_state_alone_when_it_refuses() -> None:
    state = N(2, 6, 4)
    before = state.clone()
    with pytest.raises(UserError):
        step(state=state, C=N(2, 3))
    assert torch.equal(state, before)


def test_the_environment_chooses_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    from longscan.core.ops.linear_scan import BACKENDS

    used: list[str] = []
    for name, implementation in list(BACKENDS.items()):

        def spy(arguments: Any, name: str = name, implementation: Any = implementation) -> Any:
            used.append(name)
            return implementation(arguments)

        monkeypatch.setitem(BACKENDS, name, spy)
    monkeypatch.delenv("LONGSCAN_BACKEND", raising=False)
    recurrence()
    monkeypatch.setenv("LONGSCAN_BACKEND", "reference")
    recurrence()
    recurrence(backend="torch")
    monkeypatch.setenv("LONGSCAN_BACKEND", "mamba_ssm")  # which this operator does not have
    recurrence()
    monkeypatch.setenv("LONGSCAN_BACKEND", "")
    recurrence()
    assert used == ["cpu", "reference", "torch", "cpu", "cpu"]
    monkeypatch.setenv("LONGSCAN_BACKEND", "fast")
    with pytest.raises(UserError, match=r"LONGSCAN_BACKEND='fast' is unknown; known: reference, cpu, torch, tri"):
        recurrence()
