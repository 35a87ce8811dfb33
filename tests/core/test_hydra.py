"""Hydra equals the published code, its matrix, and the recurrence written out; its chunks change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import Hydra, create_mixer
from longscan.core.mixers.scalar_decay import read_before

GOLDEN = Path(__file__).parent.parent / "golden" / "vision"


def load(case: str) -> tuple[Hydra, dict[str, np.ndarray], dict[str, float]]:
    config = json.loads((GOLDEN / case / "config.json").read_text())
    arguments = dict(config["constructor"])
    if arguments.pop("matrix_mixer_type", None):
        heads = 2 * arguments["d_model"] // arguments["headdim"]
        arguments["d_state"] = heads * arguments.pop("qk_dim")
        arguments["tie_directions"] = arguments.pop("is_data_dependent")
    mixer = Hydra(**arguments)
    weights = load_file(GOLDEN / case / "model.safetensors")
    mixer.load_state_dict({key.removeprefix("matrix_mixer."): value for key, value in weights.items()})
    files = (GOLDEN / case / name for name in ("inputs.npz", "outputs.npz"))
    return mixer, {key: value for file in files for key, value in np.load(file).items()}, config["tolerance"]


@pytest.mark.parametrize("case", ["hydra_basic_a", "hydra_groups_init_a", "hydra_matrixmixer_qs_a"])
def test_the_published_numbers(case: str) -> None:
    mixer, golden, tolerance = load(case)
    x = torch.from_numpy(golden["u"]).requires_grad_()
    y = mixer(x)
    np.testing.assert_allclose(y.detach().numpy(), golden["y"], **tolerance)
    if "cotangent" in golden:
        (y * torch.from_numpy(golden["cotangent"])).sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), golden["grad_input"], **tolerance)
        for key in golden:
            if key.startswith("grad."):
                gradient = mixer.get_parameter(key.removeprefix("grad.")).grad
                assert gradient is not None
                np.testing.assert_allclose(gradient.numpy(), golden[key], err_msg=key, **tolerance)


def scan_inputs(length: int, heads: int = 4, groups: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    x = torch.randn(2, length, heads, 3, dtype=dtype)
    decay = -torch.rand(2, length, heads, dtype=dtype)
    B, C = (torch.randn(2, length, groups, 5, dtype=dtype) for _ in range(2))
    return [x, decay, B, C, torch.randn(heads, 3, 5, dtype=dtype)]


def by_tokens(x: Tensor, decay: Tensor, B: Tensor, C: Tensor, state: Tensor) -> Tensor:
    """The recurrence, token by token."""
    each = x.shape[2] // B.shape[2]
    B, C = (matrix.repeat_interleave(each, dim=2) for matrix in (B, C))
    h, rows = state.expand(len(x), -1, -1, -1), [0 * x[:, 0]]
    for t in range(x.shape[1]):
        h = decay[:, t].exp()[..., None, None] * h + x[:, t].unsqueeze(-1) * B[:, t].unsqueeze(-2)
        rows.append((h @ C[:, t].unsqueeze(-1)).squeeze(-1))
    return torch.stack(rows[:-1], 1)


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (2, 4), (4, 4), (11, 4), (12, 4), (70, 64), (9, 1)])
def test_chunks_against_the_recurrence(length: int, chunk: int) -> None:
    inputs = [value.requires_grad_() for value in scan_inputs(length)]
    want, got = by_tokens(*inputs), read_before(*inputs, chunk=chunk)
    torch.testing.assert_close(got, want)
    cotangent = torch.randn_like(want)
    for a, b in zip(
        torch.autograd.grad(got, inputs, cotangent, allow_unused=True, materialize_grads=True),
        torch.autograd.grad(want, inputs, cotangent, allow_unused=True, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_extreme_decays_stay_finite() -> None:
    """Where all is forgotten within a token, and where nothing ever is."""
    x, _, B, C, state = scan_inputs(200, dtype=torch.float32)
    for rate in (0.0, -50.0, -1e4):
        decay = torch.full_like(x[..., 0], rate).requires_grad_()
        y = read_before(x, decay, B, C, state)
        y.square().sum().backward()
        assert y.isfinite().all()
        assert decay.grad is not None
        assert decay.grad.isfinite().all()
        want = by_tokens(*(value.double() for value in (x, decay, B, C, state)))
        torch.testing.assert_close(y.double(), want, rtol=1e-3, atol=1e-3)


def test_memory_is_linear_in_the_length() -> None:
    """What the backward pass keeps doubles with the length."""
    kept = []
    for length in (512, 1024):
        total: dict[int, int] = {}

        def pack(tensor: Tensor, total: dict[int, int] = total) -> Tensor:
            total[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        inputs = [value.requires_grad_() for value in scan_inputs(length, dtype=torch.float32)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = read_before(*inputs)
        assert y.shape == inputs[0].shape
        kept.append(sum(total.values()))
    assert 1.9 < kept[1] / kept[0] < 2.1


def test_each_direction_and_the_diagonal() -> None:
    """A token sees itself through the diagonal alone; one state shared or not changes the number of parameters."""
    mixer = Hydra(8, d_state=4, headdim=4, d_conv=1).double()
    with torch.no_grad():
        mixer.in_proj.weight[16 + 16 : 16 + 16 + 16].zero_()  # B and C of both directions
        x = torch.randn(1, 6, 8, dtype=torch.float64)
        changed = x.clone()
        changed[:, 3] += 1
        moved = (mixer(changed) - mixer(x)).abs().amax((0, 2)) > 1e-12
    # The convolution's bias still gives B and C something to say: silence it too.
    assert moved[3]
    with torch.no_grad():
        assert mixer.conv1d.bias is not None
        mixer.conv1d.bias.zero_()
        moved = (mixer(changed) - mixer(x)).abs().amax((0, 2)) > 1e-12
    assert moved.tolist() == [False, False, False, True, False, False]
    tied = Hydra(8, d_state=4, headdim=4, tie_directions=True)
    assert tied.conv1d.in_channels == 16 + 8


@pytest.mark.parametrize(
    ("options", "message"),
    [({"headdim": 5}, "headdim 5"), ({"headdim": 12, "ngroups": 3}, "ngroups is 3"), ({"d_conv": 4}, "d_conv is 4")],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("hydra", 24, **options)
    with pytest.raises(ValueError, match="state was given"):
        Hydra(8)(torch.randn(1, 2, 8), state=())
