"""Freezing and layer-wise learning rates: exact names, exact factors, frozen values bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import longscan
from longscan.core.errors import UserError
from longscan.core.training.finetuning import FinetuningConfig, frozen_parameters, layer_factors
from longscan.core.training.optimizer import OptimizerConfig, parameter_groups
from longscan.core.training.schedule import ScheduleConfig
from longscan.core.training.tasks import ClassificationTask

EMBEDDING = "embedding.weight"


def classifier(**options: Any) -> nn.Module:
    shape = {"d_model": 8, "n_layer": 3, "d_state": 4, "head": "classification", "num_classes": 2} | options
    return longscan.create_model("caduceus_ph_1k_d118", **shape)


def train(task: ClassificationTask, steps: int = 3) -> None:
    """Take some steps without a trainer."""
    optimizer = torch.optim.AdamW(parameter_groups(task.model, task.optimizer_config), lr=0.01)
    task.train()
    for step in range(steps):
        ids = torch.randint(7, 11, (4, 20), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        task.loss({"input_ids": ids, "labels": torch.tensor([0, 1, 0, 1])}).backward()
        optimizer.step()


def blocks(names: set[str]) -> set[int]:
    return {int(name.split(".")[2]) for name in names if name.startswith("backbone.layers.")}


def test_shorthands_name_the_right_parameters() -> None:
    model = classifier()
    every = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    head = {"head.output.weight"}
    assert frozen_parameters(model, ["embedding"]) == {EMBEDDING}
    assert frozen_parameters(model, ["backbone"]) == every - head
    first = frozen_parameters(model, ["first:2"])
    assert blocks(first) == {0, 1}
    assert EMBEDDING in first
    assert "backbone.final_norm.weight" not in first
    assert blocks(frozen_parameters(model, ["backbone.layers.2"])) == {2}
    assert frozen_parameters(model, ["*.A_log"]) == {name for name in every if name.endswith(".A_log")}


def test_a_shared_parameter_is_frozen_under_all_its_names() -> None:
    frozen = frozen_parameters(classifier(n_layer=1), ["*.reverse_mixer.in_proj.weight"])
    assert frozen == {f"backbone.layers.0.mixer.{way}_mixer.in_proj.weight" for way in ("forward", "reverse")}


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("backbone.layers.7.*", "matches no parameter; nearest: backbone.layers.2.norm.weight"),
        ("embeding.weight", "nearest: embedding.weight"),
        ("first:4", "has 3 blocks; give first:1 to first:3"),
        ("first:x", "has 3 blocks"),
    ],
)
def test_a_pattern_that_matches_nothing_is_an_error(pattern: str, told: str) -> None:
    with pytest.raises(UserError, match=r"finetuning\.freeze") as error:
        frozen_parameters(classifier(), [pattern])
    assert told in str(error.value)


@pytest.mark.parametrize("freeze", ["backbone", "embedding", "first:2", ["*.in_proj.*", "embedding"]])
def test_frozen_parameters_keep_their_values_bit_for_bit(freeze: Any) -> None:
    config = FinetuningConfig(freeze=freeze)
    model = classifier(dropout=0.1)
    frozen = frozen_parameters(model, config.patterns)
    before = {name: value.clone() for name, value in model.named_parameters()}
    task = ClassificationTask(model, finetuning=config)
    train(task)
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name]) == (name in frozen), name


def test_frozen_parts_run_without_dropout_and_trained_ones_with_it() -> None:
    task = ClassificationTask(
        classifier(dropout=0.5, embedding_dropout=0.5), finetuning=FinetuningConfig(freeze="first:2")
    )
    task.eval()
    task.train()
    model: Any = task.model
    assert [block.drop.training for block in model.backbone.layers] == [False, False, True]
    assert not model.embedding_dropout.training
    assert model.head.training
    ids = torch.randint(7, 11, (2, 12))
    embedded = model.embed(ids)
    assert torch.equal(embedded, model.embedding(ids))
    task.eval()
    assert not any(module.training for module in model.modules())


def test_a_linear_probe_has_the_same_features_each_time() -> None:
    task = ClassificationTask(
        classifier(dropout=0.5, embedding_dropout=0.5), finetuning=FinetuningConfig(freeze="backbone")
    ).train()
    model: Any = task.model
    ids = torch.randint(7, 11, (2, 12))
    assert torch.equal(model.forward_features(ids), model.forward_features(ids))


def test_without_finetuning_the_model_is_left_alone() -> None:
    model = classifier().eval()
    ClassificationTask(model)
    assert not model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layer_decay_has_the_published_factors() -> None:
    factors = layer_factors(classifier(), 0.5)
    found = {
        name: factors[name]
        for name in (
            "head.output.weight",
            "backbone.final_norm.weight",
            "backbone.layers.2.norm.weight",
            "backbone.layers.1.mixer.forward_mixer.A_log",
            "backbone.layers.0.mixer.forward_mixer.in_proj.weight",
            EMBEDDING,
        )
    }
    assert list(found.values()) == [1.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert layer_factors(classifier(), 1.0) == {}


def test_layer_decay_multiplies_the_other_rates_and_keeps_the_exemptions() -> None:
    config = OptimizerConfig(lr=0.1, ssm_lr=0.01, weight_decay=0.3, lr_scale={"head.*": 10.0, "*.layers.0.*": 2.0})
    model = classifier()
    groups = parameter_groups(model, config, layer_factors(model, 0.5))
    found = {name: (group["lr"], group["weight_decay"]) for group in groups for name in group["param_names"]}
    assert found["head.output.weight"] == (pytest.approx(1.0), 0.3)
    assert found["backbone.final_norm.weight"] == (pytest.approx(0.1), 0.0)
    assert found[EMBEDDING] == (pytest.approx(0.1 / 16), 0.0)
    assert found["backbone.layers.0.mixer.forward_mixer.in_proj.weight"] == (pytest.approx(0.1 * 2 / 8), 0.3)
    assert found["backbone.layers.0.mixer.reverse_mixer.A_log"] == (pytest.approx(0.01 * 2 / 8), 0.0)
    assert found["backbone.layers.2.mixer.forward_mixer.D"] == (pytest.approx(0.01 / 2), 0.0)
    assert found["backbone.layers.1.norm.weight"] == (pytest.approx(0.1 / 4), 0.0)


def test_the_optimizer_of_a_task_has_the_decayed_rates() -> None:
    task = ClassificationTask(
        classifier(), OptimizerConfig(lr=0.1), finetuning=FinetuningConfig(freeze="embedding", layer_decay=0.5)
    )
    task.total_steps = lambda: 10.0  # type: ignore[method-assign]
    optimizer = task.configure_optimizers()["optimizer"]
    rates = {name: group["initial_lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert EMBEDDING not in rates
    assert rates["backbone.layers.0.mixer.forward_mixer.in_proj.weight"] == pytest.approx(0.0125)


def test_layer_decay_needs_blocks() -> None:
    with pytest.raises(UserError, match=r"Linear has no parameters in backbone\.layers"):
        layer_factors(nn.Linear(2, 2), 0.9)


@pytest.mark.parametrize("decay", [0.0, 1.5, -0.1])
def test_layer_decay_outside_its_range_is_an_error(decay: float) -> None:
    with pytest.raises(UserError, match="layer_decay"):
        FinetuningConfig(layer_decay=decay)


def test_a_configuration_survives_as_plain_values() -> None:
    task = ClassificationTask(classifier(), finetuning={"freeze": "embedding", "lora": None})  # type: ignore[arg-type]
    assert task.finetuning == FinetuningConfig(freeze="embedding")
    plain = FinetuningConfig(lora={"rank": 2, "targets": ["in_proj"]})  # type: ignore[arg-type]
    assert plain.lora is not None
    assert plain.lora.rank == 2


def test_averaging_leaves_constants_alone() -> None:
    from lightning.pytorch.callbacks import EMAWeightAveraging
    from torch.optim.swa_utils import AveragedModel

    from longscan.core.training.averaging import keep_constants

    def averaged(fixed: bool) -> tuple[nn.Module, nn.Module]:
        callback = EMAWeightAveraging(decay=0.9)
        model = nn.Linear(50, 50)
        model.register_buffer("table", torch.arange(16))
        average = AveragedModel(model, use_buffers=True, **callback._kwargs)
        if fixed:
            keep_constants(average)
        for step in range(1, 4):
            with torch.no_grad():
                model.bias.fill_(step)
            average.update_parameters(model)
        return average.module, model

    found, model = averaged(True)
    assert torch.equal(found.table, model.table)  # type: ignore[arg-type]
    assert torch.equal(found.weight, model.weight)  # type: ignore[arg-type]
    torch.testing.assert_close(found.bias, torch.full((50,), 0.9 * (0.9 * 1 + 0.1 * 2) + 0.1 * 3))
    broken, model = averaged(False)
    assert not torch.equal(broken.table, model.table)  # type: ignore[arg-type]  # otherwise this is needed no more


def test_every_trainer_averages_without_changing_what_is_frozen() -> None:
    """Also one that no command line has made, from the first step to the weights that training ends with."""
    import lightning.pytorch as pl
    from lightning.pytorch.callbacks import EMAWeightAveraging

    torch.manual_seed(0)
    task = ClassificationTask(
        classifier(), OptimizerConfig(lr=0.1), ScheduleConfig("constant"), FinetuningConfig(freeze="backbone")
    )
    task.model.register_buffer("table", torch.arange(16))
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    batch = {"input_ids": torch.randint(7, 11, (4, 20)), "mask": torch.ones(4, 20, dtype=torch.bool)}
    batch["labels"] = torch.tensor([0, 1, 0, 1])
    trainer = pl.Trainer(
        max_steps=5,
        callbacks=[EMAWeightAveraging(decay=0.9)],
        accelerator="cpu",
        **dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False),
    )
    trainer.fit(task, torch.utils.data.DataLoader([batch] * 5, batch_size=None))  # type: ignore[arg-type]
    changed = {name for name, value in task.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
