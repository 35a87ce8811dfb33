"""The contract of every sequence mixer, run over the whole registry.

A mixer registered later is covered with its default options without a change here; further option sets go into
``OPTIONS``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mixer_contract import D_MODEL, LENGTH, build, check_contract, near
from torch import Tensor, nn

from longscan.core.errors import UserError
from longscan.core.mixers import SequenceMixer, base, clone_state, create_mixer, list_mixers, register_mixer

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
