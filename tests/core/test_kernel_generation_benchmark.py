"""The contestants of ``longscan bench`` for ``vandermonde`` and ``cauchy`` compute the same kernels."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from longscan.core.benchmark import cauchy, vandermonde
from longscan.core.benchmark.contests import Options

CPU = Options(device="cpu", dtype=torch.float32, shapes="small", backward=True)


def _genred(formula: str, aliases: list[str], reduction_op: str, axis: int) -> Callable[..., Tensor]:
    """Stands in for KeOps: the two formulas, with arguments of the shapes that it takes."""
    assert aliases == ["v = Vj(2)", "p = Vj(2)", "l = Vi(2)"]
    assert (reduction_op, axis) == ("Sum", 1)

    def reduce(v: Tensor, p: Tensor, at: Tensor) -> Tensor:
        assert v.shape[:2] == p.shape[:2] == at.shape[:2]
        assert all(tensor.is_contiguous() for tensor in (v, p, at))
        v, p, at = torch.view_as_complex(v)[:, :, None], torch.view_as_complex(p)[:, :, None], torch.view_as_complex(at)
        at = at[..., None]
        terms = {
            "ComplexMult(v, ComplexExp(ComplexMult(p, l)))": lambda: v * torch.exp(p * at),
            "ComplexDivide(v, l - p)": lambda: v / (at - p),
        }[formula]()
        return torch.view_as_real(terms.sum(-1))

    return reduce


@pytest.mark.parametrize("module", [vandermonde, cauchy], ids=["vandermonde", "cauchy"])
def test_contestants_agree(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    package = types.ModuleType("pykeops.torch")
    package.Genred = _genred  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pykeops", types.ModuleType("pykeops"))
    monkeypatch.setitem(sys.modules, "pykeops.torch", package)
    forward, backward = module.contests(CPU)
    assert [forward.backward, backward.backward] == [False, True]
    assert list(forward.peers) == ["naive", "naive, 16 slices"]
    dim, state, length = vandermonde.SMALL[0]
    logs = vandermonde.modes(CPU, dim, state)
    positions = torch.linspace(0, 50, 40) if module is cauchy else torch.arange(40.0)
    coefficients = torch.randn(1, dim, state, dtype=torch.complex64)
    expected = module._ours(coefficients, logs, positions)
    for contestant in (module._naive, module._keops):
        found = contestant(coefficients, logs, positions)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4
    made = vandermonde.maker(CPU, module._keops, logs, positions, True)()()
    assert [gradient.shape for gradient in made] == [(1, dim, state), (dim, state)]
    for maker in (backward.ours, *backward.peers.values()):
        torch.manual_seed(0)
        found = maker()()
        slices = found if isinstance(found, list) else [found]
        assert sum(part[1].shape[0] for part in slices) == dim
        assert all(gradient.isfinite().all() for part in slices for gradient in part)
    assert length > len(positions)
