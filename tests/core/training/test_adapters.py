"""Low-rank adapters: what is adapted, what trains, and that merged, saved and loaded ones do the same."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import longscan
from longscan.core.adapters import LoraOptions, add_lora, lora_targets, merge_lora, unused_adapters, write_adapter
from longscan.core.errors import UserError
from longscan.core.pretrained import save_pretrained, tied, unique_parameters
from longscan.core.training.finetuning import FinetuningConfig, describe_trained
from longscan.core.training.optimizer import OptimizerConfig, parameter_groups
from longscan.core.training.tasks import ClassificationTask
from longscan.core.weights_digest import weights_digest

SMALL = {"d_model": 8, "n_layer": 2}
CLASSES = {"head": "classification", "num_classes": 2}
HYBRID = {
    "vocab_size": 12,
    "backbone": {"d_model": 8, "layers": ["mamba", "gated_mlp", {"name": "attention", "n_heads": 2}, "mlp"]},
}
#: A model for each way in which layers are shared or called.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied Ph": ("caduceus_ph_1k_d118", SMALL),
    "tied PS": ("caduceus_ps_1k_d118", SMALL),
    "untied Ph": ("caduceus_ph_1k_d118", SMALL | {"bidirectional_weight_tie": False}),
    "tied, multiplied": ("caduceus_ph_1k_d118", SMALL | {"bidirectional_strategy": "ew_multiply"}),
    "tied, with biases": ("caduceus_ph_1k_d118", SMALL | {"bias": True}),
    "one way": ("caduceus_ph_1k_d118", SMALL | {"bidirectional": False}),
    "Hyena": ("hyenadna_tiny_1k", SMALL | {"max_length": 66}),
    "hybrid": ("LanguageModel", HYBRID),
}


def build(name: str, **options: Any) -> Any:
    kind, fixed = MODELS[name]
    return longscan.create_model(kind, **fixed, **options).eval()


def ids(length: int = 30) -> Tensor:
    return torch.randint(7, 11, (2, length), generator=torch.Generator().manual_seed(1))


def disturb(model: nn.Module) -> None:
    """Give the adapters something to say."""
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("name", MODELS)
def test_adapters_begin_as_nothing_and_merge_to_what_they_do(name: str, tmp_path: Path) -> None:
    model = build(name)
    with torch.no_grad():
        base = model(ids())
        add_lora(model, LoraOptions(rank=2, alpha=6))
        assert torch.equal(model(ids()), base)
        disturb(model)
        adapted = model(ids())
        assert (adapted - base).abs().max() > 1e-3
        save_pretrained(model, tmp_path)
        merged = longscan.from_pretrained(tmp_path)
        assert not any("lora" in key or "base_layer" in key for key in merged.state_dict())
        assert merged.state_dict().keys() == build(name).state_dict().keys()
        torch.testing.assert_close(merged(ids()), adapted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tied Ph", "tied PS", "tied, multiplied"])
def test_a_shared_layer_has_one_adapter_counted_once(name: str) -> None:
    model = build(name)
    add_lora(model, LoraOptions(rank=2, targets=["in_proj", "x_proj", "out_proj"]))
    for block in model.backbone.layers:
        assert block.mixer.forward_mixer.in_proj is block.mixer.reverse_mixer.in_proj
        assert block.mixer.forward_mixer.out_proj is block.mixer.reverse_mixer.out_proj
    # Per block, with d_model 8, inner width 16, dt_rank 1 and 16 states: in_proj 8 -> 32, out_proj 16 -> 8, and for
    # each direction an x_proj 16 -> 33.
    trained = {name: value for name, value in unique_parameters(model).items() if value.requires_grad}
    expected = 2 * 2 * ((8 + 32) + (16 + 8) + 2 * (16 + 33))
    assert sum(value.numel() for value in trained.values()) == expected
    assert all(".lora_" in key for key in trained)
    groups = parameter_groups(model, OptimizerConfig())
    assert sum(parameter.numel() for group in groups for parameter in group["params"]) == expected
    assert all(alias.partition(".reverse_mixer.")[1] for alias, _ in tied(model))


def test_untied_directions_have_an_adapter_each() -> None:
    model = build("untied Ph")
    record = add_lora(model, LoraOptions(targets=["in_proj"]))
    assert len(record["targets"]) == 4
    mixer = model.backbone.layers[0].mixer
    assert mixer.forward_mixer.in_proj is not mixer.reverse_mixer.in_proj


def ends(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


def test_by_default_every_layer_that_can_have_one_has_an_adapter() -> None:
    assert ends(lora_targets(build("tied Ph"), None)) == {"in_proj", "x_proj", "out_proj"}
    assert ends(lora_targets(build("Hyena"), None)) == {"in_proj", "out_proj", "fc1", "fc2"}
    found = ends(lora_targets(build("hybrid"), None))
    assert found == {"in_proj", "x_proj", "out_proj", "q_proj", "k_proj", "v_proj", "fc1", "fc2"} | {
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert len(lora_targets(build("Hyena"), ["backbone.layers.1.*"])) == 4


@pytest.mark.parametrize(
    ("model", "target", "told"),
    [
        ("tied Ph", "dt_proj", "'dt_proj' cannot have an adapter, since its layer reads the weights directly"),
        ("tied Ph", "*.reverse_mixer.dt_proj", "reads the weights directly"),
        ("tied Ph", "conv1d", "'conv1d' is a Conv1d, no linear layer"),
        ("tied Ph", "inproj", "'inproj' matches no layer; nearest: in_proj"),
        ("Hyena", "filter.out", "reads the weights directly"),
        ("Hyena", "filter.layers.*", "reads the weights directly"),
        ("tied Ph", "embedding", "'embedding' is a Embedding, no linear layer"),
    ],
)
def test_a_target_that_would_be_ignored_is_refused(model: str, target: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        lora_targets(build(model), [target])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_head_is_no_target() -> None:
    with pytest.raises(UserError, match="is the head"):
        lora_targets(build("tied Ph", **CLASSES), ["head.output"])


@pytest.mark.parametrize("options", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"targets": []}])
def test_options_outside_their_range_are_errors(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"lora.{next(iter(options))}"):
        LoraOptions(**options)


def test_without_peft_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'longscan\[lora\]'"):
        add_lora(build("tied Ph"), LoraOptions())


def test_an_adapter_that_is_never_called_is_found() -> None:
    model = build("tied Ph")
    model.extra = nn.Linear(3, 3)
    add_lora(model, LoraOptions(targets=["in_proj", "extra"]))
    model(ids()).sum().backward()
    assert unused_adapters(model) == ["extra.lora_B.default.weight"]


def task(freeze: list[str] | str = "", **lora: Any) -> ClassificationTask:
    config = FinetuningConfig(freeze=freeze or [], lora=LoraOptions(**lora))
    return ClassificationTask(build("tied Ph", dropout=0.1, **CLASSES).train(), finetuning=config)


def steps(subject: ClassificationTask, count: int = 3) -> None:
    optimizer = torch.optim.AdamW(parameter_groups(subject.model, subject.optimizer_config), lr=0.01)
    for _ in range(count):
        optimizer.zero_grad()
        subject.loss({"input_ids": ids(), "labels": torch.tensor([0, 1])}).backward()
        subject.on_after_backward()
        optimizer.step()


def test_only_adapters_and_head_train() -> None:
    subject = task(rank=2)
    before = {name: value.clone() for name, value in subject.model.named_parameters()}
    steps(subject)
    changed = {name for name, value in subject.model.named_parameters() if not torch.equal(value, before[name])}
    expected = {name for name in before if ".lora_" in name or name.startswith("head.")}
    assert changed == expected
    trained = sum(before[name].numel() for name in expected)
    total = sum(value.numel() for value in before.values())
    line = describe_trained(subject.model, lora=True)
    assert line == f"LoRA: {trained:,} of {total:,} parameters train ({100 * trained / total:.1f} %)"
    assert trained == 2 * 2 * ((8 + 32) + (16 + 8) + 2 * (16 + 33)) + 2 * 8


def test_a_training_step_refuses_an_adapter_that_is_never_called() -> None:
    model = build("tied Ph", **CLASSES)
    model.backbone.extra = nn.Linear(3, 3)
    subject = ClassificationTask(model, finetuning=FinetuningConfig(lora=LoraOptions(targets=["in_proj", "extra"])))
    with pytest.raises(UserError, match=r"backbone\.extra is never called"):
        steps(subject, 1)


def test_frozen_blocks_get_no_adapter_and_no_dropout() -> None:
    subject = task(freeze="first:1")
    record: Any = subject.model.lora_record
    assert {name.split(".")[2] for name in record["targets"]} == {"1"}
    subject.eval()
    subject.train()
    model: Any = subject.model
    assert [block.drop.training for block in model.backbone.layers] == [False, True]


def test_freezing_everything_leaves_nothing_to_adapt() -> None:
    with pytest.raises(UserError, match="freeze leaves no layer"):
        task(freeze="backbone")


def test_adapters_keep_the_rates_of_their_layers() -> None:
    from longscan.core.training.finetuning import layer_factors

    model = build("tied Ph", **CLASSES)
    add_lora(model, LoraOptions(targets=["in_proj"]))
    groups = parameter_groups(model, OptimizerConfig(lr=0.1), layer_factors(model, 0.5))
    rates = {name: group["lr"] for group in groups for name in group["param_names"]}
    mixer = "mixer.forward_mixer.in_proj.lora_B.default.weight"
    assert rates[f"backbone.layers.0.{mixer}"] == pytest.approx(0.025)
    assert rates[f"backbone.layers.1.{mixer}"] == pytest.approx(0.05)
    assert rates["head.output.weight"] == pytest.approx(0.1)


# Folders


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A pretrained language model."""
    return save_pretrained(build("tied Ph"), tmp_path / "base")


def adapted(base: Path, folder: Path) -> tuple[Any, Path]:
    """A classifier made of ``base``, with adapters, and the folder of these."""
    model: Any = longscan.from_pretrained(base, class_names=("a", "b"), **CLASSES)
    record = add_lora(model, LoraOptions(rank=2, merge=False), base=str(base))
    disturb(model)
    return model, write_adapter(model.state_dict(), record, model.model_config(), folder)


def test_an_adapter_folder_gives_the_adapted_model_back(base: Path, tmp_path: Path) -> None:
    model, folder = adapted(base, tmp_path / "adapter")
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "head.safetensors",
        "longscan_adapter.json",
    ]
    loaded: Any = longscan.from_pretrained(folder)
    torch.testing.assert_close(loaded(ids()), model(ids()), rtol=0, atol=1e-6)
    assert loaded.config.class_names == ("a", "b")
    assert not any("lora" in key for key in loaded.state_dict())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert size < (base / "model.safetensors").stat().st_size


def test_peft_itself_reads_the_adapter(base: Path, tmp_path: Path) -> None:
    from peft import PeftConfig
    from safetensors.torch import load_file

    _, folder = adapted(base, tmp_path / "adapter")
    config: Any = PeftConfig.from_pretrained(str(folder))
    assert (config.r, config.lora_alpha, config.base_model_name_or_path) == (2, 16.0, str(base))
    names = load_file(folder / "adapter_model.safetensors")
    assert "base_model.model.backbone.layers.0.mixer.forward_mixer.in_proj.lora_A.weight" in names


def test_an_adapter_of_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    _, folder = adapted(base, tmp_path / "adapter")
    stored = json.loads((folder / "longscan_adapter.json").read_text())["base_revision"]
    assert stored == weights_digest(longscan.from_pretrained(base), head=False)
    other = build("tied Ph")
    save_pretrained(other, base)
    with pytest.raises(UserError) as error:
        longscan.from_pretrained(folder)
    found = weights_digest(other, head=False)
    assert str(error.value) == (
        f"{folder}: was trained on {base} with the weights {stored}, but {base} now has the weights {found}; "
        "adapters fit no other weights than their own"
    )


def test_an_adapter_whose_base_is_gone_says_so(base: Path, tmp_path: Path) -> None:
    _, folder = adapted(base, tmp_path / "adapter")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="its base model cannot be loaded"):
        longscan.from_pretrained(folder)


def test_an_adapter_of_other_shapes_is_refused(base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, folder = adapted(base, tmp_path / "adapter")
    file = folder / "adapter_model.safetensors"
    tensors = {key: value[:, :-1].contiguous() if "lora_A" in key else value for key, value in load_file(file).items()}
    save_file(tensors, file)
    with pytest.raises(UserError, match=r"in_proj is .* but the layer of .* is"):
        longscan.from_pretrained(folder)


def test_the_digest_without_the_head_is_that_of_the_language_model(base: Path) -> None:
    language = longscan.from_pretrained(base)
    classifier = longscan.from_pretrained(base, **CLASSES)
    assert weights_digest(classifier, head=False) == weights_digest(language, head=False) == weights_digest(language)
    assert weights_digest(classifier) != weights_digest(language)


def test_a_copy_of_an_adapted_model_keeps_the_sharing() -> None:
    model = build("tied PS")
    add_lora(model, LoraOptions(rank=2))
    disturb(model)
    twin: Any = copy.deepcopy(model)
    assert twin.backbone.layers[0].mixer.forward_mixer.in_proj is twin.backbone.layers[0].mixer.reverse_mixer.in_proj
    assert torch.equal(twin(ids()), model(ids()))


def test_merging_without_a_record_changes_nothing() -> None:
    tensors = {"a.weight": torch.ones(2)}
    assert merge_lora(tensors, None) == tensors
