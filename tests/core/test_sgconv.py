"""SGConv's kernel: spans, interpolation, decay and norm, written out."""

from __future__ import annotations

import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.mixers import SGConv, create_mixer


def test_kernel_by_hand() -> None:
    """Three spans of two parameters: taps 2, 2 and 4, weights 1, 1/3 and 1/9, the last one interpolated."""
    mixer = SGConv(1, max_length=7, kernel_dim=2, decay=3.0)
    assert mixer.weight.shape == (3, 1, 2)
    with torch.no_grad():
        mixer.weight.copy_(torch.tensor([[[1.0, 2.0]], [[3.0, 6.0]], [[9.0, 18.0]]]))
        mixer.kernel_norm.fill_(2.0)
        # Linear interpolation to twice as many points, constant beyond the outer centres; the eighth tap is cut off.
        expected = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 1.25, 1.75]]) / 2
        assert torch.allclose(mixer.kernels(), expected)


def test_norm_and_number_of_parameters() -> None:
    mixer = SGConv(6, max_length=5000, kernel_dim=16)
    assert mixer.weight.shape == (10, 6, 16)  # 2^9 · 16 = 8192 taps are the first power that reaches 5000
    with torch.no_grad():
        kernel = mixer.kernels()
        assert kernel.shape == (6, 5000)
        assert torch.allclose(kernel.norm(dim=1), torch.ones(6), atol=1e-5)
        # The norm is fixed at the start: larger spans make a larger kernel.
        mixer.weight.mul_(3)
        assert torch.allclose(mixer.kernels().norm(dim=1), torch.full((6,), 3.0), atol=1e-4)
        # A span weighs half of the one before it.
        mixer.weight.fill_(1.0)
        steps = mixer.kernels()[0, [0, 15, 16, 31, 32, 63, 64, 4096]] / mixer.kernels()[0, 0]
        assert torch.allclose(steps, torch.tensor([1, 1, 0.5, 0.5, 0.25, 0.25, 0.125, 2**-9]))
    assert "kernel_norm" in mixer.state_dict()
    for taps, scales in ((1, 1), (16, 1), (17, 2), (32, 2), (33, 3)):
        assert len(SGConv(1, max_length=taps, kernel_dim=16).weight) == scales


@pytest.mark.parametrize("bidirectional", [False, True])
def test_against_the_definition(bidirectional: bool) -> None:
    mixer = SGConv(2, 11, kernel_dim=3, bidirectional=bidirectional, activation="none").double()
    u = torch.randn(15, 2, dtype=torch.float64)
    with torch.no_grad():
        kernel, expected = mixer.kernels(), mixer.D * u
        for t in range(15):
            for s in range(15):
                if 0 <= t - s < 11:
                    expected[t] += kernel[:2, t - s] * u[s]
                elif bidirectional and 0 < s - t <= 11:
                    expected[t] += kernel[2:, s - t - 1] * u[s]
        assert (mixer(u[None])[0] - expected).abs().max() < 1e-12


def test_a_loaded_kernel_keeps_its_norm() -> None:
    first, second = SGConv(2, 20, kernel_dim=3), SGConv(2, 20, kernel_dim=3)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.kernels(), second.kernels())


@pytest.mark.parametrize(
    "options, message",
    [({"kernel_dim": 0}, "kernel_dim is 0"), ({"decay": 0.5}, "decay 0.5"), ({"max_length": -1}, "max_length is -1")],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("sgconv", 4, **options)
