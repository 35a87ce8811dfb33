"""The LRU against the original implementation and its own definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import LRU, create_mixer


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of ``b``."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def test_against_the_original(golden: Path) -> None:
    folder = golden / "audio" / "lru_a"
    inputs, outputs = (dict(np.load(folder / f"{name}.npz")) for name in ("inputs", "outputs"))
    mixer = LRU(4, d_state=8, activation="none").double()
    mixer.load_state_dict(load_file(folder / "model.safetensors"))
    x = torch.from_numpy(inputs["x"])[None]
    with torch.no_grad():
        y, state = mixer.prefill(x)
        for name in ("y", "y_upstream_jax"):
            assert difference(y[0], torch.from_numpy(outputs[name])) < 1e-12
        assert difference(torch.view_as_real(mixer.system()[0]), torch.from_numpy(outputs["lambda"])) < 1e-12
        assert difference(torch.view_as_real(state.ssm[0]), torch.from_numpy(outputs["state_last"])) < 1e-12
        assert difference(mixer.float()(x.float())[0].double(), torch.from_numpy(outputs["y"])) < 1e-5


def test_impulse_response_in_closed_form() -> None:
    """One real state of factor exp(-nu): y_l = gamma B C exp(-nu l), and D at l = 0; the real part is not doubled."""
    mixer = LRU(1, d_state=1, activation="none").double()
    values = {"nu_log": math.log(0.1), "theta_log": -100.0, "gamma_log": math.log(0.3), "D": 0.25}
    values |= {"B_re": 2.0, "B_im": 0.0, "C_re": 5.0, "C_im": 0.0}
    with torch.no_grad():
        for name, value in values.items():
            getattr(mixer, name).fill_(value)
        u = torch.zeros(1, 50, 1, dtype=torch.float64)
        u[0, 0] = 1
        expected = 3.0 * torch.exp(-0.1 * torch.arange(50, dtype=torch.float64))
        expected[0] += 0.25
        assert difference(mixer(u)[0, :, 0], expected) < 1e-12


def test_ring() -> None:
    """Uniform in area between two radii, phases up to the largest, and states of the variance of their inputs."""
    mixer = LRU(3, d_state=20000, r_min=0.4, r_max=0.9, max_phase=0.5)
    with torch.no_grad():
        factors = mixer.system()[0]
        square, phase = factors.abs().square(), factors.angle()
        assert square.min() >= 0.16 - 1e-5
        assert square.max() <= 0.81 + 1e-5
        # Quartiles of a uniform distribution; the standard error of the median is 0.0023 here.
        for p in (0.25, 0.5, 0.75):
            assert abs(float(square.quantile(p)) - (0.16 + 0.65 * p)) < 0.01
            assert abs(float(phase.quantile(p)) - 0.5 * p) < 0.01
        assert phase.min() >= 0
        assert phase.max() <= 0.5 + 1e-5
        assert difference(mixer.gamma_log.exp(), torch.sqrt(1 - square)) < 1e-5
        assert abs(float(mixer.B_re.var()) * 6 - 1) < 0.03
        assert abs(float(mixer.C_im.var()) * 20000 - 1) < 0.03


def test_the_edge_of_the_ring_stays_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    # The outermost draw, on the circle itself.
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", torch.zeros)
        mixer = LRU(2, d_state=4, r_min=0.0, r_max=1.0)
    u = torch.randn(1, 1 << 18, 2)
    assert mixer.nu_log.isfinite().all()
    with torch.no_grad():
        assert mixer(u).isfinite().all()
        mixer.nu_log.fill_(6.0)  # forgets at once
        assert mixer(u[:, :9]).isfinite().all()


def test_published_block() -> None:
    """gelu (its tanh form), then out1 times the sigmoid of out2."""
    mixer, plain = LRU(3, d_state=4), LRU(3, d_state=4, activation="none")
    plain.load_state_dict(mixer.state_dict(), strict=False)
    u = torch.randn(1, 7, 3)
    with torch.no_grad():
        g = torch.nn.functional.gelu(plain(u), approximate="tanh")
        assert difference(mixer(u), mixer.output.out1(g) * mixer.output.out2(g).sigmoid()) < 1e-6


def test_a_million_tokens() -> None:
    mixer = LRU(2, d_state=8, r_min=0.999, r_max=0.9999)
    u = torch.randn(1, 1 << 20, 2)
    with torch.no_grad():
        y = mixer(u)
        assert y.isfinite().all()
        _, state = mixer.prefill(u[:, : 1 << 19])
        assert difference(mixer(u[:, 1 << 19 :], state=state), y[:, 1 << 19 :]) < 1e-5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"r_min": 0.9, "r_max": 0.5}, "r_min is 0.9 and r_max 0.5"),
        ({"r_max": 1.5}, "r_max 1.5"),
        ({"max_phase": 0}, "max_phase is 0"),
        ({"rate": 2.0}, "rate"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("lru", 4, **options)
