"""LongConv against sums written out: squash, dropout, both directions, and sequences longer than the kernel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import LongConv, create_mixer


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of ``b``."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def bare(max_length: int, **options: object) -> LongConv:
    """The convolution alone in float64, with large taps."""
    mixer = LongConv(3, max_length, activation="none", **options).double().eval()  # type: ignore[arg-type]
    torch.nn.init.normal_(mixer.kernel)
    return mixer


def test_squash() -> None:
    """Taps move towards zero by lam, and those below it vanish."""
    mixer = LongConv(1, 5, lam=0.5).eval()
    with torch.no_grad():
        mixer.kernel.copy_(torch.tensor([[2.0, -1.0, 0.4, -0.5, 0.6]]))
        assert torch.allclose(mixer.kernels(), torch.tensor([[1.5, -0.5, 0.0, 0.0, 0.1]]))


def test_dropout_of_taps() -> None:
    """In training alone: a share p of the taps is dropped and the others grow by 1 / (1 - p)."""
    mixer = LongConv(4, 5000, lam=0.0, kernel_dropout=0.3)
    with torch.no_grad():
        kernel = mixer.kernel.detach()
        dropped = mixer.kernels()
        kept = dropped != 0
        assert abs(float(kept.float().mean()) - 0.7) < 0.02
        assert torch.allclose(dropped[kept], kernel[kept] / 0.7)
        assert not torch.equal(mixer.kernels(), dropped)
        mixer.eval()
        assert torch.equal(mixer.kernels(), kernel)


@pytest.mark.parametrize("length", [4, 9, 25])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_against_the_definition(bidirectional: bool, length: int) -> None:
    """Sums tap by tap, for sequences shorter and longer than the kernel of nine taps."""
    mixer = bare(9, lam=0.1, bidirectional=bidirectional)
    u = torch.randn(length, 3, dtype=torch.float64)
    with torch.no_grad():
        squashed = mixer.kernel.sign() * (mixer.kernel.abs() - 0.1).clamp(min=0)
        expected = mixer.D * u
        for t in range(length):
            for s in range(length):
                if 0 <= t - s < 9:
                    expected[t] += squashed[:3, t - s] * u[s]
                elif bidirectional and 0 < s - t <= 9:
                    expected[t] += squashed[3:, s - t - 1] * u[s]
        assert difference(mixer(u[None])[0], expected) < 1e-12


@pytest.mark.parametrize("max_length", [1, 2, 7, 70, 200])
def test_ring(max_length: int) -> None:
    """Steps and pieces around a ring that fills, grows and wraps, in any order."""
    mixer = bare(max_length)
    u = torch.randn(2, 260, 3, dtype=torch.float64)
    with torch.no_grad():
        whole = mixer(u)
        state, rows, position = mixer.init_state(2), [], 0
        for piece in (1, 3, 70, 1, 128, 50, 7):
            y, state = mixer.prefill(u[:, position : position + piece], state)
            rows.append(y)
            position += piece
        assert position == 260
        assert difference(torch.cat(rows, 1), whole) < 1e-12
        state, rows = mixer.init_state(2), []
        for t in range(0, 260, 13):
            for i in range(t, t + 6):
                y, state = mixer.step(u[:, i], state)
                rows.append(y[:, None])
            y, state = mixer.prefill(u[:, t + 6 : t + 13], state)
            rows.append(y)
        assert difference(torch.cat(rows, 1), whole) < 1e-12
        assert state.window.shape[1] == min(max_length, 512)
        assert state.position == 260


def test_initialisation() -> None:
    """N(0, 0.002²), or N(0, 0.02²) under an exponential that is steeper for later channels."""
    assert abs(float(LongConv(8, 4000, init="random").kernel.detach().std()) / 0.002 - 1) < 0.03
    kernel = LongConv(8, 40000, init="geometric").kernel.detach()
    for channel in (0, 3, 7):
        rate = 4 ** (channel / 8)
        for begin in (0, 20000, 36000):
            piece = kernel[channel, begin : begin + 4000]
            expected = 0.02 * torch.exp(-rate * (begin + torch.arange(4000)) / 40000).square().mean().sqrt()
            assert abs(float(piece.square().mean().sqrt() / expected) - 1) < 0.06


@pytest.mark.parametrize(
    "options, message",
    [
        ({"max_length": 0}, "max_length is 0"),
        ({"lam": -1.0}, "lam is -1.0"),
        ({"kernel_dropout": 1.0}, "kernel_dropout 1.0"),
        ({"init": "zeros"}, "init is 'zeros'; expected 'random' or 'geometric'"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("longconv", 4, **options)


def test_state_where_it_cannot_be_carried() -> None:
    mixer, x = LongConv(3, 8), torch.randn(1, 4, 3)
    for options in ({"reverse": True}, {"cu_seqlens": torch.tensor([0, 4])}):
        with pytest.raises(ValueError, match="cu_seqlens or reverse; LongConv"):
            mixer(x, state=mixer.init_state(1), **options)
    with pytest.raises(ValueError, match="bidirectional LongConv"):
        LongConv(3, 8, bidirectional=True)(x, state=mixer.init_state(1))
