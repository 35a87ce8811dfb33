"""S4, S4D and DSS as mixers: convolution against recurrence, options, initial values, optimiser groups, bad options."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from mixer_contract import build, check_contract
from torch import Tensor, nn

from longscan.core.errors import UserError
from longscan.core.mixers import DSS, S4, S4D, create_mixer
from longscan.core.state_spaces import DiagonalKernel, DPLRKernel, DSSKernel, initialize
from longscan.core.training.optimizer import OptimizerConfig, parameter_groups

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("s4d", {"disc": "bilinear", "init": "diag-inv", "n_ssm": 1, "channels": 2, "final_act": "id"}),
    ("s4d", {"init": "diag", "n_ssm": 4, "dt_tie": False, "dt_transform": "softplus", "real_transform": "relu"}),
    ("s4d", {"init": "legt", "d_state": 8, "bandlimit": 0.5, "rate": 2.0, "activation": "silu"}),
    ("s4d", {"bidirectional": True, "channels": 2}),
    ("s4d", {"bidirectional": True, "l_max": 5}),
    ("s4", {"init": "legt", "rank": 2, "d_state": 16, "channels": 2}),
    ("s4", {"init": "hippo", "n_ssm": 2, "d_state": 16, "rate": 0.5}),
    ("s4", {"init": "fout", "d_state": 16, "dt_transform": "softplus", "l_max": 64, "final_act": "id"}),
    ("s4", {"init": "diag-lin", "d_state": 2}),
    ("s4", {"bidirectional": True, "d_state": 16}),
    ("dss", {"l_max": 50, "d_state": 16, "B_init": "random", "real_transform": "exp"}),
    ("dss", {"bidirectional": True, "l_max": None, "d_state": 8}),
]


@pytest.mark.parametrize("name, options", OPTIONS, ids=[f"{n}-{i}" for i, (n, _) in enumerate(OPTIONS)])
def test_contract(name: str, options: dict[str, Any]) -> None:
    if options.get("l_max", 0) is None:
        mixer = build(name, options)  # its kernel depends on the input's length, so that packing changes it
        assert mixer(torch.randn(2, 9, 24)).isfinite().all()
        return
    check_contract(lambda dtype: build(name, options, dtype), f"{name} {options}")


def relative(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).abs().max() / expected.abs().max()).detach())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["32", "64"])
@pytest.mark.parametrize(
    "name, options",
    [
        ("s4d", {}),
        ("s4d", {"disc": "bilinear", "init": "diag-inv"}),
        ("s4d", {"init": "fout"}),
        ("s4", {}),
        ("s4", {"init": "fout"}),
        ("s4", {"rate": 2.0}),
        ("dss", {"l_max": 4096}),
    ],
    ids=str,
)
def test_steps_are_the_convolution(name: str, options: dict[str, Any], dtype: torch.dtype, tolerance: float) -> None:
    """Over 4,096 steps, without an activation that would hide or add anything."""
    mixer = create_mixer(name, 4, activation="none", final_act="id", **options).to(dtype).eval()
    x = torch.randn(1, 4096, 4, dtype=dtype)
    with torch.no_grad():
        expected, last = mixer.prefill(x)
        assert relative(mixer(x), expected) <= 1e-12
        state, outputs = mixer.init_state(1), []
        for x_t in x.unbind(1):
            y, state = mixer.step(x_t, state)
            outputs.append(y)
    assert relative(torch.stack(outputs, 1), expected) <= tolerance
    assert relative(torch.view_as_real(state.ssm), torch.view_as_real(last.ssm)) <= tolerance


@pytest.mark.parametrize("name", ["s4d", "s4"])
def test_bidirectional_is_two_kernels(name: str) -> None:
    """y_t = sum over s <= t of k0[t - s] u_s + sum over s > t of k1[s - t - 1] u_s + D u_t."""
    mixer = create_mixer(name, 3, bidirectional=True, activation="none", final_act="id", d_state=8).double()
    nn.init.eye_(mixer.output_linear[0].weight)
    nn.init.zeros_(mixer.output_linear[0].bias)
    x = torch.randn(2, 13, 3, dtype=torch.float64)
    ahead, behind = mixer.kernel(13)
    expected = mixer.layer.D[0] * x
    for t in range(13):
        for s in range(13):
            expected[:, t] += (ahead[:, t - s] if s <= t else behind[:, s - t - 1]) * x[:, s]
    assert relative(mixer(x), expected) <= 1e-12


def test_l_max_cuts_the_kernel_off_in_forward_alone() -> None:
    whole = create_mixer("s4d", 3, d_state=8).double()
    cut = create_mixer("s4d", 3, d_state=8, l_max=10).double()
    cut.load_state_dict(whole.state_dict())
    x = torch.randn(1, 30, 3, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(cut(x[:, :10]), whole(x[:, :10]), rtol=1e-12)
        assert relative(cut(x), whole(x)) > 1e-3
        assert relative(cut.prefill(x)[0], whole(x)) <= 1e-12
        # An input that only reaches the cut-off taps leaves no trace.
        changed = x.clone()
        changed[:, 0] += 1
        assert (cut(changed) - cut(x))[:, 10:].abs().max() < 1e-12


def test_rate_is_a_factor_on_the_step_sizes() -> None:
    mixer = create_mixer("s4d", 3, d_state=8, rate=2.0).double()
    other = copy.deepcopy(mixer)
    other.rate = 1.0
    with torch.no_grad():
        other.kernel.inv_dt += math.log(2)
        x = torch.randn(1, 20, 3, dtype=torch.float64)
        assert relative(mixer(x), other(x)) <= 1e-12
        assert relative(other(x, rate=0.5), mixer(x, rate=1.0)) <= 1e-12


@pytest.mark.parametrize("rate", [1.0, 2.0, 0.7])
def test_s4_kernel_is_that_of_the_dense_system(rate: float) -> None:
    """At odd and even numbers of nodes, whose last one is the infinite frequency."""
    for length in (1, 2, 7, 8, 33):
        kernel = DPLRKernel(3, 8, channels=2).double()
        found = kernel(length, rate)
        recurrence = kernel.recurrence(rate)
        x = torch.zeros(1, 3, 4, dtype=torch.complex128)
        for t in range(length):
            y, x = recurrence.step(x, torch.full((1, 3), float(t == 0), dtype=torch.float64))
            assert torch.allclose(found[..., t], y[0], rtol=1e-9, atol=1e-11)


def test_s4_kernel_of_length_one_is_the_direct_term() -> None:
    kernel = DPLRKernel(2, 8).double()
    recurrence = kernel.recurrence()
    expected = 2 * (recurrence.output[0] * recurrence.input).sum(-1).real
    assert torch.allclose(kernel(1)[0, :, 0], expected, rtol=1e-10)


def test_longer_kernels_double_the_length_and_change_nothing_else() -> None:
    kernel = DPLRKernel(3, 16).double()
    first = kernel(100)
    assert int(kernel.l_kernel) == 100
    plain = kernel.recurrence().output
    second = kernel(450)
    assert int(kernel.l_kernel) == 800
    assert relative(second[..., :100], first) <= 1e-10
    assert torch.allclose(kernel.recurrence().output, plain, rtol=1e-9)
    assert torch.equal(kernel(100), kernel(800)[..., :100])
    loaded = DPLRKernel(3, 16).double()
    loaded.load_state_dict(kernel.state_dict())
    assert torch.equal(loaded(800), kernel(800))
    assert torch.equal(copy.deepcopy(kernel)(800), kernel(800))


def test_a_fresh_layer_steps_before_its_first_forward() -> None:
    mixer = create_mixer("s4", 4, d_state=16).double()
    x = torch.randn(1, 12, 4, dtype=torch.float64)
    with torch.no_grad():
        state, outputs = mixer.init_state(1), []
        for x_t in x.unbind(1):
            y, state = mixer.step(x_t, state)
            outputs.append(y)
        assert relative(torch.stack(outputs, 1), mixer(x)) <= 1e-10


def test_gradients_of_the_s4_kernel() -> None:
    kernel = DPLRKernel(2, 4, init="legt", rank=2).double()
    kernel.set_length(9)
    names = [name for name, _ in kernel.named_parameters()]

    def run(*values: Tensor) -> Tensor:
        return torch.func.functional_call(kernel, dict(zip(names, values, strict=True)), (9,))

    values = tuple(parameter.detach().clone().requires_grad_() for parameter in kernel.parameters())
    assert torch.autograd.gradcheck(run, values)


@pytest.mark.parametrize("init", ["legs", "fout", "legt"])
def test_gradients_of_the_s4_kernel_in_float32(init: str) -> None:
    kernel = DPLRKernel(3, 32, init=init, rank=2)
    kernel.set_length(1000)
    wide = copy.deepcopy(kernel).double()
    weight = torch.randn(1, 3, 1000, dtype=torch.float64)
    (kernel(1000) * weight).sum().backward()
    (wide(1000) * weight).sum().backward()
    for (name, parameter), expected in zip(kernel.named_parameters(), wide.parameters(), strict=True):
        assert relative(parameter.grad, expected.grad) <= 1e-4, name


def test_copies_and_the_band_limit() -> None:
    """Channel h uses copy h mod n_ssm; modes of a frequency from half the band limit on are dropped at every rate."""
    kernel = DiagonalKernel(6, 8, n_ssm=2, dt_min=0.1, dt_max=0.1).double()
    mixed = DiagonalKernel(6, 8, n_ssm=2, init="diag", B_init="random").double()  # the copies differ
    A, B, _ = mixed.matrices()
    for h in range(6):
        assert torch.equal(A[h].imag, -mixed.A_imag[h % 2])
        assert torch.equal(torch.view_as_real(B[h]), mixed.B[0, h % 2])
    limited = DiagonalKernel(6, 8, n_ssm=2, dt_min=0.1, dt_max=0.1, bandlimit=0.15).double()
    limited.load_state_dict(kernel.state_dict())
    # dt |Im A| / 2 pi = 0.05 k for S4D-Lin, against 0.075.
    for rate in (1.0, 3.0):
        kept = limited.recurrence(rate).output != 0
        assert torch.equal(kept, torch.tensor([True, True, False, False]).expand(1, 6, 4))


def test_the_rate_counts_in_the_length_of_s4_kernels() -> None:
    kernel = DPLRKernel(2, 8)
    assert kernel(10, rate=2.0).shape[-1] == 10
    assert int(kernel.l_kernel) == 20
    kernel(11, rate=2.0)
    assert int(kernel.l_kernel) == 40
    kernel(80, rate=0.5)
    assert int(kernel.l_kernel) == 40


@pytest.mark.parametrize("rate", [0.5, 2.0])
def test_a_new_s4_layer_steps_at_another_rate(rate: float) -> None:
    """Its C is plain; truncated for one step, as which it starts, it would be another layer at another rate."""
    mixer, x = create_mixer("s4", 3, rate=rate, activation="none", final_act="id").eval(), torch.randn(1, 2000, 3)
    C = mixer.kernel.C.clone()
    with torch.no_grad():
        state, outputs = mixer.init_state(1), []
        for x_t in x.unbind(1):
            y, state = mixer.step(x_t, state)
            outputs.append(y)
        assert torch.equal(mixer.kernel.C, C)
        assert int(mixer.kernel.l_kernel) == 0
        assert relative(torch.stack(outputs, 1), mixer(x)) <= 1e-3


def test_growing_modes_of_dss() -> None:
    """K[l] = Re sum C B (exp(-p) - 1) / ((exp(-pL) - 1) A) exp(p (l - (L - 1))) where Re A > 0."""
    kernel = DSSKernel(3, 8, l_max=20).double()
    with torch.no_grad():
        kernel.A_real[:, ::2] = -3.0
    A, B, C = kernel.matrices()
    p = kernel.dt() * A
    assert (p.real > 0).any()
    sign = torch.where(A.real > 0, -1.0, 1.0)
    x = (torch.exp(sign * p * 20) - 1) * A
    weight = C * B * (torch.exp(sign * p) - 1) * x.conj() / (x * x.conj() + 1e-7)
    exponent = torch.arange(20.0) - 19 * (A.real > 0)[..., None]
    expected = torch.einsum("chn,hnl->chl", weight, torch.exp(p[..., None] * exponent)).real
    assert relative(kernel(20), expected) <= 1e-12
    assert relative(kernel(7), kernel(20)[..., :7]) <= 1e-12
    with pytest.raises(UserError, match="modes that grow"):
        kernel.recurrence()
    with pytest.raises(UserError, match=r"a kernel of length 21 .* l_max=20"):
        kernel(21)
    # Large growth would overflow if it were not shifted.
    with torch.no_grad():
        kernel.A_real[:, ::2] = -3e4
    assert kernel(20).isfinite().all()


def test_dss_without_l_max_is_normalised_over_the_input() -> None:
    kernel = DSSKernel(2, 8, B_init="random").double()
    fixed = DSSKernel(2, 8, l_max=30).double()
    fixed.load_state_dict(kernel.state_dict())
    assert torch.equal(kernel(30), fixed(30))
    assert relative(kernel(15), fixed(15)) > 1e-3
    with pytest.raises(UserError, match="give l_max"):
        create_mixer("dss", 2, l_max=None).init_state(1)


def test_initial_values() -> None:
    k = torch.arange(4.0, dtype=torch.float64)
    frequencies = {
        "diag-lin": math.pi * k,
        "lin": math.pi * k,
        "diag-inv": 8 / math.pi * (8 / (2 * k + 1) - 1),
        "diag-inv2": 8 / math.pi * (8 / (k + 1) - 1),
        "diag-quad": (1 + 2 * k) ** 2 / math.pi,
    }
    for name, expected in frequencies.items():
        A, B, P = initialize(name, 8, 2, B_init="alternating")
        assert torch.allclose(-A.imag, expected.expand(2, 4))
        assert (A.real == -0.5).all()
        assert torch.equal(B.real[0], torch.tensor([1.0, -1, 1, -1], dtype=torch.float64))
        assert not P.any()
    assert torch.equal(initialize("real", 8)[0][0], torch.complex(-(k + 1), 0 * k))
    both = initialize("diag", 8, 4)[0]
    assert torch.equal(both, torch.cat([initialize("diag-inv", 8, 2)[0], initialize("diag-lin", 8, 2)[0]]))
    assert torch.equal(initialize("diag-legs", 8)[0], initialize("legs", 8)[0])
    for name in ("unit-cw", "unit-ccw"):
        assert torch.allclose(initialize("lin", 8, B_init=name)[1] ** 8, torch.ones(1, 4, dtype=torch.complex128))
    mixer = S4D(64, dt_min=1e-3, dt_max=0.1)
    dt = mixer.kernel.dt().detach()
    assert dt.min() >= 1e-3 * (1 - 1e-6)
    assert dt.max() <= 0.1 * (1 + 1e-6)
    assert abs(float(dt.log().mean()) - math.log(1e-2)) < 0.5
    assert float(S4D(64, dt_min=1e-5, dt_max=1e-4, dt_transform="softplus").kernel.dt().detach().max()) <= 1.001e-4
    # The zero frequency is stored as 1e-4, as published.
    assert float(mixer.kernel.A_imag.detach().min()) == pytest.approx(1e-4)
    C = torch.view_as_complex(S4D(512).kernel.C)
    assert float(C.detach().abs().square().mean()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", ["s4", "s4d", "dss"])
def test_own_learning_rates_and_no_weight_decay(name: str) -> None:
    mixer = create_mixer(name, 4, lr={"dt": None, "A": 2e-3, "B": 0})
    groups = parameter_groups(mixer, OptimizerConfig(lr=0.01, weight_decay=0.05))
    found = {key: (group["lr"], group["weight_decay"]) for group in groups for key in group["param_names"]}
    expected = {
        "layer.kernel.inv_dt": (0.01, 0.0),
        "layer.kernel.A_real": (2e-3, 0.0),
        "layer.kernel.A_imag": (2e-3, 0.0),
        "layer.kernel.C": (0.01, 0.05),
        "output_linear.0.weight": (0.01, 0.05),
        "output_linear.0.bias": (0.01, 0.0),
        "layer.D": (0.01, 0.0),
    }
    if name == "s4":
        expected["layer.kernel.P"] = (2e-3, 0.0)
    assert found == expected  # B is frozen
    defaults = parameter_groups(create_mixer(name, 4), OptimizerConfig(lr=0.01))
    assert {key for group in defaults if group["lr"] == 1e-3 for key in group["param_names"]} == {
        f"layer.kernel.{key}" for key in ("inv_dt", "A_real", "A_imag", "B", *(["P"] if name == "s4" else []))
    }


def test_default_devices_leave_no_trace() -> None:
    with torch.device("meta"):
        assert create_mixer("s4", 4, d_state=12).kernel.C.is_meta
    assert create_mixer("s4", 4, d_state=12)(torch.randn(1, 5, 4)).isfinite().all()


def test_dropout() -> None:
    mixer = create_mixer("s4d", 8, dropout=0.5, tie_dropout=True, activation="none", final_act="id")
    nn.init.eye_(mixer.output_linear[0].weight)
    nn.init.zeros_(mixer.output_linear[0].bias)
    x = torch.randn(4, 20, 8)
    dropped = mixer(x) == 0
    assert torch.equal(dropped.any(1), dropped.all(1))
    assert 0 < dropped.float().mean() < 1
    mixer.tie_dropout = False
    assert not torch.equal((dropped := mixer(x) == 0).any(1), dropped.all(1))
    assert not (mixer.eval()(x) == 0).any()


def test_unusual_inputs_stay_finite() -> None:
    """Step sizes far out, and a bilinear mode that dies at once (dt A = -2)."""
    mixer = create_mixer("s4d", 2, d_state=4, disc="bilinear", real_transform="none", imag_transform="none").double()
    with torch.no_grad():
        mixer.kernel.inv_dt.fill_(0)
        mixer.kernel.A_real.fill_(2)
        mixer.kernel.A_imag.fill_(0)
    x = torch.randn(1, 9, 2, dtype=torch.float64)
    y = mixer(x)
    y.sum().backward()
    assert y.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in mixer.parameters())
    for name in ("s4", "s4d"):
        mixer = create_mixer(name, 2, d_state=8)
        with torch.no_grad():
            mixer.kernel.inv_dt.copy_(torch.tensor([[-20.0], [10.0]]))
        y, state = mixer.prefill(torch.randn(1, 50, 2))
        assert y.isfinite().all()
        assert torch.view_as_real(state.ssm).isfinite().all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: S4D(4, init="diag-lim"), "initialisation 'diag-lim' is unknown; nearest: diag-lin"),
        (lambda: S4D(4, d_state=5), "state size is 5; expected an even number"),
        (lambda: S4D(4, disc="euler"), "disc is 'euler'"),
        (lambda: S4D(4, n_ssm=3), "n_ssm is 3; expected a divisor of d_model, 4"),
        (lambda: S4D(4, n_ssm=1, init="diag"), "needs a multiple of 2 copies of A, given 1"),
        (lambda: S4D(4, dt_min=0.2), "dt_min is 0.2 and dt_max 0.1"),
        (lambda: S4D(4, dt_transform="log"), "dt_transform is 'log'"),
        (lambda: S4D(4, B_init="ones"), "B_init is 'ones'"),
        (lambda: S4D(4, activation="geru"), "activation is 'geru'.*gelu"),
        (lambda: S4D(4, final_act="swiglu"), "final_act is 'swiglu'"),
        (lambda: S4D(4, dropout=1.0), "dropout is 1.0"),
        (lambda: S4D(4, l_max=0), "l_max is 0"),
        (lambda: S4D(4, rate=0), "rate is 0"),
        (lambda: S4D(4, lr={"C": 1.0}), "lr names 'C'"),
        (lambda: S4(4, init="legt"), "'legt' needs a correction of rank 2, given rank=1"),
        (lambda: S4(4, rank=0), "rank is 0"),
        (lambda: DSS(4, l_max=0), "l_max is 0"),
    ],
)
def test_bad_options(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_state_only_enters_forward() -> None:
    mixer = create_mixer("s4d", 4)
    x = torch.randn(1, 5, 4)
    with pytest.raises(ValueError, match="state was given to S4D with reverse or bidirectional"):
        mixer(x, state=mixer.init_state(1), reverse=True)
