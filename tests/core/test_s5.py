"""S5 against the original implementation, closed forms and its own definition written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.errors import UserError
from longscan.core.mixers import S5, create_mixer, diagonal_system
from longscan.core.mixers.diagonal_system import complex_expm1, discretize
from longscan.core.mixers.s5_initialization import hippo_normal_eigensystem, initial_B, initial_C


def difference(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest entry of ``b``."""
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def bare(d_model: int, **options: object) -> S5:
    """The state space alone in float64, every parameter away from special values."""
    mixer = S5(d_model, activation="none", **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return mixer


def one_state(real: float, imaginary: float, dt: float, **options: object) -> S5:
    """One input, one stored state with B = C = 1 and D = 0."""
    mixer = S5(1, d_state=2, activation="none", **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        mixer.Lambda_re.fill_(real)
        mixer.Lambda_im.fill_(imaginary)
        mixer.B.copy_(torch.tensor([1.0, 0.0]))
        mixer.C.copy_(torch.tensor([1.0, 0.0]))
        mixer.D.zero_()
        mixer.log_step.fill_(math.log(dt))
    return mixer


def test_against_the_original(golden: Path) -> None:
    folder = golden / "audio" / "s5_a"
    weights = load_file(folder / "model.safetensors")
    inputs, outputs = (dict(np.load(folder / f"{name}.npz")) for name in ("inputs", "outputs"))
    mixer = S5(4, d_state=8, activation="none").double()
    missing, unexpected = mixer.load_state_dict(weights)
    assert not missing
    assert not unexpected
    x = torch.from_numpy(inputs["x"])[None]
    with torch.no_grad():
        for name in ("y", "y_upstream_jax"):
            assert difference(mixer(x)[0], torch.from_numpy(outputs[name])) < 1e-12
        factors, B, _ = mixer.system()
        assert difference(torch.view_as_real(factors), torch.from_numpy(outputs["Lambda_bar"])) < 1e-12
        assert difference(torch.view_as_real(B), torch.from_numpy(outputs["B_bar"])) < 1e-12
        assert difference(mixer.float()(x.float())[0].double(), torch.from_numpy(outputs["y"])) < 1e-5


def test_step_response_in_closed_form() -> None:
    """x' = -a x + 1 from rest is (1 - exp(-a t)) / a, which a zero-order hold meets at every sample."""
    a, dt = 0.7, 0.05
    t = dt * torch.arange(1, 101, dtype=torch.float64)
    with torch.no_grad():
        y = one_state(-a, 0.0, dt)(torch.ones(1, 100, 1, dtype=torch.float64))[0, :, 0]
        assert difference(y, 2 * (1 - torch.exp(-a * t)) / a) < 1e-12
        # Tustin's rule: the recurrence by hand.
        y = one_state(-a, 0.0, dt, discretization="bilinear")(torch.ones(1, 100, 1, dtype=torch.float64))[0, :, 0]
        x, expected = 0.0, []
        for _ in range(100):
            x = (1 - a * dt / 2) / (1 + a * dt / 2) * x + dt / (1 + a * dt / 2)
            expected.append(2 * x)
        assert difference(y, torch.tensor(expected, dtype=torch.float64)) < 1e-12


def test_oscillation_in_closed_form() -> None:
    """The impulse response of exp(-a t) cos(w t), held over one sample."""
    a, w, dt = 0.2, 3.0, 0.1
    u = torch.zeros(1, 60, 1, dtype=torch.float64)
    u[0, 0] = 1
    t = dt * torch.arange(60, dtype=torch.float64)
    pole = complex(-a, w)
    start = (np.exp(pole * dt) - 1) / pole
    expected = 2 * torch.exp(-a * t) * (start.real * torch.cos(w * t) - start.imag * torch.sin(w * t))
    with torch.no_grad():
        assert difference(one_state(-a, w, dt)(u)[0, :, 0], expected) < 1e-12


def test_rate_reads_inputs_of_half_the_sampling_rate() -> None:
    """Every sample held twice at step dt is one sample at step 2 dt, exactly."""
    mixer = bare(3, d_state=8)
    u = torch.randn(2, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        fine = mixer(u.repeat_interleave(2, dim=1))[:, 1::2]
        assert difference(mixer(u), fine) > 1e-2
        mixer.rate = 2.0
        assert difference(mixer(u), fine) < 1e-12
        state, last = mixer.init_state(2), None
        for t in range(30):
            last, state = mixer.step(u[:, t], state)
        assert last is not None
        assert difference(last, fine[:, -1]) < 1e-12
    with torch.no_grad():
        assert S5(3, rate=2.0).rate == 2.0


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("conjugate_symmetry", [False, True])
def test_against_the_definition(bidirectional: bool, conjugate_symmetry: bool) -> None:
    """Token by token in complex numbers; both directions include the current token."""
    mixer = bare(3, d_state=8, blocks=2, bidirectional=bidirectional, conjugate_symmetry=conjugate_symmetry)
    u = torch.randn(11, 3, dtype=torch.float64)
    with torch.no_grad():
        eigenvalues = torch.complex(mixer.Lambda_re, mixer.Lambda_im)
        dt = mixer.log_step[:, 0].exp()
        B, C = torch.view_as_complex(mixer.B), torch.view_as_complex(mixer.C)
        factors = torch.exp(dt * eigenvalues)
        B = ((factors - 1) / eigenvalues)[:, None] * B

        def states(order: list[int]) -> Tensor:
            x, rows = torch.zeros_like(eigenvalues), torch.zeros(11, len(eigenvalues), dtype=torch.complex128)
            for t in order:
                x = factors * x + B @ u[t].to(B.dtype)
                rows[t] = x
            return rows

        rows = states(list(range(11)))
        if bidirectional:
            rows = torch.cat([rows, states(list(range(10, -1, -1)))], dim=1)
        expected = (2 if conjugate_symmetry else 1) * (rows @ C.T).real + mixer.D * u
        assert difference(mixer(u[None])[0], expected) < 1e-12


def test_stored_half_equals_the_whole() -> None:
    half = bare(3, d_state=8)
    whole = bare(3, d_state=8, conjugate_symmetry=False)
    mirror = torch.tensor([1.0, -1.0], dtype=torch.float64)
    with torch.no_grad():
        whole.Lambda_re.copy_(half.Lambda_re.repeat(2))
        whole.Lambda_im.copy_(torch.cat([half.Lambda_im, -half.Lambda_im]))
        whole.log_step.copy_(half.log_step.repeat(2, 1))
        whole.B.copy_(torch.cat([half.B, half.B * mirror]))
        whole.C.copy_(torch.cat([half.C, half.C * mirror], dim=1))
        whole.D.copy_(half.D)
        u = torch.randn(2, 20, 3, dtype=torch.float64)
        assert difference(half(u), whole(u)) < 1e-12


def test_hippo_normal() -> None:
    """-1/2 on the diagonal, -sqrt((n + 1/2) (k + 1/2)) below and its negative above (S5, appendix B.1.1)."""
    eigenvalues, V = hippo_normal_eigensystem(6)
    root = torch.sqrt(torch.arange(6, dtype=torch.float64) + 0.5)
    outer = torch.outer(root, root)
    expected = outer.triu(1) - outer.tril(-1) - 0.5 * torch.eye(6, dtype=torch.float64)
    assert difference(V @ torch.diag(eigenvalues) @ V.conj().T, expected.to(V.dtype)) < 1e-12
    assert difference(V.conj().T @ V, torch.eye(6, dtype=V.dtype)) < 1e-12
    assert (eigenvalues.imag.diff() > 0).all()


def test_initialisation() -> None:
    mixer = S5(5, d_state=12, blocks=3, dt_min=0.01, dt_max=0.02)
    eigenvalues, _ = hippo_normal_eigensystem(4)
    assert torch.allclose(mixer.Lambda_re, torch.full((6,), -0.5))
    assert torch.allclose(mixer.Lambda_im, eigenvalues.imag[:2].repeat(3).float())
    assert (mixer.Lambda_im < 0).all()
    step = mixer.log_step.exp()
    assert step.min() >= 0.01 * (1 - 1e-5)
    assert step.max() <= 0.02 * (1 + 1e-5)
    shapes = {name: tuple(p.shape) for name, p in S5(5, d_state=12, bidirectional=True).named_parameters()}
    assert {n: s for n, s in shapes.items() if "." not in n} == {
        "Lambda_re": (6,),
        "Lambda_im": (6,),
        "log_step": (6, 1),
        "B": (6, 5, 2),
        "C": (5, 12, 2),
        "D": (5,),
    }
    # V is unitary, so that B and C keep the variance they were drawn with.
    _, V = hippo_normal_eigensystem(64)
    assert abs(float(initial_B(V, 400).abs().square().mean()) * 64 - 1) < 0.03
    for kind, variance in (("trunc_standard_normal", 2 / 64), ("lecun_normal", 2 / 64 / 400), ("complex_normal", 1)):
        assert abs(float(initial_C(V, 400, kind).abs().square().mean()) / variance - 1) < 0.03  # type: ignore[arg-type]


def test_discretisation_of_small_steps() -> None:
    """(exp(z) - 1) / z in float32 where exp(z) - 1 alone would lose every digit."""
    A = torch.complex(torch.tensor([-0.5, -0.5, -3.0, 0.0]), torch.tensor([0.0, 2.0, -100.0, 0.0]))
    for dt in (1e-8, 1e-5, 1e-3, 0.1):
        _, scales = discretize(A, torch.tensor(dt), "zoh")
        z = dt * A[:3].to(torch.complex128)
        series = sum(z**k / float(math.factorial(k + 1)) for k in range(60))
        assert ((scales[:3] / dt - series).abs() / series.abs()).max() < 1e-6  # type: ignore[union-attr]
        assert abs(float(scales[3].real) / dt - 1) < 1e-6  # an integrator
    z = torch.tensor([1e-7 + 1e-7j], dtype=torch.complex64)
    assert abs(complex(complex_expm1(z)[0]) - (1e-7 + 1e-7j)) < 1e-13


@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_of_tokens(reverse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting a long sequence changes neither outputs, gradients nor the last state."""
    mixer = bare(3, d_state=8)
    u = torch.randn(2, 29, 3, dtype=torch.float64, requires_grad=True)

    def run() -> tuple[Tensor, Tensor, Tensor]:
        y = mixer(u, reverse=reverse)
        after = mixer.prefill(u)[1].ssm
        (grad,) = torch.autograd.grad(y.square().sum() + after.abs().square().sum(), u)
        return y, after, grad

    whole = run()
    monkeypatch.setattr(diagonal_system, "_BUDGET", 2 * 4 * 5)
    for a, b in zip(run(), whole, strict=True):
        assert difference(a, b) < 1e-12


def test_packed_states() -> None:
    """Each packed sequence may start from a state of its own."""
    mixer = bare(3, d_state=8)
    u = torch.randn(1, 12, 3, dtype=torch.float64)
    with torch.no_grad():
        state = mixer.prefill(torch.randn(2, 4, 3, dtype=torch.float64))[1]
        packed = mixer(u, state=state, cu_seqlens=torch.tensor([0, 5, 12]))
        first = mixer(u[:, :5], state=type(state)(state.ssm[:1]))
        second = mixer(u[:, 5:], state=type(state)(state.ssm[1:]))
        assert difference(packed, torch.cat([first, second], 1)) < 1e-12


def test_clip_eigs() -> None:
    mixer = S5(2, d_state=4, clip_eigs=True)
    with torch.no_grad():
        mixer.Lambda_re.fill_(5.0)
        assert (mixer.system()[0].abs() < 1).all()
        assert mixer(torch.randn(1, 3000, 2)).isfinite().all()


@pytest.mark.parametrize("kind", ["full_glu", "half_glu1", "half_glu2", "gelu", "none"])
def test_activations(kind: str) -> None:
    mixer = S5(3, d_state=4, activation=kind)  # type: ignore[arg-type]
    plain = S5(3, d_state=4, activation="none")
    plain.load_state_dict(mixer.state_dict(), strict=False)
    u = torch.randn(1, 7, 3)
    with torch.no_grad():
        y = plain(u)
        # The tanh form of GELU.
        g = 0.5 * y * (1 + torch.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        if kind == "full_glu":
            expected = mixer.output.out1(g) * torch.sigmoid(mixer.output.out2(g))
        elif kind.startswith("half"):
            expected = (g if kind == "half_glu1" else y) * torch.sigmoid(mixer.output.out2(g))
        else:
            expected = g if kind == "gelu" else y
        assert difference(mixer(u), expected) < 1e-6


def test_a_million_tokens() -> None:
    mixer = S5(2, d_state=8, dt_min=1e-4, dt_max=1e-3)
    u = torch.randn(1, 1 << 20, 2)
    with torch.no_grad():
        y = mixer(u)
        assert y.isfinite().all()
        _, state = mixer.prefill(u[:, : 1 << 19])
        assert difference(mixer(u[:, 1 << 19 :], state=state), y[:, 1 << 19 :]) < 1e-5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"d_state": 10, "blocks": 4}, "d_state 10 is no multiple of blocks 4"),
        ({"d_state": 9, "blocks": 3}, "blocks of 3; expected an even size"),
        ({"discretization": "euler"}, "discretization is 'euler'; expected 'zoh' or 'bilinear'"),
        ({"C_init": "zeros"}, "C_init is 'zeros'"),
        ({"activation": "relu"}, "activation is 'relu'; expected one of glu, full_glu"),
        ({"dt_min": 0.2}, "dt_min is 0.2 and dt_max 0.1"),
        ({"rate": 0}, "rate is 0"),
    ],
)
def test_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_mixer("s5", 4, **options)


def test_bidirectional_carries_no_state() -> None:
    mixer = S5(4, bidirectional=True)
    with pytest.raises(ValueError, match="bidirectional S5, which sees the whole sequence"):
        mixer(torch.randn(1, 3, 4), state=S5(4).init_state(1))
