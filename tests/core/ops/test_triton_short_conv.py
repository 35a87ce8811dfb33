"""The Triton kernels of the short convolution, with gradients: on a GPU or through Triton's interpreter."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import pytest
import torch
from operator_cases import Inputs, distance, normal, run
from torch import Tensor
from triton_cases import DEVICE, TOLERANCE, check, double, poisoned_memory, run_kernels

from longscan.core.errors import UserError
from longscan.core.ops import short_conv

FORWARD = importlib.import_module("longscan.core.ops.short_conv.triton")
MODULE = importlib.import_module("longscan.core.ops.short_conv.triton_backward")
both_directions = pytest.mark.parametrize("reverse", [False, True])


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with poisoned_memory(monkeypatch):
        yield


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tokens make several segments of several blocks, and several programs."""
    for module in (FORWARD, MODULE):
        monkeypatch.setattr(module, "_TOKENS", 4)
    monkeypatch.setattr(FORWARD, "_BLOCKS", 2)
    monkeypatch.setattr(FORWARD, "_ROWS", 2)
    monkeypatch.setattr(MODULE, "_SEGMENTS", (12, 12))


def conv_inputs(
    batch: int, length: int, dim: int, width: int, sequences: int | None = None, *, bias: bool, state: bool
) -> Inputs:
    inputs = {"x": normal(batch, length, dim, dtype=torch.float32), "weight": normal(dim, width, dtype=torch.float32)}
    if bias:
        inputs["bias"] = normal(dim, dtype=torch.float32)
    if state:
        inputs["initial_state"] = normal(sequences or batch, width - 1, dim, dtype=torch.float32)
    return inputs


@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.usefixtures("small_tiles")
def test_options_crossed(reverse: bool, packed: bool, state: bool, width: int) -> None:
    offsets = [0, 1, 2, 5, 14, 29]
    inputs = conv_inputs(1 if packed else 2, 29, 3, width, 5 if packed else None, bias=state, state=state)
    cu_seqlens = torch.tensor(offsets, dtype=torch.int32) if packed else None
    # Without a state, bias and activation alternate, so that each is met without the other.
    silu = state or width == 3
    check(short_conv, inputs, activation="silu" if silu else None, reverse=reverse, cu_seqlens=cu_seqlens)


@both_directions
@pytest.mark.parametrize("width", [1, 5, 8, 9])
def test_any_number_of_taps(reverse: bool, width: int) -> None:
    inputs = conv_inputs(2, 11, 3, width, bias=True, state=width > 1)
    check(short_conv, inputs, activation="silu", reverse=reverse)


@both_directions
@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 15, 16, 17, 31])
@pytest.mark.usefixtures("small_tiles")
def test_any_length(reverse: bool, length: int) -> None:
    check(short_conv, conv_inputs(3, length, 2, 4, bias=True, state=True), activation="silu", reverse=reverse)


@pytest.mark.parametrize("dim", [1, 65, 130])
def test_any_number_of_channels(dim: int) -> None:
    check(short_conv, conv_inputs(2, 9, dim, 4, bias=True, state=False), activation="silu")


@both_directions
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.usefixtures("small_tiles")
def test_sequences_of_one_token(reverse: bool, state: bool) -> None:
    offsets = torch.tensor([0, 1, 2, 3, 4, 12, 13, 14])
    inputs = conv_inputs(1, 14, 3, 4, 7, bias=True, state=state)
    check(short_conv, inputs, activation="silu", reverse=reverse, cu_seqlens=offsets)


def test_segments_cover_the_sequence() -> None:
    device = torch.device(DEVICE)
    for length in (1, 31, 100, 1000, 100_003):
        blocks, segments = MODULE._layout(3, length, 2, device)
        assert (segments - 1) * blocks * MODULE._TOKENS < length <= segments * blocks * MODULE._TOKENS


@both_directions
@pytest.mark.usefixtures("small_tiles")
def test_inputs_and_gradients_are_read_where_they_lie(reverse: bool) -> None:
    x, weight = normal(2, 15, 11, dtype=torch.float32), normal(4, 3, dtype=torch.float32)
    wide = normal(2, 30, 9, dtype=torch.float32)

    def gradients(dtype: torch.dtype, device: str, backend: str) -> list[Tensor]:
        leaves = [tensor.detach().to(device, dtype).requires_grad_() for tensor in (x, weight)]
        y = short_conv(leaves[0][..., 3:7], leaves[1], activation="silu", reverse=reverse, backend=backend)
        return list(torch.autograd.grad(y, leaves, wide.to(device, dtype)[:, ::2, 1:5]))

    expected = gradients(torch.float64, "cpu", "reference")
    for found, wanted in zip(gradients(torch.float32, DEVICE, "triton"), expected, strict=True):
        assert distance(found.cpu().double(), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.usefixtures("small_tiles")
def test_short_dtypes(dtype: torch.dtype) -> None:
    """Weights and states in float32 beside them stay so, with their gradients."""
    inputs = conv_inputs(2, 21, 3, 4, bias=True, state=True)
    inputs["x"] = inputs["x"].to(dtype)
    expected = run(short_conv, double(inputs), "reference", return_final_state=True, activation="silu")
    found = run_kernels(short_conv, inputs, return_final_state=True, activation="silu")
    for name, value in found.items():
        kept = name in ("gradient of weight", "gradient of bias", "gradient of initial_state")
        assert value.dtype == (torch.float32 if kept else dtype)
        assert distance(value.double(), expected[name]) < 1e-2, name


@pytest.mark.usefixtures("small_tiles")
def test_finite_for_large_inputs_and_the_same_bits_again() -> None:
    inputs = conv_inputs(2, 29, 3, 4, bias=True, state=True)
    inputs["x"] = inputs["x"] * 1e4
    first, again = (run_kernels(short_conv, inputs, return_final_state=True, activation="silu") for _ in range(2))
    check(short_conv, inputs, activation="silu")
    for name, value in first.items():
        assert value.isfinite().all()
        assert torch.equal(value, again[name]), name


def gpu_results(inputs: Inputs, dtype: torch.dtype, backend: str, weight: Tensor, **options: object) -> list[Tensor]:
    leaves = {name: value.to(dtype).requires_grad_() for name, value in inputs.items()}
    y, final = short_conv(**leaves, activation="silu", return_final_state=True, backend=backend, **options)
    gradients = [weight.to(dtype), torch.ones_like(final)]
    return [y, final, *torch.autograd.grad([y, final], list(leaves.values()), gradients)]


def gpu_inputs(batch: int, length: int, dim: int, width: int, sequences: int, dtype: torch.dtype) -> Inputs:
    inputs = conv_inputs(batch, length, dim, width, sequences, bias=True, state=True)
    return {name: value.to("cuda", dtype) for name, value in inputs.items()}


@pytest.mark.gpu
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("shape", "width"),
    [((4, 1024, 512), 4), ((8, 2048, 96), 3), ((3, 197, 384), 4), ((1, 100003, 33), 4), ((2, 999, 72), 8)],
)
def test_real_shapes(shape: tuple[int, int, int], width: int, dtype: torch.dtype, reverse: bool) -> None:
    """Against the plain-torch path in double precision."""
    inputs = gpu_inputs(*shape, width, shape[0], dtype)
    weight = torch.randint(-3, 4, shape, device="cuda")
    found = gpu_results(inputs, dtype, "triton", weight, reverse=reverse)
    again = gpu_results(inputs, dtype, "triton", weight, reverse=reverse)
    wanted = gpu_results(inputs, torch.float64, "torch", weight, reverse=reverse)
    for index, (value, same, right) in enumerate(zip(found, again, wanted, strict=True)):
        assert value.isfinite().all()
        assert torch.equal(value, same)
        assert distance(value, right) < TOLERANCE[dtype][index >= 2], index


@pytest.mark.gpu
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_packed_sequences(dtype: torch.dtype, reverse: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.cat([torch.ones(100, dtype=torch.long), torch.randint(1, 900, (150,), generator=generator)])
    lengths = lengths[torch.randperm(len(lengths), generator=generator)]
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    inputs = gpu_inputs(1, int(offsets[-1]), 192, 4, len(lengths), dtype)
    weight = torch.randint(-3, 4, inputs["x"].shape, device="cuda")
    options = {"reverse": reverse, "cu_seqlens": offsets.cuda()}
    found = gpu_results(inputs, dtype, "triton", weight, **options)
    wanted = gpu_results(inputs, torch.float64, "torch", weight, **options)
    for index, (value, right) in enumerate(zip(found, wanted, strict=True)):
        assert distance(value, right) < TOLERANCE[dtype][index >= 2], index


@pytest.mark.gpu
def test_offsets_beyond_32_bits() -> None:
    """More elements than a 32-bit integer counts: the gradients of the last tokens come out right."""
    shape = (1, (1 << 25) + 77, 66)
    x = torch.ones(1, device="cuda", dtype=torch.bfloat16).expand(shape).clone().requires_grad_()
    weight = torch.ones(66, 4, device="cuda", requires_grad=True)
    y = short_conv(x, weight)
    to_x, to_weight = torch.autograd.grad(y, [x, weight], y.detach())
    assert (to_x[:, -1000:-3] == 16).all()
    assert (to_x[0, -3:, 0].cpu() == torch.tensor([12.0, 8.0, 4.0])).all()
    assert distance(to_weight[:, -1], torch.full_like(to_weight[:, -1], 4.0 * shape[1])) < 1e-4


@pytest.mark.skipif(DEVICE == "cuda", reason="needs a machine without a GPU")
def test_the_kernels_need_a_gpu_unless_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(UserError, match="backend='triton' was given tensors on cpu"):
        short_conv(torch.zeros(1, 3, 2), torch.zeros(2, 4), backend="triton")
