"""Mamba language models against transformers' own, and their two published formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import longscan
from longscan.core.backbone import BackboneConfig
from longscan.core.errors import UserError
from longscan.core.models import LanguageModel, LanguageModelConfig, MambaTransformers
from longscan.core.pretrained import unique_parameters


@pytest.fixture(scope="module")
def folder(golden: Path) -> Path:
    return golden / "core" / "hf_mamba_a"


@pytest.fixture(scope="module")
def case(folder: Path) -> dict[str, Tensor]:
    files = ("inputs.npz", "outputs.npz")
    return {key: torch.from_numpy(np.asarray(value)) for f in files for key, value in np.load(folder / f).items()}


def relative(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.abs().max())


def test_logits_and_hidden_states(folder: Path, case: dict[str, Tensor]) -> None:
    model = longscan.from_pretrained(folder)
    hidden = []
    for block in model.backbone.blocks():
        block.register_forward_hook(lambda module, args, output: hidden.append(output))
    with torch.no_grad():
        logits = model(case["input_ids"])
        hidden.append(model.backbone.final_norm(hidden[-1]))
    found = [relative(a, b) for a, b in zip(hidden, case["hidden_states"], strict=True)]
    print(f"logits {relative(logits, case['logits_full']):.1e}, hidden {[f'{x:.1e}' for x in found]}")
    assert relative(logits, case["logits_full"]) < 1e-4
    assert max(found) < 1e-4
    assert relative(model.forward_features(case["input_ids"]), case["hidden_states"][-1]) < 1e-4


@pytest.mark.parametrize("mode, cut", [("logits_prefill_then_steps", None), ("logits_token_by_token", 0)])
def test_cached_decoding(folder: Path, case: dict[str, Tensor], mode: str, cut: int | None) -> None:
    model = longscan.from_pretrained(folder)
    ids = case["input_ids"]
    cut = int(case["prefill_len"]) if cut is None else cut
    with torch.no_grad():
        rows, state = [], model.init_state(len(ids))
        if cut:
            logits, state = model.prefill(ids[:, :cut])
            rows.append(logits)
        for t in range(cut, ids.shape[1]):
            y, state = model.step(ids[:, t], state)
            rows.append(y[:, None])
    found = relative(torch.cat(rows, 1), case[mode])
    print(f"{mode}: {found:.1e}")
    assert found < 1e-4


def test_loss_and_every_gradient(folder: Path, case: dict[str, Tensor]) -> None:
    model = longscan.from_pretrained(folder)
    ids, fmt = case["input_ids"], MambaTransformers()
    loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(loss.detach()) == pytest.approx(float(case["loss"]), rel=1e-5)
    loss.backward()
    ours = {fmt.published(key, model.config): value.grad for key, value in unique_parameters(model).items()}
    expected = {key: torch.from_numpy(value) for key, value in np.load(folder / "grads.npz").items()}
    assert set(ours) == set(expected)
    found = {key: relative(ours[key], expected[key]) for key in expected}
    worst = max(found, key=found.__getitem__)
    print(f"{len(found)} gradients, worst {found[worst]:.1e} ({worst})")
    assert found[worst] < 1e-3


def small(**fields) -> LanguageModel:
    mixer = fields.pop("mixer", {"d_state": 4})
    return LanguageModel(LanguageModel.mamba_config(24, 2, 30, mixer, **fields)).eval()


def test_original_format(folder: Path, case: dict[str, Tensor], tmp_path: Path) -> None:
    """state-spaces' own: another name for the embedding, a copy of it as the head, a short configuration."""
    tensors = load_file(folder / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    config = {"d_model": 32, "n_layer": 2, "vocab_size": 41, "ssm_cfg": {}, "rms_norm": True, "residual_in_fp32": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = longscan.from_pretrained(tmp_path)
    assert model.config.tie_embeddings
    assert relative(model(case["input_ids"]), case["logits_full"]) < 1e-4
    model.save_pretrained(tmp_path / "again", format="mamba-original")
    again = longscan.from_pretrained(tmp_path / "again")
    assert torch.equal(again(case["input_ids"]), model(case["input_ids"]))
    assert json.loads((tmp_path / "again" / "config.json").read_text())["ssm_cfg"]["d_state"] == 8


def test_export_in_transformers_format(folder: Path, case: dict[str, Tensor], tmp_path: Path) -> None:
    model = longscan.from_pretrained(folder)
    model.save_pretrained(tmp_path, format="mamba-transformers")
    written, expected = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    assert set(written) == set(expected)
    assert all(torch.equal(written[key], expected[key]) for key in expected)
    config, published = (json.loads((f / "config.json").read_text()) for f in (tmp_path, folder))
    shared = set(config) - {"architectures"}
    assert {key: config[key] for key in shared} == {key: published[key] for key in shared}
    assert len(shared) >= 13
    assert torch.equal(longscan.from_pretrained(tmp_path)(case["input_ids"]), model(case["input_ids"]))


@pytest.mark.parametrize("spelling", ["model.{}", "module.{}", "_orig_mod.{}", "model._orig_mod.{}"])
def test_prefixes(folder: Path, case: dict[str, Tensor], tmp_path: Path, spelling: str) -> None:
    tensors = {spelling.format(key): value for key, value in load_file(folder / "model.safetensors").items()}
    torch.save({"state_dict": tensors, "epoch": 1}, tmp_path / "x.ckpt")
    model = longscan.from_pretrained(tmp_path / "x.ckpt")  # without a configuration
    assert relative(model(case["input_ids"]), case["logits_full"]) < 1e-4


VARIANTS: dict[str, dict] = {
    "plain": {},
    "untied": {"tie_embeddings": False},
    "options": {"mixer": {"d_state": 3, "d_conv": 2, "expand": 1.5, "dt_rank": 5, "conv_bias": False, "bias": True}},
}


@pytest.mark.parametrize("fmt", ["mamba-original", "mamba-transformers"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_formats_hold_every_variant(fmt: str, variant: str, tmp_path: Path) -> None:
    model = small(**VARIANTS[variant])
    model.save_pretrained(tmp_path, format=fmt)
    again = longscan.from_pretrained(tmp_path)
    state, same = model.state_dict(), again.state_dict()
    assert list(state) == list(same)
    assert all(torch.equal(state[key], same[key]) for key in state)
    ids = torch.randint(30, (2, 9))
    assert torch.equal(again(ids), model(ids))
    assert again.config.tie_embeddings == model.config.tie_embeddings


def test_a_head_equal_to_the_embedding_but_not_tied(tmp_path: Path) -> None:
    model = small(tie_embeddings=False)
    with torch.no_grad():
        model.head.weight.copy_(model.embedding.weight)
    model.save_pretrained(tmp_path, format="mamba-transformers")
    assert not longscan.from_pretrained(tmp_path).config.tie_embeddings


@pytest.mark.parametrize(
    "field, value",
    [
        ("hidden_size", 64),
        ("state_size", 16),
        ("num_hidden_layers", 3),
        ("conv_kernel", 3),
        ("time_step_rank", 2),
        ("intermediate_size", 32),
    ],
)
def test_a_configuration_that_contradicts_the_weights(folder: Path, tmp_path: Path, field: str, value: int) -> None:
    shutil.copy(folder / "model.safetensors", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(UserError, match=rf"config\.json says {field} = {value}, the weights have") as caught:
        longscan.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_falcon_is_not_taken_for_mamba(folder: Path, tmp_path: Path) -> None:
    """Its weights have Mamba's names, but it normalises B, C and the step size."""
    shutil.copy(folder / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "falcon_mamba"}))
    with pytest.raises(UserError, match="are of no known format"):
        longscan.from_pretrained(tmp_path)


def test_hybrids_are_refused_by_the_published_formats(tmp_path: Path) -> None:
    config = LanguageModelConfig(backbone=BackboneConfig(d_model=16, layers=["mamba", "mlp"]), vocab_size=9)
    with pytest.raises(UserError, match="holds plain Mamba stacks"):
        LanguageModel(config).save_pretrained(tmp_path, format="mamba-transformers")


def test_a_head_of_ours_that_the_formats_lack(tmp_path: Path) -> None:
    model = small(head="classification", num_classes=3)
    with pytest.raises(UserError, match="classification"):
        model.save_pretrained(tmp_path, format="mamba-transformers")
    assert not list(tmp_path.iterdir())


def test_published_sizes() -> None:
    counts = {
        "mamba_130m": 129_135_360,
        "mamba_370m": 371_516_416,
        "mamba_790m": 793_204_224,
        "mamba_1_4b": 1_372_178_432,
        "mamba_2_8b": 2_768_345_600,
    }
    for name, count in counts.items():
        with torch.device("meta"):
            model = longscan.create_model(name)
        assert sum(p.numel() for p in model.parameters()) == count, name


def test_packed_language_modelling() -> None:
    model = small()
    ids = torch.randint(30, (1, 20))
    with torch.no_grad():
        packed = model(ids, cu_seqlens=torch.tensor([0, 6, 7, 20]))
        separate = torch.cat([model(part) for part in ids.split([6, 1, 13], dim=1)], 1)
    assert relative(packed, separate) < 1e-5
