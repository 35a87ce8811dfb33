"""What S5, LRU, LongConv, SGConv, MegaEMA and GSS share: recurrent forms at length, precision, optimiser, contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mixer_contract import build, check_contract
from torch import Tensor, nn

from longscan.core.mixers import convolution, create_mixer, diagonal_system, gss, mega_ema
from longscan.core.training.optimizer import OptimizerConfig, parameter_groups

LENGTH = 4096

LONG: list[tuple[str, dict[str, Any]]] = [
    ("s5", {}),
    ("lru", {"r_min": 0.99, "r_max": 0.9999}),
    ("longconv", {"max_length": 500}),
    ("longconv", {"max_length": LENGTH}),
    ("sgconv", {"max_length": LENGTH}),
    ("mega_ema", {}),
    ("gss", {"d_state": 32}),
]


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("name, options", LONG)
def test_steps_equal_the_parallel_form(
    name: str, options: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    mixer = create_mixer(name, 4, **options).to(dtype).eval()
    x = torch.randn(1, LENGTH, 4, dtype=dtype)
    with torch.no_grad():
        whole, rows = mixer(x), []
        state = mixer.init_state(1)
        for t in range(LENGTH):
            y, state = mixer.step(x[:, t], state)
            rows.append(y)
        assert (torch.stack(rows, 1) - whole).abs().max() <= tolerance * whole.abs().max()
        _, state = mixer.prefill(x[:, :1500])
        rest, _ = mixer.prefill(x[:, 1500:], state)
        assert (rest - whole[:, 1500:]).abs().max() <= tolerance * whole.abs().max()


#: Option sets beside the defaults, for the contract of every mixer.
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("s5", {"d_state": 12, "blocks": 3, "discretization": "bilinear", "activation": "half_glu1", "rate": 2.0}),
    ("s5", {"d_state": 8, "conjugate_symmetry": False, "C_init": "lecun_normal", "activation": "none"}),
    ("s5", {"d_state": 8, "bidirectional": True, "C_init": "complex_normal", "activation": "half_glu2"}),
    ("lru", {"d_state": 5, "r_min": 0.9, "r_max": 0.999, "max_phase": 0.3, "activation": "gelu"}),
    ("longconv", {"max_length": 12, "init": "random", "lam": 0.0, "activation": "none"}),
    ("longconv", {"max_length": 1}),
    ("longconv", {"max_length": 50, "bidirectional": True}),
    ("sgconv", {"max_length": 30, "kernel_dim": 4, "decay": 1.5, "activation": "full_glu"}),
    ("sgconv", {"max_length": 64, "kernel_dim": 8, "bidirectional": True}),
    ("mega_ema", {"ndim": 1, "activation": "none"}),
    ("mega_ema", {"ndim": 3, "bidirectional": True}),
    ("gss", {"d_state": 3, "gate": 1, "bottleneck": 1, "rate": 0.5}),
    ("bidirectional", {"mixer": {"name": "s5", "d_state": 6}}),
    ("bidirectional", {"tie": "all", "mixer": "gss"}),
]


@pytest.mark.parametrize("name, options", VARIANTS)
def test_contract_of_variants(name: str, options: dict[str, Any]) -> None:
    # Dropout of the kernel is off in eval, so that LongConv needs no option here.
    check_contract(lambda dtype: build(name, options, dtype), f"{name} {options}")


@pytest.mark.parametrize(
    "name, module, operator",
    [
        ("s5", diagonal_system, "linear_scan"),
        ("lru", diagonal_system, "linear_scan"),
        ("longconv", convolution, "long_conv"),
        ("sgconv", convolution, "long_conv"),
        ("mega_ema", mega_ema, "long_conv"),
        ("gss", gss, "long_conv"),
    ],
)
def test_mixed_precision_keeps_the_recurrence_in_float32(
    name: str, module: Any, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under autocast every tensor of the operator, and the state, has float32 parts, in both forms."""
    mixer = create_mixer(name, 8).eval()
    seen: list[Tensor] = []
    original = getattr(module, operator)

    def watched(*tensors: Tensor, **options: Any) -> Any:
        seen.extend(tensors)
        return original(*tensors, **options)

    monkeypatch.setattr(module, operator, watched)
    x = torch.randn(2, 30, 8)
    with torch.no_grad():
        expected, expected_state = mixer.prefill(x)
        exact = seen.copy()
        seen.clear()
        with torch.autocast("cpu", torch.bfloat16):
            y, state = mixer.prefill(x)
            assert len(seen) == len(exact) >= 2
            assert all(tensor.dtype in (torch.float32, torch.complex64) for tensor in seen)
            if name != "gss":  # whose input is a projection, and so in bfloat16
                assert all(torch.equal(a, b) for a, b in zip(seen, exact, strict=True))
                leaves = zip(state, expected_state, strict=True)
                assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in leaves)
            assert (y - expected).abs().max() < 0.05 * expected.abs().max()
            _, state = mixer.step(x[:, 0].bfloat16(), mixer.init_state(2))
        leaves = [leaf for leaf in state if isinstance(leaf, Tensor)]
        assert all(leaf.dtype in (torch.float32, torch.complex64) for leaf in leaves)


@pytest.mark.parametrize(
    "name, own",
    [
        ("s5", {"Lambda_re", "Lambda_im", "B", "log_step"}),
        ("lru", {"nu_log", "theta_log", "gamma_log", "B_re", "B_im"}),
        ("longconv", {"kernel"}),
        ("sgconv", {"weight"}),
        ("mega_ema", {"delta", "alpha", "beta"}),
        ("gss", {"A_re", "A_im"}),
    ],
)
def test_learning_rate_of_the_recurrence(name: str, own: set[str]) -> None:
    """Its parameters have a learning rate of their own (or the global one) and no weight decay."""
    config = OptimizerConfig(lr=0.01, weight_decay=0.1)
    for lr in (None, 0.002):
        model = nn.ModuleDict({"mixer": create_mixer(name, 8, lr=lr)})
        groups = parameter_groups(model, config)
        found = {n.split(".")[-1]: g for g in groups for n in g["param_names"] if n.count(".") == 1}
        for parameter, group in found.items():
            if parameter in own:
                assert (group["lr"], group["weight_decay"]) == (lr or 0.01, 0.0)
            else:
                assert group["lr"] == 0.01
        assert own <= set(found)
