"""Every packaged configuration of the vision domain: it parses, and what it names can be built and asked."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_files import write_classes, write_pairs

import longscan
from longscan.core.training.data import ResumableDataModule
from longscan.core.training.module import TrainingModule
from longscan.core.training.optimizer import parameter_groups
from longscan.core.training.run_files import packaged_configs
from longscan.core.training.verbs import Request, TrainingCLI
from longscan.vision import tasks  # noqa: F401  (configurations call classes by bare names)
from longscan.vision.data import classification, pixels, segmentation  # noqa: F401  (likewise)

CONFIGS = {name: path for name, path in packaged_configs().items() if name.startswith("vision/")}

#: Parameters of the model that each describes; Vim-tiny has the published number at 1,000 classes, here there are two.
PARAMETERS = {
    "vision/cifar10_deit": 5_129_498,
    "vision/cifar10_sequential_mamba": 3_864_330,
    "vision/cifar10_sequential_s4d": 1_192_970,
    "vision/cifar10_vim": 5_192_842,
    "vision/imagenet_vim_tiny": 7_148_008 - 998 * 193,
    "vision/imagenet_vim_tiny_finetune": 7_250_344 - 998 * 193,
    "vision/pixels_autoregressive": 5_388_032,
    "vision/quickstart": 38_986,
    "vision/segmentation": 7_280_258,
}


def parsed(name: str, *more: str) -> Any:
    """What ``fit`` makes of a configuration: trainer, task and data, nothing run."""
    cpu = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.precision", "32"]
    request = Request(
        "fit", ["--config", str(CONFIGS[name]), *cpu, *more], "vision", (), None, name, Path("run"), None, None
    )
    return TrainingCLI(request, TrainingModule, ResumableDataModule)


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that configurations leave to their user, made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["longscan"])
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array([f"class{index}" for index in range(10)])}
    for split, count in (("train", 60), ("test", 10)):
        arrays[f"x_{split}"] = generator.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        arrays[f"y_{split}"] = np.arange(count) % 10
    np.savez(tmp_path / "cifar10.npz", **arrays)
    write_classes(tmp_path / "imagenet" / "train", 4)
    write_classes(tmp_path / "imagenet" / "val", 2)
    write_pairs(tmp_path / "segmentation")


def building(cli: Any) -> torch.nn.Module:
    """The model that the task builds for the data."""
    cli.datamodule.setup("fit")
    state = SimpleNamespace(fn="fit")
    cli.model.trainer = SimpleNamespace(datamodule=cli.datamodule, state=state, ckpt_path=None)
    cli.model.card = cli.model.describe(cli.datamodule)
    return cli.model.create(cli.model.fitting_options())


def test_the_list_is_complete() -> None:
    assert sorted(CONFIGS) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_it_can_be_built(name: str, tmp_path: Path) -> None:
    """Classes and options exist, the model has the size meant, and the data are there."""
    more = []
    if name == "vision/imagenet_vim_tiny_finetune":
        longscan.create_model("vim_tiny_patch16_224", num_classes=3).save_pretrained(tmp_path / "weights")  # type: ignore[operator]
        more = ["--model.pretrained", "weights"]
    cli = parsed(name, "--data.num_workers", "0", "--data.batch_size", "2", *more)
    model = building(cli)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    batch = next(iter(cli.datamodule.train_dataloader()))
    assert batch["input_ids"].dtype in (torch.uint8, torch.int64)
    assert len(batch["labels"]) == 2


#: Of each: a model that trains in a blink.
_VIM = "embed_dim: 8, depth: 1, d_state: 4"
_CIFAR = "--data.cache false"
TINY = {
    "vision/cifar10_deit": ("", "embed_dim: 8, depth: 1, num_heads: 2, patch_size: 16, stem: convolutions"),
    "vision/cifar10_sequential_mamba": (_CIFAR, "backbone: {d_model: 4, layers: [vim], repeat: 1}"),
    "vision/cifar10_sequential_s4d": ("", "backbone: {d_model: 4, layers: [s4d], repeat: 1}"),
    "vision/cifar10_vim": ("", f"{_VIM}, patch_size: 8, stem: convolutions"),
    "vision/imagenet_vim_tiny": ("--data.img_size 32", _VIM),
    "vision/imagenet_vim_tiny_finetune": ("--data.img_size 32 --model.pretrained weights", "patch_stride: 8"),
    "vision/pixels_autoregressive": ("", "backbone: {d_model: 4, layers: [mamba], repeat: 1}"),
    "vision/quickstart": ("--data.limit_train 8", f"{_VIM}, patch_size: 2"),
    "vision/segmentation": ("--data.img_size 32", _VIM),
}


@pytest.mark.parametrize("name", TINY)
def test_it_trains(name: str) -> None:
    """One step, an evaluation, and a checkpoint by the metric that it monitors."""
    from longscan.vision.training import fit

    more, options = TINY[name]
    if name == "vision/imagenet_vim_tiny_finetune":
        small: Any = longscan.create_model("Vim", embed_dim=8, depth=1, d_state=4, img_size=32, num_classes=3)
        small.save_pretrained("weights")
    line = f"--config {name} --output run --trainer.accelerator cpu --trainer.devices 1 --trainer.precision 32"
    line += " --trainer.max_steps 1 --trainer.max_epochs 1 --trainer.enable_progress_bar false"
    line += " --trainer.limit_val_batches 1 --trainer.limit_train_batches 1 --trainer.check_val_every_n_epoch 1"
    line += " --model.schedule.total_steps 10000"  # longer than any warm-up
    line += f" --data.num_workers 0 --data.batch_size 3 --data.eval_batch_size 2 {more}"
    model = ["--model.model", "PixelClassifier"] if "sequential" in name else []
    assert fit([*line.split(), *model, "--model.options", f"{{{options}}}"]) == 0
    assert (Path("run") / "checkpoints" / "best.ckpt").is_file()
    assert (Path("run") / "model" / "vision.json").is_file()


def test_published_recipes() -> None:
    """The numbers of the paper's code that configurations claim to repeat."""
    cli = parsed("vision/imagenet_vim_tiny")
    optimizer, schedule, mixing = cli.model.optimizer_config, cli.model.schedule_config, cli.model.mixing
    assert (optimizer.name, optimizer.lr, optimizer.weight_decay) == ("adamw", 1e-3, 0.1)
    # Warm-up over five epochs of 1,281,167 images, 1,024 a step.
    assert (schedule.warmup_steps, schedule.warmup_start_lr, schedule.min_lr) == (5 * 1281167 // 1024, 1e-6, 1e-5)
    assert (mixing.mixup, mixing.cutmix, mixing.switch, mixing.erasing) == (0.8, 1.0, 0.5, 0.25)
    assert (cli.model.label_smoothing, cli.trainer.max_epochs, cli.datamodule.batch_size * 8) == (0.1, 300, 1024)
    assert cli.datamodule.augmentation.auto_augment == "rand-m9-mstd0.5-inc1"
    cli = parsed("vision/imagenet_vim_tiny_finetune")
    assert (cli.model.optimizer_config.lr, cli.model.schedule_config.name, cli.trainer.max_epochs) == (
        1e-5,
        "constant",
        30,
    )


def test_the_compared_recipes_are_one() -> None:
    """DeiT and Vim differ in the model alone."""
    vim, deit = (parsed(f"vision/cifar10_{name}").config.as_dict() for name in ("vim", "deit"))
    assert vim["data"] == deit["data"]
    for config in (vim, deit):
        for key in ("model", "options"):
            assert config["model"]["init_args"].pop(key)
    assert vim["model"] == deit["model"]
    assert {key: value for key, value in vim.items() if key != "config"} == {
        key: value for key, value in deit.items() if key != "config"
    }


def test_positions_are_not_decayed() -> None:
    for name in ("vision/cifar10_vim", "vision/cifar10_deit"):
        cli = parsed(name, "--data.num_workers", "0")
        groups = parameter_groups(building(cli), cli.model.optimizer_config)
        decayed = {name for group in groups if group["weight_decay"] for name in group["param_names"]}
        assert decayed
        assert not any("pos_embed" in name or "A_log" in name or "bias" in name for name in decayed)
