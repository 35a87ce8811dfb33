"""S4 kernels are made for the longest sample before several processes train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as distributed

import longscan
from longscan.audio.data.autoregressive import AudioTokenDataModule
from longscan.audio.data.classification import AudioClassificationDataModule
from longscan.core.state_spaces import DPLRKernel, set_kernel_length
from longscan.core.training.module import longest_sample


@pytest.fixture
def single_process() -> Iterator[None]:
    """Leaves no process group behind."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def lengths(model: torch.nn.Module) -> list[int]:
    return [int(module.l_kernel) for module in model.modules() if isinstance(module, DPLRKernel)]


def test_each_level_of_a_multi_rate_stack_has_its_own_length() -> None:
    options = {"d_model": 4, "n_layers": 1, "d_state": 4, "mixer": "s4", "pool": (2, 4)}
    model, other = (longscan.create_model("sashimi", **options).eval() for _ in range(2))
    set_kernel_length(model, 61)  # padded to 64
    assert lengths(model) == [8, 32, 64]
    other.load_state_dict(model.state_dict())
    other(torch.zeros(1, 61, dtype=torch.long))
    assert lengths(other) == [8, 32, 64]
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name))


def test_the_longest_sample(sounds: Path) -> None:
    data = AudioTokenDataModule(folder=str(sounds / "classes"), length=128, eval_length=300, pad_multiple=64)
    data.setup("fit")
    assert data.longest_sample() == 320
    whole = AudioClassificationDataModule(folder=str(sounds / "classes"))
    whole.setup()
    assert whole.longest_sample() == 476
    assert longest_sample(whole) == 476
    # Of modules that do not tell it, the first samples.
    plain = type("Plain", (), {"train_set": [{"input_ids": [0] * 5}], "val_set": {"a": [{"input_ids": [0] * 7}]}})
    assert longest_sample(plain()) == 7
    assert longest_sample(type("Nothing", (), {})()) is None


def test_distributed_training_of_whole_recordings(
    command: Any, sounds: Path, fit_classes: str, single_process: None
) -> None:
    line = fit_classes.replace("--data.length 400", "--data.length null").replace("max_epochs 6", "max_epochs 1")
    line = line.replace("d_state: 16}", "d_state: 16, mixer: s4}")
    outcome = command(f"{line} --data.folder {sounds}/classes --trainer.strategy ddp --trainer.devices 1")
    assert outcome.status == 0, outcome.err
    assert set(lengths(longscan.from_pretrained("run/model"))) == {476}
