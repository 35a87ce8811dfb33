"""The gated delta product against its recurrence in float64, and stacks woven of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from longscan.core.mixers import create_mixer
from longscan.core.mixers.delta_product_cell import delta_product, delta_product_step, unit_lower_inverse


@pytest.fixture(scope="module")
def cell(golden: Path) -> dict[str, Tensor]:
    """A sequential numpy reference in float64 with hand-derived gradients: two steps a token, β up to 2."""
    stored = np.load(golden / "core" / "ref64" / "gated_delta_product_a.npz")
    found = {name: torch.from_numpy(stored[name]) for name in stored}
    for name in ("q", "g", "o", "do", "d_q", "d_g"):  # (batch, length, heads, …) to (batch, heads, length, …)
        found[name] = found[name].transpose(1, 2)
    for name in ("k", "v", "beta", "d_k", "d_v", "d_beta"):
        found[name] = found[name].movedim(3, 1)
    return found


def relative(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.abs().max())


INPUTS = ("q", "k", "v", "beta", "g", "h0")


@pytest.mark.parametrize("chunk", [1, 5, 16, 64])
def test_cell_and_gradient(cell: dict[str, Tensor], chunk: int) -> None:
    inputs = [cell[name].clone().requires_grad_() for name in INPUTS]
    o, after = delta_product(*inputs, chunk, float(cell["scale"]))
    assert relative(o, cell["o"]) < 1e-12
    assert relative(after, cell["ht"]) < 1e-12
    ((o * cell["do"]).sum() + (after * cell["dht"]).sum()).backward()
    for name, tensor in zip(INPUTS, inputs, strict=True):
        assert relative(tensor.grad, cell[f"d_{name}"]) < 1e-9, name


def test_cell_in_float32(cell: dict[str, Tensor]) -> None:
    o, _ = delta_product(*(cell[name].float() for name in INPUTS), 16, float(cell["scale"]))
    assert relative(o.double(), cell["o"]) < 1e-5


def test_cell_step_by_step(cell: dict[str, Tensor]) -> None:
    state = cell["h0"]
    for t in range(cell["q"].shape[2]):
        o, state = delta_product_step(*(cell[name][:, :, t] for name in INPUTS[:-1]), state, float(cell["scale"]))
        assert relative(o, cell["o"][:, :, t]) < 1e-12
    assert relative(state, cell["ht"]) < 1e-12


def test_gradcheck() -> None:
    torch.manual_seed(0)
    shapes = ((1, 2, 5, 3), (1, 2, 5, 2, 3), (1, 2, 5, 2, 2), (1, 2, 5, 2), (1, 2, 5), (1, 2, 3, 2))
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    inputs[4] = -inputs[4].abs()
    inputs = [part.requires_grad_() for part in inputs]
    assert torch.autograd.gradcheck(lambda *parts: delta_product(*parts, chunk=2), inputs)


@pytest.mark.parametrize("size", [1, 3, 4, 24, 64])
def test_inverse(size: int) -> None:
    """Exact where equal keys at full strength make the powers of the matrix grow to 1e13."""
    a = torch.ones(2, 3, size, size, dtype=torch.float64).tril(-1)
    a[1] = 2 * torch.randn(3, size, size, dtype=torch.float64).clamp(-1, 1).tril(-1) / max(1, size) ** 0.5
    identity = torch.eye(size, dtype=torch.float64)
    assert relative(unit_lower_inverse(a) @ (identity + a), identity.expand(2, 3, -1, -1)) < 1e-12
    short = unit_lower_inverse(a[0].float())
    assert relative(short.double() @ (identity + a[0]), identity.expand(3, -1, -1)) < 1e-5


def test_equal_keys_overwrite() -> None:
    """With β = 1 and no decay a key's value is replaced, however long the sequence."""
    k = torch.zeros(1, 1, 70, 1, 4)
    k[..., 0] = 1.0
    v = torch.randn(1, 1, 70, 1, 3)
    o, _ = delta_product(k[:, :, :, 0], k, v, torch.ones(1, 1, 70, 1), torch.zeros(1, 1, 70), scale=1.0)
    torch.testing.assert_close(o, v[:, :, :, 0], atol=1e-5, rtol=0)


def test_negative_eigenvalues_keep_parity() -> None:
    """Householder reflections (β = 2) flip a state at every token, which no decay in (0, 1) can."""
    mixer = create_mixer("gated_delta_product", 8)
    assert mixer.strength == 2.0
    k = torch.zeros(1, 1, 9, 1, 2)
    k[..., 0] = 1.0
    start = torch.tensor([[[[1.0], [0.0]]]])
    zero = torch.zeros(1, 1, 9, 1, 1)
    o, _ = delta_product(k[:, :, :, 0], k, zero, torch.full((1, 1, 9, 1), 2.0), torch.zeros(1, 1, 9), start, scale=1.0)
    torch.testing.assert_close(o.flatten(), torch.tensor([(-1.0) ** (t + 1) for t in range(9)]))


def test_woven_state_is_added_to_the_learned_one() -> None:
    mixer = create_mixer("gated_delta_product", 12, learned_state=True)
    x = torch.randn(2, 7, 12)
    _, after = mixer.prefill(x)
    woven = mixer.delta_state(2, x, after.memory)
    torch.testing.assert_close(woven.memory, mixer.init_state(2).memory + after.memory)
    assert (mixer(x, state=woven) - mixer(x)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "options, told",
    [
        ({"n_heads": 5}, "does not divide"),
        ({"n_householder": 0}, "n_householder is 0"),
        ({"chunk": 0}, "chunk is 0"),
        ({"expand_v": 0.01}, "expand_v is 0.01"),
    ],
)
def test_mistakes(options: dict[str, float], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        create_mixer("gated_delta_product", 24, **options)
