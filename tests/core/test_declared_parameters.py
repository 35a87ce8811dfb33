"""What modules say of their parameters outlives copies, sharding and half precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from torch import nn

from longscan.core.declared_parameters import FullPrecision, declare, declared_names
from longscan.core.errors import UserError
from longscan.core.mixers import create_mixer
from longscan.core.state_spaces import set_kernel_length
from longscan.core.training.optimizer import OptimizerConfig, parameter_groups

#: The parameters that declare something, of each mixer.
DECLARED = {
    "s4": {f"layer.kernel.{name}" for name in ("inv_dt", "A_real", "A_imag", "B", "P")},
    "s4d": {f"layer.kernel.{name}" for name in ("inv_dt", "A_real", "A_imag", "B")},
    "dss": {f"layer.kernel.{name}" for name in ("inv_dt", "A_real", "A_imag", "B")},
    "s5": {"Lambda_re", "Lambda_im", "B", "log_step"},
    "lru": {"nu_log", "theta_log", "gamma_log", "B_re", "B_im"},
    "gss": {"A_re", "A_im"},
    "mega_ema": {"delta", "alpha", "beta"},
    "longconv": {"kernel"},
    "sgconv": {"weight"},
}
#: Those whose recurrence stays in float32.
RECURRENT = ("s4", "s4d", "dss", "s5", "lru", "gss", "mega_ema")


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """One process that believes it is several."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def found(model: nn.Module) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    groups = parameter_groups(model, OptimizerConfig(lr=0.01, weight_decay=0.05))
    return {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}


@pytest.mark.parametrize("name", DECLARED)
def test_groups_of_a_copy_and_of_replaced_parameters(name: str) -> None:
    mixer = create_mixer(name, 4, lr=2e-3)
    before = found(mixer)
    assert {key for key, value in before.items() if value == (2e-3, 0.0)} == DECLARED[name]
    assert set(declared_names(mixer)) == DECLARED[name]
    assert found(copy.deepcopy(mixer)) == before
    for module in mixer.modules():
        for key, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, key, nn.Parameter(parameter.detach().clone()))
    assert found(mixer) == before


def test_groups_of_sharded_parameters(process_group: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mixer = create_mixer("s4d", 4, lr=2e-3)
    before = found(mixer)
    fully_shard(mixer, mesh=init_device_mesh("cpu", (1,)))
    assert type(mixer.layer.kernel.inv_dt.data).__name__ == "DTensor"
    assert found(mixer) == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", RECURRENT)
@torch.no_grad()
def test_half_precision_leaves_the_recurrence(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mixer = create_mixer(name, 4, **({"l_max": 64} if name == "dss" else {})).eval()
    half = copy.deepcopy(mixer).to(dtype)
    kept = DECLARED[name] | ({"layer.kernel.C"} if name in ("s4", "s4d", "dss") else set())
    for key, parameter in half.named_parameters():
        assert parameter.dtype == (torch.float32 if key in kept else dtype), key
        if key in kept:
            assert torch.equal(parameter, mixer.get_parameter(key))
    x = torch.randn(1, 50, 4)
    y = half(x.to(dtype))
    assert y.dtype == dtype
    assert torch.allclose(y.float(), mixer(x), atol=0.05 * float(mixer(x).abs().max()) + 0.02)
    assert half.double().get_parameter(next(iter(kept))).dtype == torch.float64


def test_gradients_follow_their_parameters_into_half_precision() -> None:
    mixer = create_mixer("s4d", 4)
    mixer(torch.randn(1, 8, 4)).sum().backward()
    before = mixer.layer.kernel.inv_dt.grad.clone()
    mixer.bfloat16()
    assert torch.equal(mixer.layer.kernel.inv_dt.grad, before)
    assert mixer.output_linear[0].weight.grad.dtype == torch.bfloat16
    with torch.device("meta"):
        assert create_mixer("s4d", 4).bfloat16().layer.kernel.inv_dt.dtype == torch.float32


def test_declarations() -> None:
    class Slow(FullPrecision):
        def __init__(self) -> None:
            super().__init__()
            self.pole, self.frozen, self.other = (nn.Parameter(torch.ones(2)) for _ in range(3))
            declare(self, "pole", lr=1e-4)
            declare(self, "frozen", lr=0)

    model = nn.Sequential(Slow(), nn.Linear(2, 2))
    assert found(model)["0.pole"] == (1e-4, 0.0)
    assert "0.frozen" not in found(model)
    assert found(model)["0.other"] == (0.01, 0.05)
    assert {key for key, value in model.half().named_parameters() if value.dtype == torch.float32} == {
        "0.pole",
        "0.frozen",
    }


def test_an_s4_kernel_must_not_grow_in_distributed_training(process_group: None) -> None:
    model = nn.Sequential(create_mixer("s4", 4, d_state=8, l_max=100), nn.Linear(4, 4))
    with pytest.raises(UserError, match=r"length 30 .* made for 0, .*set_kernel_length\(model, length\)"):
        model(torch.randn(1, 30, 4))
    set_kernel_length(model, 40)
    before = model[0].kernel.C.detach().clone()
    for length in (40, 7):
        assert model(torch.randn(1, length, 4)).isfinite().all()
    assert torch.equal(model[0].kernel.C, before)
    with pytest.raises(UserError, match=r"length 41 .* made for 40"):
        model(torch.randn(1, 41, 4))
    set_kernel_length(model, 500)  # no kernel is longer than l_max
    assert int(model[0].kernel.l_kernel) == 160  # 40, doubled until 100 is reached
    model(torch.randn(1, 300, 4))


def test_the_kernel_length_of_a_rate() -> None:
    mixer = create_mixer("s4", 4, d_state=8, rate=2.0)
    set_kernel_length(mixer, 30)
    assert int(mixer.kernel.l_kernel) == 60
    mixer(torch.randn(1, 30, 4))
    assert int(mixer.kernel.l_kernel) == 60
