"""The Triton kernel of the linear scan: on a GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from operator_cases import Inputs, complexed, distance, normal, run
from torch import Tensor
from triton_cases import DEVICE, TOLERANCE, check, double, poisoned_memory, run_kernels

from longscan.core.ops import linear_scan
from longscan.core.ops.linear_scan.arguments import Arguments

MODULE = importlib.import_module("longscan.core.ops.linear_scan.triton")
both_directions = pytest.mark.parametrize("reverse", [False, True])

#: Settings of the module that lead small inputs through each way of the kernel (see ``plan`` below).
ONE_ROW = {"_TOKENS": 4, "_WARPS": 0}
ROWS = {"_TOKENS": 4, "_TILE": 16, "_WARPS": 1 << 20}
CHUNKS = {"_TOKENS": 4, "_TILE": 8, "_WARPS": 1 << 20, "_SHORTEST_CHUNK": 8}
ways = pytest.mark.parametrize("way", [ONE_ROW, ROWS, CHUNKS], ids=["one row", "rows", "chunks"])


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with poisoned_memory(monkeypatch):
        yield


def take(way: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in way.items():
        monkeypatch.setattr(MODULE, name, value)
    monkeypatch.setattr(MODULE, "multiprocessors", lambda index: 64)


def scan_inputs(
    batch: int, length: int, dim: int, sequences: int | None = None, *, a: str = "real", x: str = "real", state: bool
) -> Inputs:
    """Inputs in float32 or complex64 with factors within the unit circle."""
    inputs = {"a": torch.rand(batch, length, dim), "x": normal(batch, length, dim, dtype=torch.float32)}
    if state:
        inputs["initial_state"] = normal(sequences or batch, dim, dtype=torch.float32)
    for name, kind in (("a", a), ("x", x), ("initial_state", a if a == "complex" else x)):
        if kind == "complex" and name in inputs:
            inputs[name] = complexed(inputs[name]) * 0.6
    return inputs


@ways
@both_directions
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("a", "x", "state"),
    [("real", "real", True), ("real", "real", False), ("complex", "complex", True), ("complex", "real", False)],
)
@pytest.mark.usefixtures("poisoned")
def test_options_crossed(
    way: dict[str, int],
    reverse: bool,
    packed: bool,
    a: str,
    x: str,
    state: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    take(way, monkeypatch)
    offsets = [0, 1, 2, 12, 23]
    inputs = scan_inputs(1 if packed else 2, 23, 3, 4 if packed else None, a=a, x=x, state=state)
    check(linear_scan, inputs, reverse=reverse, cu_seqlens=torch.tensor(offsets, dtype=torch.int32) if packed else None)


@ways
@pytest.mark.parametrize("length", [1, 2, 7, 15, 16, 17, 31, 33])
@pytest.mark.usefixtures("poisoned")
def test_any_length(way: dict[str, int], length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    check(linear_scan, scan_inputs(1, length, 2, state=True), reverse=length % 2 == 0)


@pytest.mark.parametrize("dim", [1, 33, 70])
@pytest.mark.usefixtures("poisoned")
def test_any_width(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    take(ONE_ROW, monkeypatch)
    check(linear_scan, scan_inputs(2, 5, dim, state=True))


@pytest.mark.parametrize("complex_valued", [False, True])
@pytest.mark.usefixtures("poisoned")
def test_as_it_is_configured(complex_valued: bool) -> None:
    """Without changed settings: two tiles of several rows."""
    kind = "complex" if complex_valued else "real"
    check(linear_scan, scan_inputs(1, 37, 2, a=kind, x=kind, state=True))


@ways
@both_directions
@pytest.mark.usefixtures("poisoned")
def test_sequences_of_one_token(way: dict[str, int], reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    offsets = torch.tensor([0, 1, 2, 3, 4, 17, 18, 19])
    check(linear_scan, scan_inputs(1, 19, 3, 7, state=True), reverse=reverse, cu_seqlens=offsets)


def test_the_settings_lead_where_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan(way: dict[str, int], length: int) -> Any:
        with monkeypatch.context() as patch:
            take(way, patch)
            x = torch.zeros(2, length, 3, device=DEVICE)
            return MODULE._plan(MODULE._Task(x, x, None, None, False), False)

    assert (plan(ONE_ROW, 23).rows, plan(ONE_ROW, 23).chunks) == (1, 1)
    assert (plan(ROWS, 23).rows, plan(ROWS, 23).chunks) == (4, 1)
    assert (plan(CHUNKS, 23).rows, plan(CHUNKS, 23).chunks) == (2, 3)


def test_short_inputs_are_chunked_nowhere_and_long_ones_where_programs_are_few() -> None:
    def plan(batch: int, length: int, dim: int) -> Any:
        x = torch.zeros(1, 1, 1, device=DEVICE).expand(batch, length, dim)
        return MODULE._plan(MODULE._Task(x, x, None, None, False), False)

    assert plan(1, 511, 64).chunks == 1
    if DEVICE == "cuda":
        assert plan(1, 1 << 20, 64).chunks > 100
        assert plan(8, 2048, 1536).chunks == 1


@pytest.mark.parametrize("packed", [False, True])
def test_what_does_not_end_is_kept_to_its_sequence(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    take(CHUNKS, monkeypatch)
    inputs = scan_inputs(1 if packed else 2, 20, 3, state=False)
    inputs["x"][0, 2 if packed else 0, 1] = float("inf")
    options = {"cu_seqlens": torch.tensor([0, 5, 20], device=DEVICE)} if packed else {}
    y = linear_scan(**{k: v.to(DEVICE) for k, v in inputs.items()}, **options, backend="triton").cpu()
    other = y[0, 5:] if packed else y[1]
    assert other.isfinite().all()
    assert not y[0, 2 if packed else 0, 1].isfinite()


@pytest.mark.parametrize("layout", ["channels", "tokens and batch", "everything", "strided", "permuted", "conjugated"])
@pytest.mark.usefixtures("poisoned")
def test_tensors_are_read_where_they_lie(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(ROWS, monkeypatch)
    shape = (2, 9, 4)
    a, x = torch.rand(shape), normal(*shape, dtype=torch.float32)
    if layout == "channels":
        a = torch.rand(2, 9, 1).expand(shape)
    elif layout == "tokens and batch":
        a = torch.rand(4).expand(shape)
    elif layout == "everything":
        a = torch.tensor(0.7).expand(shape)
    elif layout == "strided":
        a, x = torch.rand(2, 9, 12)[..., 1:5], normal(2, 18, 11, dtype=torch.float32)[:, ::2, 3:7]
    elif layout == "permuted":
        a, x = torch.rand(4, 9, 2).permute(2, 1, 0), normal(9, 2, 4, dtype=torch.float32).transpose(0, 1)
    else:
        a, x = (complexed(a) * 0.6).conj(), complexed(x).conj()
    exact = torch.complex128 if a.is_complex() else torch.float64
    expected = linear_scan(a.to(exact), x.to(exact), backend="reference")
    found = linear_scan(*(t.to(DEVICE) for t in (a, x)), backend="triton")
    assert distance(found.cpu(), expected) < 1e-5
    # The gradient of an output that is one number everywhere, as a sum makes it.
    leaf = a.detach().clone().to(DEVICE).requires_grad_()
    reference = a.detach().to(exact).requires_grad_()
    (wanted,) = torch.autograd.grad(linear_scan(reference, x.to(exact), backend="reference").abs().sum(), reference)
    (got,) = torch.autograd.grad(linear_scan(leaf, x.to(DEVICE), backend="triton").abs().sum(), leaf)
    assert distance(got.cpu(), wanted) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mixed", [False, True])
def test_short_dtypes(dtype: torch.dtype, mixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the same rounded inputs; factors in float32 beside short inputs give states and gradients in float32."""
    take(ROWS, monkeypatch)
    inputs = scan_inputs(2, 21, 3, state=True)
    inputs["x"] = inputs["x"].to(dtype)
    inputs["a"] = inputs["a"].to(torch.float32 if mixed else dtype)
    expected = run(linear_scan, double(inputs), "reference", return_final_state=True)
    found = run_kernels(linear_scan, inputs, return_final_state=True)
    wide = {"output 0", "output 1", "gradient of a", "gradient of initial_state"} if mixed else {"output 1"}
    for name, value in found.items():
        assert value.dtype == (torch.float32 if name in wide or name == "gradient of initial_state" else dtype)
        assert distance(value.double(), expected[name]) < (1e-5 if name in wide else 2e-2), name


def test_double_precision_goes_to_the_plain_path() -> None:
    inputs = double(scan_inputs(2, 9, 3, state=True))
    expected = linear_scan(**inputs, backend="reference")
    found = linear_scan(**{k: v.to(DEVICE) for k, v in inputs.items()}, backend="triton")
    assert found.dtype == torch.float64
    assert distance(found.cpu(), expected) < 1e-12


@ways
def test_finite_for_large_inputs_and_the_same_bits_again(way: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    inputs = scan_inputs(2, 23, 3, state=True)
    inputs = {"a": inputs["a"], "x": inputs["x"] * 1e4, "initial_state": inputs["initial_state"] * 1e4}
    inputs["a"][:, ::5] = 0.0
    inputs["a"][:, 1::5] = 1.0
    first, again = (run_kernels(linear_scan, inputs, return_final_state=True) for _ in range(2))
    check(linear_scan, inputs)
    for name, value in first.items():
        assert value.isfinite().all()
        assert torch.equal(value, again[name]), name


def test_a_final_state_carries_on() -> None:
    """Two halves with the state between them are the whole."""
    inputs = {name: value.to(DEVICE) for name, value in scan_inputs(2, 14, 3, state=True).items()}
    whole = linear_scan(**inputs, backend="triton")
    head, state = linear_scan(
        inputs["a"][:, :5], inputs["x"][:, :5], initial_state=inputs["initial_state"], return_final_state=True,
        backend="triton",
    )  # fmt: skip
    tail = linear_scan(inputs["a"][:, 5:], inputs["x"][:, 5:], initial_state=state, backend="triton")
    torch.testing.assert_close(torch.cat([head, tail], dim=1), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["_join_real", "_join_real_resets", "_join_complex", "_join_complex_resets"])
def test_runs_of_tokens_can_be_joined_in_any_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU joins neighbours first, the interpreter from the left; with resets, factors vanish here and there."""
    kernels = importlib.import_module("longscan.core.ops.linear_scan.triton_kernels")
    monkeypatch.setattr(kernels, "_after", kernels._after.fn)
    monkeypatch.setattr(kernels, "tl", SimpleNamespace(where=torch.where))
    join = getattr(kernels, name).fn
    count = 8 if "complex" in name else 4  # the product, the last state, and both without the last row
    first, second, third = (torch.randn(count, 50, dtype=torch.float64) for _ in range(3))
    if "resets" in name:
        for number, tensor in enumerate((first, second, third)):
            tensor[: count // 4, number :: 5 + number] = 0.0
    left, right = join(*join(*first, *second), *third), join(*first, *join(*second, *third))
    torch.testing.assert_close(torch.stack(left), torch.stack(right))


def test_only_short_tensors_and_complex64_have_kernels() -> None:
    from longscan.core.ops.linear_scan import chunked, registration

    x = torch.zeros(1, 2, 3)
    for dtype, module in ((torch.float32, MODULE), (torch.complex64, MODULE), (torch.complex128, chunked)):
        arguments = Arguments(x.to(dtype), x, None, None, False)
        assert registration._kernels("triton", arguments) is module


def gpu_inputs(shape: tuple[int, int, int], dtype: torch.dtype) -> Inputs:
    """Decays between 0.9 and 1, turning where they are complex."""
    generator = torch.Generator("cuda").manual_seed(0)
    a = 1 - 0.1 * torch.rand(shape, device="cuda", generator=generator)
    x = torch.randn(shape, device="cuda", generator=generator)
    if dtype.is_complex:
        a = torch.polar(a, 6.28 * torch.rand(shape, device="cuda", generator=generator))
        x = torch.complex(x, torch.randn(shape, device="cuda", generator=generator))
    return {"a": a.to(dtype), "x": x.to(dtype)}


@pytest.mark.gpu
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.complex64])
@pytest.mark.parametrize("shape", [(4, 1024, 512), (8, 2048, 96), (3, 197, 384), (1, 65536, 64), (1, 100003, 33)])
def test_real_shapes(shape: tuple[int, int, int], dtype: torch.dtype, reverse: bool) -> None:
    """Against the plain-torch path in double precision."""
    inputs = gpu_inputs(shape, dtype)
    exact = torch.complex128 if dtype.is_complex else torch.float64
    # Gradients of outputs that the short dtypes hold exactly.
    weight = torch.randint(-3, 4, shape, device="cuda", generator=torch.Generator("cuda").manual_seed(1)).to(dtype)

    def results(kind: torch.dtype, backend: str) -> list[Tensor]:
        leaves = [value.to(kind).requires_grad_() for value in inputs.values()]
        y, final = linear_scan(*leaves, reverse=reverse, return_final_state=True, backend=backend)
        ones = torch.ones_like(final)
        return [y, final, *torch.autograd.grad([y, final], leaves, [weight.to(y.dtype), ones])]

    for index, (found, wanted) in enumerate(zip(results(dtype, "triton"), results(exact, "torch"), strict=True)):
        assert found.isfinite().all()
        assert distance(found, wanted) < TOLERANCE[dtype][index >= 2], index
    for value, again in zip(results(dtype, "triton"), results(dtype, "triton"), strict=True):
        assert torch.equal(value, again)


@pytest.mark.gpu
@both_directions
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64])
def test_many_packed_sequences(dtype: torch.dtype, reverse: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.cat([torch.ones(100, dtype=torch.long), torch.randint(1, 900, (150,), generator=generator)])
    lengths = lengths[torch.randperm(len(lengths), generator=generator)]
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    inputs = gpu_inputs((1, int(offsets[-1]), 192), dtype)
    exact = torch.complex128 if dtype.is_complex else torch.float64
    initial = gpu_inputs((1, len(lengths), 192), torch.complex64 if dtype.is_complex else torch.float32)["x"][0]

    def results(kind: torch.dtype, backend: str) -> list[Tensor]:
        state = initial.to(exact if kind == exact else initial.dtype).requires_grad_()
        leaves = [value.to(kind).requires_grad_() for value in inputs.values()] + [state]
        options = {"cu_seqlens": offsets.cuda(), "reverse": reverse, "return_final_state": True}
        y, final = linear_scan(*leaves[:2], initial_state=state, **options, backend=backend)
        return [y, final, *torch.autograd.grad([y, final], leaves, [torch.ones_like(y), torch.ones_like(final)])]

    for index, (found, wanted) in enumerate(zip(results(dtype, "triton"), results(exact, "torch"), strict=True)):
        assert distance(found, wanted) < TOLERANCE[dtype][index >= 2], index


@pytest.mark.gpu
def test_offsets_beyond_32_bits() -> None:
    """More elements than a 32-bit integer counts: the last tokens come out right."""
    shape = (1, (1 << 25) + 77, 66)
    a = torch.full((1,), 0.5, device="cuda", dtype=torch.bfloat16).expand(shape)
    x = torch.ones(shape, device="cuda", dtype=torch.bfloat16)
    y, final = linear_scan(a, x, return_final_state=True)
    assert (y[:, -1000:] == 2).all()
    assert (final - 2).abs().max() < 1e-5


@pytest.mark.gpu
def test_it_is_what_a_gpu_runs_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGSCAN_BACKEND", raising=False)
    seen = []
    forward = MODULE.forward
    monkeypatch.setattr(MODULE, "forward", lambda arguments: seen.append(1) or forward(arguments))
    linear_scan(torch.rand(1, 3, 4, device="cuda"), torch.rand(1, 3, 4, device="cuda"))
    assert seen
