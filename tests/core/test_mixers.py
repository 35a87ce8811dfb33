"""The contract of every sequence mixer, run over the whole registry.

``check_contract`` takes any mixer. A mixer registered later is covered with its default options without a change here;
further option sets go into ``OPTIONS``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from longscan.core.errors import UserError
from longscan.core.mixers import SequenceMixer, base, clone_state, create_mixer, list_mixers, register_mixer

D_MODEL = 24
LENGTH = 37
#: Pieces of one token, pieces shorter than every short convolution, and long ones; they sum to LENGTH.
PIECES = (1, 2, 1, 16, 3, 14)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
#: A domain's own mixers, which may need the shape of an image, have their tests there.
CORE_MIXERS = [name for name in list_mixers() if base._MIXERS[name].__module__.startswith("longscan.core.")]

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "mamba": [
        {},
        {"d_conv": 3, "bias": True, "dt_rank": 5},
        {"conv_bias": False, "d_state": 1, "expand": 1.5},
        {"d_conv": 1, "dt_init": "constant"},
    ],
    "hyena": [
        {},
        {"max_length": LENGTH},
        {"order": 3, "max_length": 50, "short_filter_order": 4},
        {"bias": False, "emb_dim": 3, "num_inner_mlps": 0, "shift": 0.0, "filter_order": 7},
    ],
    "hydra": [
        {},
        {"d_state": 5, "headdim": 12, "ngroups": 2, "learnable_init_states": True, "bias": True, "d_conv": 3},
        {"tie_directions": True, "headdim": 8, "conv_bias": False, "dt_limit": (0.01, 0.5)},
    ],
    "attention": [
        {},
        {"n_heads": 4, "n_kv_heads": 2, "rotary_fraction": 0.5, "bias": True},
        {"n_heads": 3, "head_dim": 6, "rotary": False},
        {"window": 1},
        {"window": 5, "n_heads": 4, "n_kv_heads": 1},
        {"window": LENGTH, "n_heads": 2},
        {"window": LENGTH + 20, "n_heads": 2},
        {"causal": False, "n_heads": 2},
        {"causal": False, "window": 6, "n_heads": 4, "n_kv_heads": 2},
    ],
    "mlstm": [
        {},
        {"n_heads": 2, "qk_factor": 1.0, "chunk": 8, "bias": True},
        {"n_heads": 3, "v_factor": 2.0, "chunk": 5, "gate_soft_cap": None, "eps": 0.0},
    ],
    "gated_delta_product": [
        {},
        {"n_heads": 2, "n_householder": 3, "chunk": 5, "learned_state": True, "conv_bias": True},
        {"n_householder": 1, "head_dim": 7, "expand_v": 2.0, "d_conv": 1, "negative_eigenvalues": False},
        {"n_heads": 3, "forget_gate": False, "output_gate": False, "chunk": 64},
    ],
    "slstm": [
        {},
        {"n_heads": 1, "norm": False},
        {"n_heads": 6, "norm": False, "projection": False},
    ],
    "bidirectional": [
        {},
        {"mixer": "mlstm"},
        {"tie": "all", "mixer": {"name": "slstm", "n_heads": 2}},
        {"tie": "projections"},
        {"tie": "projections", "combine": "average"},
        {"tie": "projections", "combine": "multiply", "mixer": {"name": "mamba", "bias": True}},
        {"tie": "projections", "mixer": {"name": "mamba", "bias": True}},
        {"tie": "all", "combine": "average"},
        {"tie": "none", "combine": "multiply", "mixer": {"name": "mamba", "d_conv": 2}},
        {"tie": "all", "mixer": {"name": "attention", "window": 4}},
        {"mixer": {"name": "hyena", "max_length": 64, "order": 3}},
    ],
}


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


CASES = [(name, options) for name in CORE_MIXERS for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize("name, options", CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])
def test_contract(name: str, options: dict[str, Any]) -> None:
    check_contract(lambda dtype: build(name, options, dtype), f"{name} {options}")


def test_a_new_mixer_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_MIXERS", dict(base._MIXERS))

    @register_mixer("running_mean")
    class RunningMean(SequenceMixer):
        """Mean of all tokens so far; the state is their sum and number."""

        supports_reverse = True

        def __init__(self, d_model: int, leak: float = 0.0) -> None:
            super().__init__()
            self.proj, self.leak = nn.Linear(d_model, d_model), leak

        def forward(self, x, *, state=None, cu_seqlens=None, reverse=False):
            if cu_seqlens is not None:
                lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
                return torch.cat([self(part, reverse=reverse) for part in x.split(lengths, 1)], 1)
            if reverse:
                return self(x.flip(1)).flip(1)
            return self.prefill(x, state)[0] + self.leak * x.mean(1, keepdim=True)

        def prefill(self, x, state=None):
            total, count = state or self.init_state(len(x), dtype=x.dtype)
            sums = total[:, None] + self.proj(x).cumsum(1)
            numbers = count + torch.arange(1, x.shape[1] + 1)
            return sums / numbers[None, :, None], (sums[:, -1], count + x.shape[1])

        def init_state(self, batch_size, device=None, dtype=None):
            return torch.zeros(batch_size, D_MODEL, dtype=dtype or self.proj.weight.dtype), 0

        def step(self, x_t, state):
            y, state = self.prefill(x_t[:, None], state)
            return y[:, 0], state

    assert "running_mean" in list_mixers()
    check_contract(lambda dtype: build("running_mean", {}, dtype))
    with pytest.raises(AssertionError):  # and one that breaks the contract is caught
        check_contract(lambda dtype: build("running_mean", {"leak": 0.1}, dtype))
    with pytest.raises(ValueError, match="registered already, by RunningMean"):
        register_mixer("running_mean")(RunningMean)


def test_prefill_leaves_its_state_alone() -> None:
    for name in CORE_MIXERS:
        mixer = build(name, {})
        if not mixer.causal:
            continue
        x = torch.randn(2, 9, D_MODEL)
        with torch.no_grad():
            _, state = mixer.prefill(x)
            before = clone_state(state)
            mixer.prefill(x, state)
            mixer(x, state=state)
        leaves, _ = torch.utils._pytree.tree_flatten(state)
        kept, _ = torch.utils._pytree.tree_flatten(before)
        assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(leaves, kept, strict=True))


def test_packed_states_carry_into_each_sequence() -> None:
    mixer = build("mamba", {})
    x = torch.randn(1, 12, D_MODEL)
    bounds = torch.tensor([0, 5, 12])
    with torch.no_grad():
        heads = torch.randn(2, 6, D_MODEL)
        state = mixer.prefill(heads)[1]
        packed = mixer(x, state=state, cu_seqlens=bounds)
        for i, part in enumerate(x.split((5, 7), 1)):
            one = mixer.prefill(heads[i : i + 1])[1]
            near(packed[:, bounds[i] : bounds[i + 1]], mixer(part, state=one), 1e-5)


def test_bidirectional_against_its_parts() -> None:
    x = torch.randn(2, 19, D_MODEL)
    for tie in ("none", "projections", "all"):
        for combine in ("add", "average", "multiply"):
            for bias in (False, True):
                both = build(
                    "bidirectional", {"tie": tie, "combine": combine, "mixer": {"name": "mamba", "bias": bias}}
                )
                left = both.forward_mixer
                right = left if tie == "all" else both.reverse_mixer
                a, b = left(x), right(x.flip(1)).flip(1)
                expected = a * b if combine == "multiply" else (a + b) / (2 if combine == "average" else 1)
                near(both(x), expected, 1e-5, f"{tie} {combine} {bias}")
                n_parameters = sum(p.numel() for p in both.parameters())
                one = sum(p.numel() for p in left.parameters())
                projections = sum(p.numel() for m in (left.in_proj, left.out_proj) for p in m.parameters())
                assert n_parameters == {"none": 2 * one, "projections": 2 * one - projections, "all": one}[tie]


def test_state_where_it_cannot_be_carried() -> None:
    x = torch.randn(1, 8, D_MODEL)
    bounds = torch.tensor([0, 3, 8])
    for name in ("attention", "hyena"):
        mixer = build(name, {})
        state = mixer.init_state(1)
        with pytest.raises(ValueError, match="cu_seqlens or reverse"):
            mixer(x, state=state, cu_seqlens=bounds)
        with pytest.raises(ValueError, match="cu_seqlens or reverse"):
            mixer(x, state=state, reverse=True)
    with pytest.raises(ValueError, match="bidirectional mixer"):
        build("bidirectional", {})(x, state=object())


def test_hyena_filters_against_the_formula() -> None:
    """Nguyen et al. 2023: grid, sines, window and shift, written out position by position in float64."""
    mixer = build("hyena", {"max_length": 20, "order": 3, "emb_dim": 5, "filter_order": 6}, torch.float64)
    filters = mixer.filter
    kernel = filters(11)
    assert kernel.shape == (2 * D_MODEL, 11)
    rates = torch.linspace(-3.0701134573253943, -15.350567286626973, 2 * D_MODEL, dtype=torch.float64)
    for s in range(11):
        t, w = s / 19, 2 * torch.pi * s / 20
        f = torch.tensor([1e-4, 1.0], dtype=torch.float64)
        a = torch.cat([torch.tensor([t], dtype=torch.float64), (f * w).cos(), -(f * w).sin()])
        for layer in filters.layers:
            a = torch.sin(filters.freq[0] * (layer.weight @ a + layer.bias))
        expected = (filters.out.weight @ a) * (torch.exp(-t * rates.abs()) + 0.05)
        assert (kernel[:, s] - expected).abs().max() < 1e-12


def test_hyena_against_a_direct_sum() -> None:
    """The operator of order 3 with its convolutions written as sums (facts: the last chunk is the value)."""
    mixer = build("hyena", {"max_length": 12, "order": 3}, torch.float64)
    x = torch.randn(1, 9, D_MODEL, dtype=torch.float64)
    with torch.no_grad():
        u = mixer.in_proj(x)[0]
        w = mixer.short_filter.weight[:, 0]
        padded = torch.cat([u.new_zeros(2, u.shape[1]), u])
        u = torch.stack([(padded[t : t + 3] * w.T).sum(0) for t in range(9)]) + mixer.short_filter.bias
        x0, x1, x2, v = u.split(D_MODEL, -1)
        kernels, skips = mixer.filter(9).split(D_MODEL), mixer.filter.skip.split(D_MODEL)
        for gate, kernel, skip in zip((x2, x1), kernels, skips, strict=True):
            v = v * gate
            v = torch.stack([sum(kernel[:, s] * v[t - s] for s in range(t + 1)) for t in range(9)]) + skip * v
        expected = mixer.out_proj(v * x0)
        near(mixer(x)[0], expected, 1e-12)


def test_mamba_against_its_equations() -> None:
    """Gu and Dao 2023, section 3.4, one token and one channel at a time in float64."""
    mixer = build("mamba", {"bias": True, "d_state": 3, "dt_rank": 2}, torch.float64)
    x = torch.randn(7, D_MODEL, dtype=torch.float64)
    with torch.no_grad():
        u, z = mixer.in_proj(x).chunk(2, -1)
        padded = torch.cat([u.new_zeros(3, u.shape[1]), u])
        u = torch.stack([(padded[t : t + 4] * mixer.conv1d.weight[:, 0].T).sum(0) for t in range(7)])
        u = nn.functional.silu(u + mixer.conv1d.bias)
        d, b, c = mixer.x_proj(u).split([2, 3, 3], -1)
        dt = nn.functional.softplus(mixer.dt_proj(d))
        a = -mixer.A_log.exp()
        state, rows = torch.zeros_like(a), []
        for t in range(7):
            state = torch.exp(dt[t, :, None] * a) * state + (dt[t] * u[t])[:, None] * b[t]
            rows.append(state @ c[t] + mixer.D * u[t])
        expected = mixer.out_proj(torch.stack(rows) * nn.functional.silu(z))
        near(mixer(x[None])[0], expected, 1e-12)


def test_longer_than_the_filters() -> None:
    mixer = build("hyena", {"max_length": 16})
    x = torch.randn(1, 17, D_MODEL)
    with torch.no_grad():
        mixer(x[:, :16])
        with pytest.raises(ValueError, match=r"17 tokens is longer than .*max_length 16"):
            mixer(x)
        with pytest.raises(ValueError, match="max_length 16"):
            mixer.prefill(x)
        _, state = mixer.prefill(x[:, :16])
        with pytest.raises(ValueError, match="max_length 16"):
            mixer.step(x[:, 16], state)
        with pytest.raises(ValueError, match="max_length 16"):
            mixer.prefill(x[:, :1], state)
        packed = mixer(torch.randn(1, 40, D_MODEL), cu_seqlens=torch.tensor([0, 16, 30, 40]))
        assert packed.shape == (1, 40, D_MODEL)  # each sequence counts for itself


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("mambo", {}, r"mixer 'mambo' is unknown; nearest: mamba"),
        ("mamba", {"d_stat": 4}, r"mixer 'mamba': .*d_stat"),
        ("mamba", {"dt_init": "zero"}, r"dt_init is 'zero'; expected 'random' or 'constant'"),
        ("hyena", {"order": 1}, r"order is 1"),
        ("hyena", {"emb_dim": 4}, r"emb_dim is 4; expected an odd number"),
        ("attention", {"n_heads": 5}, r"d_model 24 is no multiple of n_heads 5"),
        ("attention", {"n_heads": 4, "n_kv_heads": 3}, r"n_heads 4 is no multiple of n_kv_heads 3"),
        ("attention", {"window": 0}, r"window is 0"),
        ("bidirectional", {"tie": "some"}, r"tie is 'some'"),
        ("bidirectional", {"combine": "subtract"}, r"combine is 'subtract'"),
        ("bidirectional", {"mixer": "mambo"}, r"mixer 'mambo' is unknown"),
        ("bidirectional", {"mixer": "bidirectional"}, r"cannot run in reverse"),
        ("bidirectional", {"mixer": "attention", "tie": "projections"}, r"no projections to tie"),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        create_mixer(name, D_MODEL, **options)
    assert "\n" not in str(caught.value)


def test_defaults_work_at_any_width() -> None:
    for name in CORE_MIXERS:
        for d_model in (1, 2, 7, 48, 130):
            assert create_mixer(name, d_model)(torch.randn(1, 5, d_model)).shape == (1, 5, d_model)


@pytest.mark.parametrize(
    "name, options",
    [*((name, {}) for name in CORE_MIXERS), ("bidirectional", {"tie": "projections"}), ("attention", {"window": 5})],
)
def test_compiles_without_graph_breaks(name: str, options: dict[str, Any]) -> None:
    mixer = build(name, options)
    compiled = torch.compile(mixer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 11, D_MODEL)
    expected = mixer(x)
    expected.square().mean().backward()
    grads = {key: value.grad.clone() for key, value in mixer.named_parameters()}
    mixer.zero_grad()
    got = compiled(x)
    got.square().mean().backward()
    near(got, expected, 1e-5)
    for key, value in mixer.named_parameters():
        assert (value.grad - grads[key]).abs().max() <= 1e-4 * grads[key].abs().max() + 1e-7, key
