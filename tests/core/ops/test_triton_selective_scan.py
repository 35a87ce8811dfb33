"""The Triton kernels of the selective scan: on a GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import importlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operator_cases import assert_agree, run, selective_scan_inputs
from torch import Tensor
from triton_cases import DEVICE, TOLERANCE, check, double, poisoned_memory, run_kernels

from longscan.core.ops import selective_scan
from longscan.core.ops.selective_scan.arguments import Arguments

MODULE = importlib.import_module("longscan.core.ops.selective_scan.triton_plan")
both_directions = pytest.mark.parametrize("reverse", [False, True])


def in_chunks(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """Cut sequences into chunks of so many tokens whatever the device."""
    monkeypatch.setattr(MODULE, "_chunks", lambda length, *rest: (chunk, -(-length // chunk)))


KINDS = [("varying", "varying"), ("grouped", "constant"), ("one_group", "grouped"), ("constant", "varying")]


@pytest.mark.parametrize(
    ("reverse", "packed", "everything", "B", "C"),
    # Every pair of options, and all of them with half of the kinds.
    [
        (reverse, packed, (reverse ^ packed ^ bool(index % 2)), *kinds)
        for index, kinds in enumerate(KINDS)
        for reverse in (False, True)
        for packed in (False, True)
    ],
)
def test_values_and_gradients(
    reverse: bool, packed: bool, everything: bool, B: str, C: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 21
    cu_seqlens = torch.tensor([0, 1, 2, 16, length], dtype=torch.int32) if packed else None
    inputs = selective_scan_inputs(
        1 if packed else 2,
        length,
        B=B,
        C=C,
        everything=everything,
        sequences=4 if packed else None,
        dtype=torch.float32,
    )
    with poisoned_memory(monkeypatch):
        check(selective_scan, inputs, delta_softplus=True, cu_seqlens=cu_seqlens, reverse=reverse)


@both_directions
@pytest.mark.parametrize(
    ("B", "length", "everything"), [("varying", 33, True), ("grouped", 70, False), ("constant", 64, True)]
)
def test_chunks_of_a_long_sequence_join(
    reverse: bool, everything: bool, B: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_chunks(monkeypatch, 32)  # segments of 33 states have 16 tokens
    inputs = selective_scan_inputs(1, length, 4, 33, B=B, everything=everything, dtype=torch.float32)
    with poisoned_memory(monkeypatch):
        check(selective_scan, inputs, delta_softplus=True, reverse=reverse)


def test_a_long_sequence_of_few_channels_is_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "multiprocessors", lambda index: 132)
    chunk, chunks = MODULE._chunks(131072, 32, 64, *MODULE.CHUNKING, 0)
    assert chunk % 64 == 0
    assert (chunks - 1) * chunk < 131072 <= chunks * chunk
    assert 16 * 132 <= 32 * chunks <= 24 * 132
    assert MODULE._chunks(2048, 768, 64, *MODULE.CHUNKING, 0) == (2048, 1)
    assert MODULE._chunks(100, 1, 64, *MODULE.CHUNKING, 0) == (100, 1)


def test_blocks_of_channels_share_a_program_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "multiprocessors", lambda index: 132)
    divide = MODULE._turns_and_chunks
    assert divide(2048, 8, 96, 64, False, 0) == (3, 512, 4)  # 1,024 programs, where 1,056 fit
    assert divide(197, 128, 24, 64, False, 0) == (3, 197, 1)
    assert divide(8192, 8, 64, 64, False, 0) == (4, 1024, 8)
    assert divide(197, 2, 24, 64, False, 0) == (1, 197, 1)  # 48 programs are too few already
    assert divide(10**6, 1, 32, 64, True, 0) == (1, 10**6, 1)  # packed sequences are not cut


@pytest.mark.parametrize(
    ("shape", "channels", "chunks"),
    # Few programs hold half as many channels; still fewer are made more by cutting the sequences.
    [((8, 2048, 1536), 8, 1), ((8, 8192, 1024), 8, 1), ((128, 197, 384), 16, 1), ((1, 131072, 512), 16, 98)],
)
def test_division_of_the_forward_pass(
    shape: tuple[int, int, int], channels: int, chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MODULE, "multiprocessors", lambda index: 132)
    u, rows = torch.empty(1).expand(shape), torch.empty(1).expand(*shape[:2], 16)
    scan = Arguments(u, u, torch.empty(shape[2], 16), rows, rows, None, None, None, None, None, True, False)
    operands = [MODULE.Operands(u, u, scan.A, rows, rows, None, None)]
    plan = MODULE.Plan((scan,), operands, None, False, False, 64, ())
    assert (plan.channels, plan.chunks) == (channels, chunks)
    assert plan.grid == shape[0] * plan.chunks * shape[2] // channels
    backward = MODULE.Plan((scan,), operands, None, True, False, 64, (u, None, None))
    assert backward.channels == 16


def test_alignment_of_rows() -> None:
    whole = torch.zeros(3, 4, 64, dtype=torch.bfloat16)
    assert MODULE._alignment(whole) == 16
    assert MODULE._alignment(whole[..., 12:28]) == 8  # 24 bytes after the first
    assert MODULE._alignment(torch.zeros(3, 4, 46, dtype=torch.bfloat16)) == 4
    assert MODULE._alignment(torch.zeros(3, 4, 45, dtype=torch.bfloat16)) == 2
    assert MODULE._alignment(torch.zeros(3, 1, 45, dtype=torch.float32)[:1]) == 16  # one row


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 17, 65])
def test_lengths(length: int) -> None:
    check(selective_scan, selective_scan_inputs(1, length, 3, 2, dtype=torch.float32), delta_softplus=True)


@pytest.mark.parametrize(
    ("dim", "state"), [(1, 1), (33, 16), (70, 3), (5, 40), (16, 8), (2, 64), pytest.param(3, 256), (3, 100)]
)
def test_widths(dim: int, state: int) -> None:
    check(selective_scan, selective_scan_inputs(2, 5, dim, state, dtype=torch.float32), delta_softplus=True)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(1, 20),
    dim=st.integers(1, 17),
    state=st.integers(1, 17),
    reverse=st.booleans(),
    softplus=st.booleans(),
    everything=st.booleans(),
)
def test_random_shapes(length: int, dim: int, state: int, reverse: bool, softplus: bool, everything: bool) -> None:
    inputs = selective_scan_inputs(1, length, dim, state, everything=everything, dtype=torch.float32)
    if not softplus:
        inputs["delta"] = inputs["delta"].abs()
        inputs.pop("delta_bias", None)
    check(selective_scan, inputs, delta_softplus=softplus, reverse=reverse)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype) -> None:
    inputs = selective_scan_inputs(2, 19, 6, 5, dtype=torch.float32)
    half = {k: v.to(dtype) if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    expected = run(selective_scan, double(half), "reference", delta_softplus=True)
    assert_agree(run_kernels(selective_scan, half, delta_softplus=True), expected, TOLERANCE[dtype][1])


def test_inputs_are_read_where_they_lie_in_memory() -> None:
    inputs = selective_scan_inputs(2, 9, dtype=torch.float32)
    u, z = torch.cat([inputs["u"], inputs["z"]], dim=-1).chunk(2, dim=-1)
    assert not u.is_contiguous()
    check(selective_scan, {**inputs, "u": u, "z": z}, delta_softplus=True)
    across = {key: inputs[key].transpose(1, 2).contiguous().transpose(1, 2) for key in ("u", "delta", "B")}
    check(selective_scan, {**inputs, **across}, delta_softplus=True)


def test_finite_and_right_at_large_and_tiny_steps() -> None:
    inputs = selective_scan_inputs(1, 12, dtype=torch.float32)
    inputs["delta"] = torch.linspace(-30, 60, 12)[None, :, None].expand(1, 12, 6).contiguous()
    inputs["u"] = inputs["u"] * 1e4
    inputs["A"] = inputs["A"] * 100
    check(selective_scan, inputs, delta_softplus=True)
    # A step of softplus(-12) = 6e-6 is a tiny number whose digits count.
    small = selective_scan_inputs(1, 3, everything=False, dtype=torch.float32)
    small["delta"] = torch.full((1, 3, 6), -12.0)
    check(selective_scan, small, delta_softplus=True)


def test_two_runs_give_the_same_bits() -> None:
    inputs = selective_scan_inputs(2, 13, 6, 16, dtype=torch.float32)
    first, second = (run_kernels(selective_scan, inputs, delta_softplus=True) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "length", "dim"), [(2, 1000, 96), (1, 20000, 64), (3, 197, 384)])
def test_real_shapes(batch: int, length: int, dim: int, dtype: torch.dtype) -> None:
    inputs = selective_scan_inputs(batch, length, dim, 16, dtype=torch.float32)
    inputs = {k: v.to(dtype) if k in ("u", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    expected = run(selective_scan, double(inputs), "torch", delta_softplus=True)
    found = run_kernels(selective_scan, inputs, delta_softplus=True)
    for name, value in expected.items():
        error = (found[name].double() - value).norm() / value.norm()
        assert error < TOLERANCE[dtype][int(name.startswith("gradient"))], f"{name}: {error:.1e}"


@pytest.mark.gpu
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [[203, 130], [1, 2, 63, 64, 65, 8, 7]])
@pytest.mark.parametrize("offset", [0, 4, 12])
def test_copies_into_shared_memory(lengths: list[int], offset: int, reverse: bool) -> None:
    """Dims and states that need no mask, packed sequences, and rows of B and C at multiples of 16 and of 8 bytes."""
    length = sum(lengths)
    inputs = selective_scan_inputs(1, length, 48, 16, sequences=len(lengths), dtype=torch.float32)
    half = {k: v.to(torch.bfloat16) if k in ("u", "delta", "z") else v for k, v in inputs.items()}
    for name in ("B", "C"):
        rows = torch.randn(1, length, offset + 32).to(DEVICE, torch.bfloat16)
        half[name] = rows[..., offset : offset + 16]
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    options = {"delta_softplus": True, "cu_seqlens": offsets, "reverse": reverse}
    expected = run(selective_scan, {k: v.cpu() for k, v in double(half).items()}, "reference", **options)
    found = run_kernels(selective_scan, half, **options)
    for name, value in expected.items():
        error = (found[name].double() - value).norm() / value.norm()
        assert error < TOLERANCE[torch.bfloat16][int(name.startswith("gradient"))], f"{name}: {error:.1e}"


@pytest.mark.gpu
def test_gradients_of_more_elements_than_32_bits_count() -> None:
    """Gradients at the end of a sequence of 2^31 elements and more equal those of that end alone."""
    length, dim = (2**31 + 2**20) // 512, 512
    g = torch.Generator(DEVICE).manual_seed(0)
    u = torch.randn(1, length, dim, device=DEVICE, dtype=torch.bfloat16, generator=g)
    delta = torch.full((1, 1, 1), 0.05, device=DEVICE, dtype=torch.bfloat16).expand(1, length, dim)
    A = -torch.rand(dim, 8, device=DEVICE, generator=g) - 0.1
    B, C = (torch.randn(1, length, 8, device=DEVICE, dtype=torch.bfloat16, generator=g) for _ in range(2))
    ones = torch.ones(1, 1, 1, device=DEVICE, dtype=torch.bfloat16)

    def gradients(start: int) -> tuple[Tensor, ...]:
        leaves = [t[:, start:].requires_grad_() for t in (u, B, C)]
        y = selective_scan(leaves[0], delta[:, start:], A, leaves[1], leaves[2], backend="triton")
        assert isinstance(y, Tensor)
        found = torch.autograd.grad(y, leaves, ones.expand(y.shape))
        return tuple(gradient[:, -900:].clone() for gradient in found)

    for whole, end in zip(gradients(0), gradients(length - 3000), strict=True):
        assert end.abs().max() > 0.1
        torch.testing.assert_close(whole, end, atol=2e-2 * float(end.abs().max()), rtol=2e-2)


@pytest.mark.gpu
def test_more_elements_than_32_bits_count() -> None:
    """The end of a sequence of 2^31 elements and more equals a scan of that end from the state before it."""
    length, dim = (2**31 + 2**20) // 512, 512
    g = torch.Generator(DEVICE).manual_seed(0)
    u = torch.randn(1, length, dim, device=DEVICE, dtype=torch.bfloat16, generator=g)
    delta = torch.full((1, 1, 1), 0.05, device=DEVICE, dtype=torch.bfloat16).expand(1, length, dim)
    A = -torch.rand(dim, 4, device=DEVICE, generator=g) - 0.1
    B, C = (torch.randn(1, length, 4, device=DEVICE, dtype=torch.bfloat16, generator=g) for _ in range(2))
    y = selective_scan(u, delta, A, B, C, backend="triton")
    start = length - 3000
    tail = [t[:, start:] for t in (u, delta, B, C)]
    expected = selective_scan(tail[0], tail[1], A, tail[2], tail[3], backend="triton")
    assert isinstance(y, Tensor)
    assert isinstance(expected, Tensor)
    # After 2,000 tokens of decay at rates of 0.1 and more the start is forgotten.
    torch.testing.assert_close(y[:, -900:], expected[:, -900:], atol=2e-2, rtol=2e-2)
