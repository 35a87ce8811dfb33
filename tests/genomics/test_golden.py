"""HyenaDNA and Caduceus against what the original implementations computed: outputs, losses and gradients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import longscan
from longscan.core.errors import UserError
from longscan.core.pretrained import CheckpointFormat, unique_parameters
from longscan.genomics.models import CaduceusHub, HyenaDNAGitHub, HyenaDNAHub

FORMATS: dict[str, CheckpointFormat] = {
    "hyenadna-github-a": HyenaDNAGitHub(),
    "hyenadna-hf-a": HyenaDNAHub(),
    "caduceus-ph-a": CaduceusHub(),
    "caduceus-ps-a": CaduceusHub(),
    "caduceus-ps-unfused-a": CaduceusHub(),
    "caduceus-ph-seqcls-conjoin-a": CaduceusHub(),
    "caduceus-ps-seqcls-a": CaduceusHub(),
}
CADUCEUS = [name for name in FORMATS if name.startswith("caduceus")]
PAD = 4


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs and outputs of a case."""
    return tuple(
        {k: torch.from_numpy(v) for k, v in np.load(folder / f).items()} for f in ("inputs.npz", "outputs.npz")
    )


def relative(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference over the array's maximum."""
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.abs().max())


def masked_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of the positions that are not PAD, weighted if weights are given."""
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    weights = torch.ones_like(loss) if weights is None else weights.flatten()
    weights = weights * (labels.flatten() != PAD)
    return (loss * weights).sum() / weights.sum()


def next_token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def loss_of(name: str, logits: Tensor, labels: Tensor) -> Tensor:
    if "seqcls" in name:
        return F.cross_entropy(logits, labels)
    return (next_token_loss if "hyenadna" in name else masked_loss)(logits, labels)


@pytest.mark.parametrize("name", FORMATS)
def test_outputs_and_loss(name: str, golden: Path) -> None:
    model = longscan.from_pretrained(golden / "genomics" / name)
    assert not model.training
    inputs, outputs = read(golden / "genomics" / name)
    ids = inputs["input_ids"]
    with torch.no_grad():
        logits = model(ids)
        one_strand = ids[..., 0] if ids.dim() == 3 else ids
        found = {
            "hidden": relative(model.forward_features(one_strand), outputs["hidden"]),
            "logits": relative(logits, outputs["class_logits" if "seqcls" in name else "logits"]),
            "loss": relative(loss_of(name, logits, inputs["labels"]), outputs["loss"]),
        }
        if "loss_weights" in inputs:
            weighted = masked_loss(logits, inputs["labels"], inputs["loss_weights"])
            found["loss_weighted"] = relative(weighted, outputs["loss_weighted"])
        if "input_ids_rc" in inputs:
            found["logits of rc"] = relative(model(inputs["input_ids_rc"]), outputs["logits_of_rc"])
            found["hidden of rc"] = relative(model.forward_features(inputs["input_ids_rc"]), outputs["hidden_of_rc"])
    print(name, {key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < 1e-4
    assert torch.equal(model.reverse_complement_ids(ids), inputs["input_ids_rc"]) if "input_ids_rc" in inputs else True


@pytest.mark.parametrize("name", FORMATS)
def test_gradients(name: str, golden: Path) -> None:
    """The gradient of every parameter that the fixtures hold, by its published name."""
    folder = golden / "genomics" / name
    model = longscan.from_pretrained(folder)
    inputs, outputs = read(folder)
    loss_of(name, model(inputs["input_ids"]), inputs["labels"]).backward()
    fmt = FORMATS[name]
    ours = {fmt.published(key, model.config): value for key, value in unique_parameters(model).items()}
    expected = {key.removeprefix("grad:"): value for key, value in outputs.items() if key.startswith("grad:")}
    assert len(expected) >= 7
    found = {key: relative(ours[fmt.canonical(key)].grad, value) for key, value in expected.items()}
    worst = max(found, key=found.__getitem__)
    print(f"{name}: {len(found)} gradients, worst {found[worst]:.1e} ({worst})")
    assert found[worst] < 1e-3
    # Those that the fixtures do not hold are there and finite.
    assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


@pytest.mark.parametrize("name", ["hyenadna-github-a", "hyenadna-hf-a"])
def test_hyena_filters_and_window(name: str, golden: Path) -> None:
    folder = golden / "genomics" / name
    model = longscan.from_pretrained(folder)
    inputs, outputs = read(folder)
    with torch.no_grad():
        kernel = model.backbone.layers[0].mixer.filter(inputs["input_ids"].shape[1])
        assert relative(kernel.T, outputs["filter_layer0"]) < 1e-4
        if "logits_shift0" in outputs:  # the training repository's own layer has no offset
            other = longscan.from_pretrained(folder, shift=0.0)
            assert relative(other(inputs["input_ids"]), outputs["logits_shift0"]) < 1e-4
            assert relative(other.forward_features(inputs["input_ids"]), outputs["hidden_shift0"]) < 1e-4
            assert relative(outputs["logits_shift0"], outputs["logits"]) > 1e-2


@pytest.mark.parametrize("name", ["hyenadna-hf-a", "caduceus-ph-a", "caduceus-ps-a", "caduceus-ps-unfused-a"])
def test_inside_the_stack(name: str, golden: Path) -> None:
    """The stream after the first block (HyenaDNA), and what that block adds to it (Caduceus, both strands)."""
    folder = golden / "genomics" / name
    model = longscan.from_pretrained(folder)
    inputs, outputs = read(folder)
    block, seen = model.backbone.layers[0], {}
    for key, module in (("stream", block), ("mixer", block.mixer), ("mlp", block.channel_mixer)):
        if module is not None:
            module.register_forward_hook(lambda module, args, output, key=key: seen.update({key: output}))
    with torch.no_grad():
        model(inputs["input_ids"])
    if "hyena" in name:
        found = relative(seen["stream"], outputs["hidden_after_block0"])
    elif model.config.rcps:
        forward, reverse = seen["mixer"].chunk(2)
        found = relative(torch.cat([forward, reverse.flip(1, 2)], -1), outputs["hidden_before_block1"])
    else:
        found = relative(seen["mixer"], outputs["hidden_before_block1"])
    print(f"{name}: {found:.1e}")
    assert found < 1e-4


def test_pooled_classifier_of_a_training_checkpoint(golden: Path) -> None:
    """``decoder.0.output_transform``: one file holds a language model and a classifier, and ``head=`` chooses."""
    folder = golden / "genomics" / "hyenadna-github-a"
    inputs, outputs = read(folder)
    with torch.no_grad():
        model = longscan.from_pretrained(folder, head="classification")
        assert model.config.num_classes == 3
        assert relative(model(inputs["input_ids"]), outputs["pooled_class_logits"]) < 1e-4


def test_streaming_gives_the_published_logits(golden: Path) -> None:
    for name in ("hyenadna-github-a", "hyenadna-hf-a"):
        folder = golden / "genomics" / name
        model = longscan.from_pretrained(folder)
        inputs, outputs = read(folder)
        ids = inputs["input_ids"]
        with torch.no_grad():
            logits, state = model.prefill(ids[:, :20])
            rows = [logits]
            for t in range(20, ids.shape[1]):
                y, state = model.step(ids[:, t], state)
                rows.append(y[:, None])
        assert relative(torch.cat(rows, 1), outputs["logits"]) < 1e-4


# --- The same weights as other programs store them ---


def as_lightning(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A Lightning checkpoint of a hub model: ``model.`` in front of every name, metrics and losses among them."""
    return {f"model.{key}": value for key, value in tensors.items()} | {
        "train_torchmetrics.accuracy.total": torch.tensor(3.0),
        "val_torchmetrics.num_tokens.count": torch.tensor(7),
    }


def with_layer(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """HyenaDNA trained with gradient checkpointing."""
    wrapped = {k.replace(".mixer.", ".mixer.layer.").replace(".mlp.", ".mlp.layer."): v for k, v in tensors.items()}
    return wrapped | {"train_torchmetrics.num_tokens.count": torch.tensor(7)}


def compiled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module._orig_mod.{key}": value for key, value in tensors.items()}


def without_grids(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in tensors.items() if not k.endswith((".z", ".t", ".deltas", "complement_map"))}


def standalone_classifier(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.replace("decoder.0.output_transform", "head.output_transform"): v for k, v in tensors.items()}


def tied_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Caduceus with the shared projections and the head spelled out, as a state dict of the module has them."""
    copies = {k.replace("mamba_fwd", "mamba_rev"): v for k, v in tensors.items() if "_proj" in k and "mamba_fwd" in k}
    copies = {k: v.clone() for k, v in copies.items() if ".in_proj" in k or ".out_proj" in k}
    embedding = next(v for k, v in tensors.items() if k.endswith(("embedding.weight", "embeddings.weight")))
    head = "lm_head.lm_head.weight" if any("submodule" in k for k in tensors) else "lm_head.weight"
    return tensors | copies | {head: embedding.clone()}


Rewrite = Callable[[dict[str, Tensor]], dict[str, Tensor]]
REWRITES: list[tuple[str, Rewrite]] = [
    (name, rewrite)
    for name in ("hyenadna-github-a", "hyenadna-hf-a")
    for rewrite in (as_lightning, with_layer, compiled, without_grids, standalone_classifier)
] + [(name, rewrite) for name in CADUCEUS for rewrite in (as_lightning, compiled, without_grids, tied_copies)]


@pytest.mark.parametrize("name, rewrite", REWRITES, ids=[f"{n}-{r.__name__}" for n, r in REWRITES])
def test_other_spellings(name: str, rewrite: Rewrite, golden: Path, tmp_path: Path) -> None:
    folder = golden / "genomics" / name
    inputs, outputs = read(folder)
    save_file(rewrite(load_file(folder / "model.safetensors")), tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    model = longscan.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = longscan.from_pretrained(folder)(inputs["input_ids"])
        assert torch.equal(model(inputs["input_ids"]), expected)
        assert relative(expected, outputs["class_logits" if "seqcls" in name else "logits"]) < 1e-4


def lightning_file(tensors: dict[str, Tensor]) -> dict:
    """What published ``.ckpt`` files hold beside the weights: counters, optimiser state, hyper-parameters."""
    return {
        "epoch": 3,
        "global_step": 17,
        "pytorch-lightning_version": "1.8.6",
        "state_dict": tensors,
        "optimizer_states": [
            {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
        ],
        "hyper_parameters": {"model": {"d_model": 24}},
        "loops": None,
    }


@pytest.mark.parametrize("name", ["hyenadna-github-a", "hyenadna-hf-a", "caduceus-ph-a", "caduceus-ps-a"])
@pytest.mark.parametrize("file", ["weights.ckpt", "x.pt", "x.pth", "pytorch_model.bin", "model.safetensors", "sharded"])
def test_every_kind_of_file(name: str, file: str, golden: Path, tmp_path: Path) -> None:
    """As a folder and as a file, with config.json beside it, passed as config=, or not at all."""
    folder = golden / "genomics" / name
    tensors = load_file(folder / "model.safetensors")
    if file == "sharded":
        halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
        names = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
        for shard, half in zip(names, halves, strict=True):
            save_file(half, tmp_path / shard)
        where = {key: shard for shard, half in zip(names, halves, strict=True) for key in half}
        file = "model.safetensors.index.json"
        (tmp_path / file).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
    elif file.endswith(".safetensors"):
        save_file(tensors, tmp_path / file)
    else:
        torch.save(lightning_file(tensors) if file.endswith((".ckpt", ".pt")) else tensors, tmp_path / file)
    ids = read(folder)[0]["input_ids"]
    with torch.no_grad():
        expected = longscan.from_pretrained(folder)(ids)
        published = folder / "config.json"
        assert torch.equal(longscan.from_pretrained(tmp_path / file, config=published)(ids), expected)
        assert torch.equal(longscan.from_pretrained(tmp_path, config=json.loads(published.read_text()))(ids), expected)
        # Without a configuration: dimensions and variants show in the weights, the rest is as published.
        assert torch.equal(longscan.from_pretrained(tmp_path)(ids), expected)
        shutil.copy(published, tmp_path)
        assert torch.equal(longscan.from_pretrained(tmp_path)(ids), expected)
        assert torch.equal(longscan.from_pretrained(str(tmp_path / file))(ids), expected)


def test_a_length_that_nothing_tells(golden: Path, tmp_path: Path) -> None:
    """HyenaDNA without grids and configuration: the filters' length cannot be guessed, and config= supplies it."""
    folder = golden / "genomics" / "hyenadna-github-a"
    save_file(without_grids(load_file(folder / "model.safetensors")), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"length of its filters is unknown; put config\.json beside it"):
        longscan.from_pretrained(tmp_path)
    model = longscan.from_pretrained(tmp_path, config={"max_seq_len": 70})
    inputs, outputs = read(folder)
    assert relative(model(inputs["input_ids"]), outputs["logits"]) < 1e-4
    other = longscan.from_pretrained(tmp_path, config={"max_seq_len": 71})
    assert relative(other(inputs["input_ids"]), outputs["logits"]) > 1e-3  # the grid belongs to the checkpoint


@pytest.mark.parametrize("name", [*CADUCEUS, "hyenadna-hf-a"])
def test_export_in_the_published_format(name: str, golden: Path, tmp_path: Path) -> None:
    """Writing the published format gives the published keys, values and configuration fields."""
    folder = golden / "genomics" / name
    model = longscan.from_pretrained(folder)
    model.save_pretrained(tmp_path, format=FORMATS[name].name)
    written, expected = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(written) == set(expected)
    for key, value in expected.items():
        same = torch.equal if "filter_fn." not in key else lambda a, b: torch.allclose(a, b, atol=1e-6)
        assert written[key].shape == value.shape, key
        assert same(written[key], value), key
    config, published = (json.loads((f / "config.json").read_text()) for f in (tmp_path, folder))
    ignored = {"torch_dtype", "format", "transformers_version", "id2label", "label2id", "_attn_implementation_autoset"}
    # In float32 the type of the residual stream changes nothing; we keep it in float32 whatever the weights are in.
    differing = {k: (config.get(k), v) for k, v in published.items() if config.get(k) != v and k not in ignored}
    assert set(differing) <= {"residual_in_fp32"}
    again = longscan.from_pretrained(tmp_path)
    ids = read(folder)[0]["input_ids"]
    assert torch.equal(again(ids), model(ids))
    state, same = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], same[key]) for key in state)
    assert again.config == model.config


def test_learned_positions_are_noticed(golden: Path, tmp_path: Path) -> None:
    folder = golden / "genomics" / "hyenadna-hf-a"
    tensors = load_file(folder / "model.safetensors")
    key = "hyena.backbone.layers.1.mixer.filter_fn.pos_emb.z"
    tensors[key] = tensors[key] + 0.01
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"layer 1: the stored pos_emb\.z is not the published grid") as caught:
        longscan.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_frequencies_that_differ_are_noticed(golden: Path, tmp_path: Path) -> None:
    """The sines of one filter share one parameter; a file in which they differ is no HyenaDNA."""
    tensors = load_file(golden / "genomics" / "hyenadna-github-a" / "model.safetensors")
    tensors["model.backbone.layers.0.mixer.filter_fn.implicit_filter.3.freq"] += 1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"implicit_filter\.3\.freq differs"):
        longscan.from_pretrained(tmp_path)


def test_another_complement_map_is_noticed(golden: Path, tmp_path: Path) -> None:
    folder = golden / "genomics" / "caduceus-ps-a"
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.complement_map"] = tensors["lm_head.complement_map"].flip(0)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"complement_map") as caught:
        longscan.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_head_of_its_own_is_refused(golden: Path, tmp_path: Path) -> None:
    folder = golden / "genomics" / "caduceus-ph-a"
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.randn(16, 40)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"lm_head\.weight is not the embedding"):
        longscan.from_pretrained(tmp_path)


def test_modules_are_what_they_say(golden: Path) -> None:
    """Nothing of a model is left at its random initialisation: two loads are equal whatever the seed."""
    for name in FORMATS:
        states = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            model: nn.Module = longscan.from_pretrained(golden / "genomics" / name)
            states.append(model.state_dict())
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
