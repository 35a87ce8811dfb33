"""The gated state space against its definition, one token and one state at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import GSS, create_mixer


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of ``b``."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def state_space(mixer: GSS, u: Tensor, rate: float) -> Tensor:
    """(length, d_inner): the recurrence with A shared by the channels, B = 1 and the step size ``rate``."""
    A = torch.complex(-mixer.A_re.exp(), mixer.A_im.exp())
    C = torch.view_as_complex(mixer.C)
    s, rows = torch.zeros(u.shape[1], len(A), dtype=A.dtype), []
    for value in u:
        s = torch.exp(rate * A) * s + (torch.exp(rate * A) - 1) / A * value[:, None]
        rows.append((C * s).sum(-1).real + mixer.D * value)
    return torch.stack(rows)


@pytest.mark.parametrize("rate", [1.0, 0.25, 2.0])
def test_against_the_definition(rate: float) -> None:
    mixer = GSS(8, d_state=5, gate=3, bottleneck=2, rate=rate).double()
    x = torch.randn(12, 8, dtype=torch.float64)
    with torch.no_grad():
        u, v = F.gelu(mixer.u_proj(x)), F.gelu(mixer.v_proj(x))
        assert u.shape == (12, 4)
        assert v.shape == (12, 24)
        expected = mixer.out_proj(mixer.context_proj(state_space(mixer, u, rate)) * v)
        assert difference(mixer(x[None])[0], expected) < 1e-12


def test_kernel_in_closed_form() -> None:
    """One state of A = -1 + i pi / 2 turns by a quarter and shrinks by e with every token."""
    mixer = GSS(1, d_state=1).double()
    with torch.no_grad():
        mixer.A_re.fill_(0.0)
        mixer.A_im.fill_(math.log(math.pi / 2))
        start = (torch.exp(torch.tensor(complex(-1, math.pi / 2), dtype=torch.complex128)) - 1) / complex(
            -1, math.pi / 2
        )
        mixer.C.copy_(torch.view_as_real(1 / start))  # so that the kernel starts at 1
        mixer.D.zero_()
        impulse = torch.zeros(1, 8, 1, dtype=torch.float64)
        impulse[0, 0] = 1
        expected = torch.tensor([math.exp(-t) * (1, 0, -1, 0)[t % 4] for t in range(8)], dtype=torch.float64)
        assert (mixer._convolve(impulse)[0, :, 0] - expected).abs().max() < 1e-12


def test_rate_reads_inputs_of_half_the_sampling_rate() -> None:
    """Every sample held twice at step 1 is one sample at step 2, exactly."""
    mixer = GSS(8, d_state=6).double()
    x = torch.randn(2, 20, 8, dtype=torch.float64)
    with torch.no_grad():
        fine = mixer(x.repeat_interleave(2, dim=1))[:, 1::2]
        assert difference(mixer(x), fine) > 1e-3
        mixer.rate = 2.0
        assert difference(mixer(x), fine) < 1e-12


def test_fast_decay_stays_finite() -> None:
    mixer = GSS(4, d_state=3)
    with torch.no_grad():
        mixer.A_re.copy_(torch.tensor([-30.0, 0.0, 30.0]))
    x = torch.randn(1, 500, 4)
    y, state = mixer.prefill(x)
    y.square().mean().backward()
    assert y.isfinite().all()
    assert state.ssm.isfinite().all()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name


def test_sizes() -> None:
    mixer = GSS(64)
    shapes = {name: tuple(p.shape) for name, p in mixer.named_parameters()}
    assert shapes == {
        "A_re": (512,),
        "A_im": (512,),
        "C": (16, 512, 2),
        "D": (16,),
        "u_proj.weight": (16, 64),
        "u_proj.bias": (16,),
        "v_proj.weight": (256, 64),
        "v_proj.bias": (256,),
        "context_proj.weight": (256, 16),
        "context_proj.bias": (256,),
        "out_proj.weight": (64, 256),
        "out_proj.bias": (64,),
    }
    assert abs(float(mixer.C.detach().var()) * 2 * 512 - 1) < 0.05


@pytest.mark.parametrize("options", [{"rate": 0.0}, {"d_state": 0}, {"gate": 0}, {"bottleneck": 0}])
def test_mistakes(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"mixer 'gss': .*all must be positive"):
        create_mixer("gss", 4, **options)


def test_state_where_it_cannot_be_carried() -> None:
    mixer, x = GSS(4), torch.randn(1, 4, 4)
    for options in ({"reverse": True}, {"cu_seqlens": torch.tensor([0, 4])}):
        with pytest.raises(ValueError, match="cu_seqlens or reverse; GSS"):
            mixer(x, state=mixer.init_state(1), **options)
