"""The contract of every sequence mixer as checks: ``check_contract`` takes any mixer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from longscan.core.mixers import SequenceMixer, clone_state, create_mixer

D_MODEL = 24
LENGTH = 37
#: Pieces of one token, pieces shorter than every short convolution, and long ones; they sum to LENGTH.
PIECES = (1, 2, 1, 16, 3, 14)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def build(name: str, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> SequenceMixer:
    """Create a mixer in which no parameter, bias or gain stands at a value that hides a mistake."""
    mixer = create_mixer(name, D_MODEL, **options)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return mixer.to(dtype).eval()


def error(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest entry."""
    assert a.shape == b.shape, f"{tuple(a.shape)} against {tuple(b.shape)}"
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))


def near(a: Tensor, b: Tensor, tolerance: float, what: str = "") -> None:
    """Assert that the two agree."""
    found = error(a, b)
    assert found <= tolerance, f"{what}: relative difference {found:.2e}, allowed {tolerance:.0e}"


def run_steps(mixer: SequenceMixer, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run a sequence token by token."""
    outputs = []
    for t in range(x.shape[1]):
        y, state = mixer.step(x[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def run_pieces(mixer: SequenceMixer, x: Tensor) -> Tensor:
    """Run a sequence in PIECES with the state carried between them."""
    outputs, state = [], None
    for piece in x.split(PIECES, dim=1):
        y, state = mixer.prefill(piece, state)
        outputs.append(y)
    return torch.cat(outputs, 1)


def check_recurrent_forms(mixer: SequenceMixer, x: Tensor, tolerance: float) -> float:
    """``forward``, ``prefill``, pieces with their state and a loop of ``step`` are one function; return the error."""
    worst = 0.0

    def agree(got: Tensor, expected: Tensor, what: str) -> None:
        nonlocal worst
        worst = max(worst, error(got, expected))
        near(got, expected, tolerance, what)

    with torch.no_grad():
        whole = mixer(x)
        agree(mixer.prefill(x)[0], whole, "prefill")
        agree(run_pieces(mixer, x), whole, "prefill in pieces")
        agree(run_steps(mixer, x, mixer.init_state(len(x), dtype=x.dtype))[0], whole, "steps")
        half = x.shape[1] // 2
        _, state = mixer.prefill(x[:, :half])
        kept = clone_state(state)
        agree(mixer(x[:, half:], state=state), whole[:, half:], "forward from a state")
        agree(mixer.prefill(x[:, half:], state)[0], whole[:, half:], "prefill from a state")
        agree(run_steps(mixer, x[:, half:], state)[0], whole[:, half:], "prefill, then steps")
        # The steps overwrote the state; the snapshot still starts from the middle.
        agree(run_steps(mixer, x[:, half:], clone_state(kept))[0], whole[:, half:], "steps from a snapshot")
        agree(mixer(x[:, half:], state=kept), whole[:, half:], "forward from a snapshot")
        # Steps and prefill leave one state: either may follow the other.
        stepped = run_steps(mixer, x[:, :half], mixer.init_state(len(x), dtype=x.dtype))[1]
        agree(mixer.prefill(x[:, half:], stepped)[0], whole[:, half:], "steps, then prefill")
        _, state = mixer.prefill(x[:, :-1])
        agree(mixer.step(x[:, -1], state)[0], whole[:, -1], "the last step")
    return worst


def check_packing(mixer: SequenceMixer, x: Tensor, tolerance: float) -> None:
    """Packed sequences equal the separate ones, in both directions, lengths 1 included."""
    lengths = (5, 1, 12, 2, x.shape[1] - 20)
    bounds = torch.tensor((0, *lengths)).cumsum(0)
    row = x[:1]
    for reverse in (False, True) if mixer.supports_reverse else (False,):
        packed = mixer(row, cu_seqlens=bounds, reverse=reverse)
        separate = torch.cat([mixer(part, reverse=reverse) for part in row.split(lengths, dim=1)], 1)
        near(packed, separate, tolerance, f"packed, reverse={reverse}")
        near(mixer(row, cu_seqlens=bounds.int(), reverse=reverse), separate, tolerance, "int32 bounds")


def check_directions(mixer: SequenceMixer, x: Tensor, tolerance: float) -> None:
    """A causal mixer's past ignores its future; ``reverse`` is flip, run, flip; sequences of a batch never meet."""
    whole = mixer(x)
    changed = x.clone()
    changed[:, 20] += 1.0
    moved = (mixer(changed) - whole).abs().amax((0, 2))
    if mixer.causal:
        # An FFT spreads rounding over all positions, so the bound is the tolerance and not zero.
        assert moved[:20].max() <= tolerance * whole.abs().max()
        assert moved[20] > 1e-3 * whole.abs().max()
    if mixer.supports_reverse:
        near(mixer(x, reverse=True), mixer(x.flip(1)).flip(1), tolerance, "reverse")
    near(whole[1:2], mixer(x[1:2]), tolerance, "one sequence of the batch")
    noise = x.clone()
    noise[0] = 1e3
    near(mixer(noise)[1], whole[1], tolerance, "another sequence of the batch changed")


def check_gradients(mixer: SequenceMixer, x: Tensor) -> None:
    """Every trained parameter and the input get finite gradients, in training and through ``prefill``."""
    runs = [lambda value: mixer(value)]
    if mixer.causal:
        runs.append(
            lambda value: torch.cat([(first := mixer.prefill(value[:, :9]))[0], mixer(value[:, 9:], state=first[1])], 1)
        )
    collected = []
    for run in runs:
        mixer.zero_grad()
        value = x.clone().requires_grad_()
        run(value).square().mean().backward()
        assert value.grad is not None
        grads = {"x": value.grad}
        for name, parameter in mixer.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} has no gradient"
                grads[name] = parameter.grad.clone()
        for name, grad in grads.items():
            assert grad.isfinite().all(), f"gradient of {name} is not finite"
        collected.append(grads)
    for name, grad in collected[-1].items():
        assert (grad - collected[0][name]).abs().max() <= 1e-3 * collected[0][name].abs().max() + 1e-7, name
    mixer.zero_grad()


def check_short_and_large(mixer: SequenceMixer, x: Tensor) -> None:
    """Length 1 works, and large inputs stay finite."""
    one = mixer(x[:, :1])
    assert one.shape == x[:, :1].shape
    assert one.isfinite().all()
    assert mixer(100 * x).isfinite().all()
    if mixer.causal:
        near(one, mixer(x)[:, :1], 1e-4, "length 1")
        near(mixer.prefill(x[:, :1])[0], one, 1e-5, "prefill of length 1")


def check_bfloat16(mixer: SequenceMixer, x: Tensor) -> None:
    """Autocast and bfloat16 weights stay near float32, in the parallel and the recurrent form."""
    expected = mixer(x)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        near(mixer(x).float(), expected, 0.05, "autocast")
        if mixer.causal:
            y, state = mixer.prefill(x[:, :20])
            rest, _ = run_steps(mixer, x[:, 20:], state)
            near(torch.cat([y, rest], 1).float(), expected, 0.05, "autocast, prefill and steps")
    short = copy.deepcopy(mixer).bfloat16()
    with torch.no_grad():
        # Against float32 arithmetic on the same rounded weights: rounding Hyena's frequencies makes other filters.
        expected = copy.deepcopy(short).float()(x.bfloat16().float())
        y = short(x.bfloat16())
        assert y.dtype == torch.bfloat16
        near(y.float(), expected, 0.1, "bfloat16")
        if mixer.causal:
            y, _ = run_steps(short, x.bfloat16(), short.init_state(len(x)))
            assert y.dtype == torch.bfloat16
            near(y.float(), expected, 0.1, "bfloat16 steps")


def check_not_causal(mixer: SequenceMixer, x: Tensor) -> None:
    """A mixer of both directions says so instead of computing something else."""
    calls = {
        "prefill": lambda: mixer.prefill(x),
        "init_state": lambda: mixer.init_state(2),
        "step": lambda: mixer.step(x[:, 0], None),
    }
    for method, call in calls.items():
        with pytest.raises(ValueError, match=rf"{type(mixer).__name__}\.{method} needs a causal mixer"):
            call()
    changed = x.clone()
    changed[:, 25] += 1.0
    assert (mixer(changed) - mixer(x))[:, 24].abs().max() > 1e-4 or getattr(mixer, "window", None) == 1


def check_contract(make: Callable[[torch.dtype], SequenceMixer], report: str = "") -> None:
    """Everything that every mixer must hold; ``make(dtype)`` builds it."""
    for dtype in (torch.float32, torch.float64):
        mixer = make(dtype)
        x = torch.randn(3, LENGTH, D_MODEL, dtype=dtype)
        assert mixer(x).shape == x.shape
        assert mixer(x).dtype == dtype
        if mixer.causal:
            reached = check_recurrent_forms(mixer, x, TOLERANCE[dtype])
            print(f"{report} {dtype}: recurrent against parallel {reached:.1e}")
        else:
            check_not_causal(mixer, x)
        with torch.no_grad():
            check_packing(mixer, x, TOLERANCE[dtype])
            check_directions(mixer, x, TOLERANCE[dtype])
    mixer = make(torch.float32)
    x = torch.randn(2, LENGTH, D_MODEL)
    check_gradients(mixer, x)
    with torch.no_grad():
        check_short_and_large(mixer, x)
        check_bfloat16(mixer, x)
