"""Mega's moving average against the original kernel, closed forms and its recurrence."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import MegaEMA, create_mixer


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of ``b``."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def logit(p: float) -> float:
    """The inverse of the sigmoid."""
    return math.log(p / (1 - p))


def one_average(p: float, damping: float) -> MegaEMA:
    """One channel with one average of beta = gamma = 1 and no skip."""
    mixer = MegaEMA(1, ndim=1, activation="none").double()
    with torch.no_grad():
        mixer.delta.fill_(logit(p))
        mixer.alpha.fill_(logit(damping))
        mixer.beta.fill_(1.0)
        mixer.gamma.fill_(1.0)
        mixer.omega.zero_()
    return mixer


def test_against_the_original_kernel(golden: Path) -> None:
    folder = golden / "audio" / "mega_ema_kernel_a"
    outputs = dict(np.load(folder / "outputs.npz"))
    mixer = MegaEMA(6, ndim=4)
    missing, unexpected = mixer.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    assert missing == ["omega"]
    assert not unexpected
    with torch.no_grad():
        assert difference(mixer.kernel(50), torch.from_numpy(outputs["K_float32"][0])) < 1e-5
        assert difference(mixer.double().kernel(50), torch.from_numpy(outputs["K"][0])) < 1e-12


def test_step_response_in_closed_form() -> None:
    """A constant input is approached as p (1 - q^t) / (1 - q) with q = 1 - p · damping."""
    p, damping = 0.3, 0.2
    t = torch.arange(1, 101, dtype=torch.float64)
    q = 1 - p * damping
    with torch.no_grad():
        y = one_average(p, damping)(torch.ones(1, 100, 1, dtype=torch.float64))[0, :, 0]
    assert difference(y, p * (1 - q**t) / (p * damping)) < 1e-12


def test_without_damping_it_is_the_classical_average() -> None:
    """h_t = p u_t + (1 - p) h_{t-1}."""
    u = torch.randn(1, 40, 1, dtype=torch.float64)
    h, expected = 0.0, []
    for value in u[0, :, 0].tolist():
        h = 0.3 * value + 0.7 * h
        expected.append(h)
    with torch.no_grad():
        y = one_average(0.3, 1 - 1e-15)(u)[0, :, 0]
    assert difference(y, torch.tensor(expected, dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize("bidirectional", [False, True])
def test_against_the_recurrence(bidirectional: bool) -> None:
    """Token by token; both directions include the current one (Ma et al. 2023, equations 4 to 6)."""
    mixer = MegaEMA(3, ndim=4, bidirectional=bidirectional).double()
    u = torch.randn(13, 3, dtype=torch.float64)
    with torch.no_grad():
        p, damping = mixer.delta[..., 0].sigmoid(), mixer.alpha[..., 0].sigmoid()
        q, beta, gamma = 1 - p * damping, mixer.beta[..., 0], mixer.gamma / 2
        total = mixer.omega * u
        directions = [(slice(0, 3), range(13))] + ([(slice(3, 6), range(12, -1, -1))] if bidirectional else [])
        for rows, order in directions:
            h = torch.zeros(3, 4, dtype=torch.float64)
            for t in order:
                h = q[rows] * h + (p * beta)[rows] * u[t, :, None]
                total[t] += (gamma[rows] * h).sum(-1)
        assert difference(mixer(u[None])[0], total * total.sigmoid()) < 1e-12


def test_extremes_stay_finite() -> None:
    """No memory (q = 0), no input (p = 0) and no forgetting (q = 1), in float32 and at length."""
    for delta, alpha in ((80.0, 80.0), (-80.0, 0.0), (0.0, -80.0)):
        mixer = MegaEMA(2, ndim=2)
        with torch.no_grad():
            mixer.delta.fill_(delta)
            mixer.alpha.fill_(alpha)
        x = torch.randn(1, 3000, 2)
        y, state = mixer.prefill(x)
        y.square().mean().backward()
        assert y.isfinite().all()
        assert state.ema.isfinite().all()
        for name, parameter in mixer.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name
        if delta == 80.0:  # the kernel is one tap
            weight = (mixer.beta[..., 0] * mixer.gamma).sum(1) / math.sqrt(2) + mixer.omega
            assert difference(y, torch.nn.functional.silu(weight * x)) < 1e-5


def test_a_million_tokens() -> None:
    mixer = MegaEMA(2, ndim=4)
    u = torch.randn(1, 1 << 20, 2)
    with torch.no_grad():
        mixer.alpha.sub_(8)  # remembers thousands of tokens
        y = mixer(u)
        assert y.isfinite().all()
        _, state = mixer.prefill(u[:, : 1 << 19])
        assert difference(mixer(u[:, 1 << 19 :], state=state), y[:, 1 << 19 :]) < 1e-5


@pytest.mark.parametrize(
    "options, message", [({"ndim": 0}, "ndim is 0"), ({"activation": "gelu"}, "activation is 'gelu'")]
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("mega_ema", 4, **options)


def test_state_where_it_cannot_be_carried() -> None:
    mixer, x = MegaEMA(3), torch.randn(1, 4, 3)
    for options in ({"reverse": True}, {"cu_seqlens": torch.tensor([0, 4])}):
        with pytest.raises(ValueError, match="cu_seqlens or reverse; MegaEMA"):
            mixer(x, state=mixer.init_state(1), **options)
    with pytest.raises(ValueError, match="bidirectional MegaEMA"):
        MegaEMA(3, bidirectional=True)(x, state=mixer.init_state(1))
