"""Models by name: patterns, aliases, overrides, and what happens to a wrong name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import longscan
from longscan.core import registry
from longscan.core.backbone import BackboneConfig
from longscan.core.errors import UserError
from longscan.core.models import LanguageModel, LanguageModelConfig
from longscan.core.registry import ModelEntry, apply_overrides, build, find_model, register_architecture, register_model


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the registries, so that a test's entries vanish with it."""
    longscan.list_models()
    for name in ("_ARCHITECTURES", "_MODELS", "_ALIASES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))


def test_patterns() -> None:
    everything = longscan.list_models()
    assert everything == sorted(everything)
    assert longscan.list_models("*dna*") == [name for name in everything if "dna" in name]
    assert len(longscan.list_models("hyenadna_*")) == 7
    assert longscan.list_models("caduceus_p?_1k_d118") == ["caduceus_ph_1k_d118", "caduceus_ps_1k_d118"]
    assert longscan.list_models("mamba_*b", domain="core") == longscan.list_models("mamba_*b")
    assert longscan.list_models("mamba_*b")
    assert longscan.list_models("mamba_*", domain="genomics") == []
    assert set(longscan.list_models(domain="genomics", pretrained=True)) <= set(everything)
    assert not set(longscan.list_models(pretrained=True)) & set(longscan.list_models(pretrained=False))
    assert longscan.list_models("nothing*") == []


def test_every_entry_is_whole() -> None:
    """Every registered model has a description, builds its configuration, and its aliases lead to it."""
    for name in longscan.list_models():
        entry = find_model(name)
        assert entry is not None
        assert entry.name == name == name.lower()
        assert entry.description
        assert isinstance(entry.config(), registry.find_architecture(entry.architecture).config)
        for alias in entry.aliases:
            assert find_model(alias) is entry


@pytest.mark.parametrize(
    "alias, name",
    [
        ("LongSafari/hyenadna-tiny-1k-seqlen-hf", "hyenadna_tiny_1k"),
        ("hyenadna-medium-160k-seqlen", "hyenadna_medium_160k"),
        ("LongSafari/hyenadna-large-1m-seqlen", "hyenadna_large_1m"),
        ("kuleshov-group/caduceus-ps_seqlen-131k_d_model-256_n_layer-16", "caduceus_ps_131k"),
        ("caduceus-ph_seqlen-1k_d_model-118_n_layer-4_lr-8e-3", "caduceus_ph_1k_d118"),
        ("state-spaces/mamba-130m-hf", "mamba_130m"),
        ("state-spaces/mamba-2.8b", "mamba_2_8b"),
        ("mamba-1.4b", "mamba_1_4b"),
    ],
)
def test_published_names(alias: str, name: str) -> None:
    longscan.list_models()
    assert find_model(alias) is find_model(name)


def test_overrides() -> None:
    model = longscan.create_model("hyenadna_tiny_1k", n_layer=1, d_model=16, head="classification", num_classes=3)
    assert model(torch.tensor([[7, 8, 9, 10]])).shape == (1, 3)
    assert len(model.backbone.layers) == 1
    assert find_model("hyenadna_tiny_1k").config().n_layer == 2  # the entry stays as it is


def test_an_architecture_by_name() -> None:
    """From data alone, as a configuration file gives it."""
    data = {"backbone": {"d_model": 16, "layers": ["mamba", "mlp"], "repeat": 2}, "vocab_size": 11}
    model = longscan.create_model("LanguageModel", **data)
    assert isinstance(model, LanguageModel)
    assert len(model.backbone.layers) == 4
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, 11)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("hyenadna_tiny_2k", {}, r"model 'hyenadna_tiny_2k' is unknown; nearest: hyenadna_tiny_1k"),
        ("caduceus", {}, r"model 'caduceus' is unknown; nearest: .*caduceus"),
        ("zzzzzzzzzzz", {}, r"model 'zzzzzzzzzzz' is unknown; known: "),
        ("hyenadna_tiny_1k", {"n_layers": 3}, r"HyenaDNAConfig has no option 'n_layers'; nearest: n_layer"),
        ("hyenadna_tiny_1k", {"head": "classification"}, r"a classification head needs num_classes"),
        ("hyenadna_tiny_1k", {"pooling": "median"}, r"pooling is 'median'"),
        ("hyenadna_tiny_1k", {"order": 1}, r"order is 1"),
        ("caduceus_ph_1k_d118", {"rms_nor": False}, r"CaduceusConfig has no option 'rms_nor'; nearest: rms_norm"),
        ("LanguageModel", {"vocab_size": 3}, r"configuration of LanguageModel: .*backbone"),
        ("LanguageModel", {"backbone": {"d_model": 8, "layer": []}, "vocab_size": 3}, r"LanguageModel: .*'layer'"),
        ("LanguageModel", {"backbone": {"d_model": 8, "layers": ["mmba"]}, "vocab_size": 3}, r"'mmba' is unknown"),
    ],
)
def test_mistakes(name: str, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        longscan.create_model(name, **options)
    assert "\n" not in str(caught.value)


def test_unknown_architecture() -> None:
    with pytest.raises(UserError, match="architecture 'HyenaDNB' is unknown; nearest: HyenaDNA"):
        build("HyenaDNB", {})


def test_registering(registries: None) -> None:
    @dataclass(frozen=True, kw_only=True)
    class TinyConfig:
        """One number."""

        width: int = 3

    @register_architecture("Tiny", TinyConfig)
    class Tiny(nn.Module):
        """One layer."""

        def __init__(self, config: TinyConfig) -> None:
            super().__init__()
            self.layer = nn.Linear(config.width, 1)

    entry = ModelEntry(name="tiny", domain="core", config=TinyConfig, architecture="Tiny", aliases=("someone/tiny",))
    register_model(entry)
    assert not entry.pretrained
    assert "tiny" in longscan.list_models(pretrained=False)
    assert longscan.create_model("someone/tiny", width=5).layer.in_features == 5
    with pytest.raises(ValueError, match="architecture 'Tiny' is registered already"):
        register_architecture("Tiny", TinyConfig)(Tiny)
    for taken in ("tiny", "someone/tiny", "hyenadna_tiny_1k"):
        with pytest.raises(ValueError, match="is registered already"):
            register_model(ModelEntry(name=taken, domain="core", config=TinyConfig, architecture="Tiny"))
    with pytest.raises(UserError, match="has no published weights; use create_model"):
        longscan.from_pretrained("tiny")


def test_apply_overrides_keeps_the_rest() -> None:
    config = LanguageModelConfig(backbone=BackboneConfig(d_model=8), vocab_size=5, embedding_dropout=0.3)
    changed = apply_overrides(config, {"vocab_size": 7})
    assert (changed.vocab_size, changed.embedding_dropout, changed.backbone) == (7, 0.3, config.backbone)
    assert apply_overrides(config, {}) == config
