"""Saving and loading: bit for bit, from every source, and one clear line for whatever is wrong with a checkpoint."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import longscan
from longscan.core import registry
from longscan.core.checkpoint_files import load_torch_file, read_checkpoint
from longscan.core.errors import UserError
from longscan.core.pretrained import convert, list_formats, tied, unique_parameters

SAMBA = {"d_model": 16, "layers": ["mamba", "gated_mlp", {"name": "attention", "window": 4}], "norm": "layernorm"}
DNA = {"d_model": 16, "n_layer": 2}
MODELS: dict[str, tuple[str, dict]] = {
    "hyenadna": ("HyenaDNA", {**DNA, "max_length": 30}),
    "hyenadna-untied": ("HyenaDNA", {**DNA, "max_length": 30, "tie_embeddings": False, "order": 3}),
    "hyenadna-classifier": (
        "HyenaDNA",
        {**DNA, "max_length": 30, "head": "classification", "class_names": ("no", "yes"), "tokenizer": {"bos": True}},
    ),
    "caduceus-ph": ("Caduceus", DNA),
    "caduceus-ps": ("Caduceus", {**DNA, "rcps": True, "rcps_swap": False}),
    "caduceus-untied": (
        "Caduceus",
        {**DNA, "bidirectional_weight_tie": False, "bidirectional_strategy": "ew_multiply"},
    ),
    "caduceus-classifier": ("Caduceus", {**DNA, "head": "classification", "num_classes": 4, "conjoin": True}),
    "samba": ("LanguageModel", {"backbone": SAMBA, "vocab_size": 13, "pad_vocab_size_multiple": 8}),
    "samba-untied": ("LanguageModel", {"backbone": SAMBA, "vocab_size": 13, "tie_embeddings": False}),
    "bidirectional": (
        "LanguageModel",
        {
            "backbone": {
                "d_model": 8,
                "layers": [{"name": "bidirectional", "tie": tie} for tie in ("none", "projections", "all")],
            },
            "vocab_size": 12,
        },
    ),
}
IDS = torch.randint(12, (2, 15), generator=torch.Generator().manual_seed(5))


def create(name: str) -> nn.Module:
    architecture, fields = MODELS[name]
    model = longscan.create_model(architecture, **fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def same(a: nn.Module, b: nn.Module) -> None:
    """Assert that two models are equal in every bit."""
    state, other = a.state_dict(), b.state_dict()
    assert list(state) == list(other)
    for key in state:
        assert state[key].dtype == other[key].dtype
        assert torch.equal(state[key], other[key]), key
    with torch.no_grad():
        assert torch.equal(a(IDS), b(IDS))


def one_line(caught: pytest.ExceptionInfo[UserError], *parts: object) -> str:
    """Assert that the message is one line that names ``parts``."""
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message, message
    return message


# --- Our own format ---


@pytest.mark.parametrize("name", MODELS)
def test_bit_for_bit(name: str, tmp_path: Path) -> None:
    model = create(name)
    assert model.save_pretrained(tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    again = longscan.from_pretrained(folder)
    assert type(again) is type(model)
    assert again.config == model.config
    assert not again.training
    same(model, again)
    same(model, longscan.from_pretrained(folder / "model.safetensors"))
    stored = load_file(folder / "model.safetensors")
    assert set(stored) == set(unique_parameters(model))
    assert sum(v.numel() for v in stored.values()) == sum(p.numel() for p in model.parameters())
    for alias, key in tied(model):
        assert alias not in stored
        assert again.get_parameter(alias) is again.get_parameter(key)  # still shared, not copied
    config = json.loads((folder / "config.json").read_text())
    assert config["longscan"] == longscan.__version__
    assert config["architecture"] == MODELS[name][0]
    assert set(config["config"]) == {field.name for field in dataclasses.fields(model.config)}


def test_tied_parameters() -> None:
    model = create("caduceus-ph")
    aliases = dict(tied(model))
    assert len(aliases) == 4  # in_proj and out_proj of two layers
    for i in range(2):
        mixer = f"backbone.layers.{i}.mixer"
        for part in ("in_proj", "out_proj"):
            assert aliases[f"{mixer}.reverse_mixer.{part}.weight"] == f"{mixer}.forward_mixer.{part}.weight"


@pytest.mark.parametrize("name", ["hyenadna-classifier", "caduceus-ph", "samba"])
def test_training_checkpoints(name: str, tmp_path: Path) -> None:
    """A Lightning checkpoint of our trainer: the model's own description is inside, beside other entries."""
    model = create(name)
    checkpoint = {
        "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()} | {"loss.w": torch.ones(2)},
        "longscan": {"version": longscan.__version__, "model": {"config": model.model_config()}},
        "epoch": 3,
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    }
    torch.save(checkpoint, tmp_path / "last.ckpt")
    again = longscan.from_pretrained(tmp_path / "last.ckpt")
    assert again.config == model.config
    same(model, again)


def test_short_types_are_read_exactly(tmp_path: Path) -> None:
    """bfloat16 weights come back with the same values, in float32."""
    model = create("samba").bfloat16()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")["embedding.weight"].dtype == torch.bfloat16
    again = longscan.from_pretrained(tmp_path)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value.float())


def test_converting(golden: Path, tmp_path: Path) -> None:
    source = golden / "genomics" / "hyenadna-github-a"
    first = convert(source, tmp_path / "ours")
    second = convert(first, tmp_path / "hub", format="hyenadna-hf", tie_embeddings=False, strict=False)
    assert json.loads((second / "config.json").read_text())["model_type"] == "hyenadna"
    reference = longscan.from_pretrained(source)
    same(reference, longscan.from_pretrained(first))
    back = convert(source, tmp_path / "hub2", format="hyenadna-hf", tie_embeddings=False)
    again = longscan.from_pretrained(back)
    assert torch.equal(again(IDS), reference(IDS))
    assert "longscan" in list_formats()
    assert {"hyenadna-github", "hyenadna-hf", "caduceus-hf", "mamba-original"} <= set(list_formats())


# --- Overrides ---


def sources(golden: Path, tmp_path: Path) -> dict[str, Path]:
    """Language models in our own and in every published format."""
    folders = {
        "hyenadna": golden / "genomics" / "hyenadna-hf-a",
        "caduceus": golden / "genomics" / "caduceus-ps-a",
        "mamba": golden / "core" / "hf_mamba_a",
    }
    for name in ("hyenadna-untied", "caduceus-ph", "samba-untied", "samba"):
        folders[f"own-{name}"] = create(name).save_pretrained(tmp_path / name)
    return folders


def test_a_new_head_for_fine_tuning(golden: Path, tmp_path: Path) -> None:
    """The backbone is loaded, the new head is random."""
    for name, folder in sources(golden, tmp_path).items():
        language_model = longscan.from_pretrained(folder)
        heads = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            model = longscan.from_pretrained(folder, head="classification", num_classes=5, pooling="max")
            assert model(IDS).shape == (2, 5), name
            for key, value in language_model.state_dict().items():
                if not key.startswith("head."):
                    assert torch.equal(model.state_dict()[key], value), (name, key)
            heads.append(model.head.output.weight)
        assert not torch.equal(*heads)
        named = longscan.from_pretrained(folder, head="classification", class_names=("a", "b", "c"))
        assert named(IDS).shape == (2, 3)
        with pytest.raises(UserError, match="needs num_classes"):
            longscan.from_pretrained(folder, head="classification")


def test_overrides_that_keep_a_classifier(golden: Path, tmp_path: Path) -> None:
    """Another pooling, names for the classes, dropout: the trained head stays. Other classes: it goes."""
    own = create("caduceus-classifier").save_pretrained(tmp_path / "own")
    for folder, number in ((golden / "genomics" / "caduceus-ps-seqcls-a", 3), (own, 4)):
        stored = longscan.from_pretrained(folder).head.output.weight
        names = tuple("abcdef"[:number])
        for overrides in ({"pooling": "last"}, {"class_names": names}, {"dropout": 0.1}, {"num_classes": number}):
            assert torch.equal(longscan.from_pretrained(folder, **overrides).head.output.weight, stored), overrides
        for overrides in ({"num_classes": 7}, {"head_bias": True}):
            model = longscan.from_pretrained(folder, **overrides)
            assert model.head.output.weight.shape == (overrides.get("num_classes", number), 40 if number == 3 else 16)
            assert not torch.equal(model.head.output.weight[:3], stored[:3])
        with pytest.raises(UserError, match=f"class_names has 2 names, num_classes is {number}"):
            longscan.from_pretrained(folder, class_names=("a", "b"))
    named = create("hyenadna-classifier").save_pretrained(tmp_path / "named")
    stored = longscan.from_pretrained(named)
    assert stored.config.class_names == ("no", "yes")
    again = longscan.from_pretrained(named, class_names=["no", "yes"])
    assert torch.equal(again.head.output.weight, stored.head.output.weight)
    other = longscan.from_pretrained(named, class_names=("left", "right"))
    assert not torch.equal(other.head.output.weight, stored.head.output.weight)


def test_a_language_model_head_survives_class_options(golden: Path) -> None:
    """num_classes without head= asks for nothing new: the language model's own head stays."""
    folder = golden / "genomics" / "hyenadna-hf-a"
    plain, numbered = longscan.from_pretrained(folder), longscan.from_pretrained(folder, num_classes=4)
    assert torch.equal(plain.head.weight, numbered.head.weight)


def test_other_overrides(golden: Path) -> None:
    folder = golden / "genomics" / "caduceus-ps-a"
    assert longscan.from_pretrained(folder, gradient_checkpointing=True).backbone.config.gradient_checkpointing
    fused, unfused = longscan.from_pretrained(folder), longscan.from_pretrained(folder, rcps_swap=False)
    assert not torch.allclose(fused(IDS), unfused(IDS), atol=0.1)
    with pytest.raises(UserError, match=r"CaduceusConfig has no option 'rcsp'; nearest: rcps") as caught:
        longscan.from_pretrained(folder, rcsp=True)
    one_line(caught)


# --- Weights that do not fit ---


def test_missing_unexpected_and_misshapen_weights_are_listed(tmp_path: Path) -> None:
    model = create("samba")
    folder = model.save_pretrained(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["backbone.final_norm.weight"]
    tensors["backbone.layers.9.extra"] = torch.ones(1)
    tensors["backbone.layers.0.mixer.D"] = torch.ones(5)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError) as caught:
        longscan.from_pretrained(folder)
    message = one_line(caught, folder, "do not fit LanguageModel")
    assert "missing: backbone.final_norm.weight" in message
    assert "unexpected: backbone.layers.9.extra" in message
    assert "misshapen: backbone.layers.0.mixer.D is (5,), expected (32,)" in message
    loaded = longscan.from_pretrained(folder, strict=False)  # what fits is loaded
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)
    assert torch.equal(loaded.backbone.layers[0].mixer.D, torch.ones(32))
    assert torch.equal(loaded.backbone.final_norm.weight, torch.ones(16))


def test_a_long_list_is_abridged(tmp_path: Path) -> None:
    folder = create("samba").save_pretrained(tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    save_file({"embedding.weight": tensors["embedding.weight"]}, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"and {len(tensors) - 9} more") as caught:
        longscan.from_pretrained(folder)
    one_line(caught)


@pytest.mark.parametrize("case", ["genomics/hyenadna-hf-a", "genomics/caduceus-ps-a", "core/hf_mamba_a"])
def test_published_files_with_gaps(case: str, golden: Path, tmp_path: Path) -> None:
    folder = golden / case
    tensors = load_file(folder / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    key = next(k for k in tensors if "layers.1" in k and "norm" in k)
    save_file({k: v for k, v in tensors.items() if k != key}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: backbone\.layers\.1\.\S*norm") as caught:
        longscan.from_pretrained(tmp_path)
    one_line(caught, tmp_path)
    save_file({**tensors, "backbone.layers.0.mystery": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"unexpected: backbone\.layers\.0\.mystery"):
        longscan.from_pretrained(tmp_path)
    save_file({**tensors, key: torch.ones(7)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"misshapen: \S+norm\S* is \(7,\), expected \(\d+,\)"):
        longscan.from_pretrained(tmp_path)


# --- Where checkpoints come from ---


def test_hub_names_go_through_the_hub(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def snapshot(repository: str, *, revision: str | None, local_files_only: bool, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, local_files_only))
        assert {"*.json", "*.safetensors", "*.bin", "*.ckpt"} <= set(allow_patterns)
        return str(golden / "genomics" / ("hyenadna-hf-a" if "hyena" in repository else "caduceus-ps-a"))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = longscan.from_pretrained("hyenadna_tiny_1k")
    assert model.config.d_model == 28  # what came is what is built
    longscan.from_pretrained("LongSafari/hyenadna-tiny-1k-seqlen", revision="abc", local_files_only=True)
    longscan.from_pretrained("someone/her-caduceus", head="classification", num_classes=2)
    hub = "LongSafari/hyenadna-tiny-1k-seqlen-hf"
    assert asked == [(hub, None, False), (hub, "abc", True), ("someone/her-caduceus", None, False)]


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for reason in (
        LocalEntryNotFoundError("Cannot find the snapshot\nin your cache"),
        ConnectionError("no route\nto host"),
        HFValidationError("Repo id must\nbe shorter"),
    ):

        def fail(*args: object, error: Exception = reason, **options: object) -> str:
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
        for name in ("caduceus_ps_131k", "someone/something"):
            with pytest.raises(UserError, match=r"could not be fetched from the hub .*pass the folder") as caught:
                longscan.from_pretrained(name)
            one_line(caught, "caduceus-ps_seqlen-131k" if "131k" in name else name, str(reason).split("\n")[0])


def test_offline_and_not_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real client, its cache empty: one line and no request."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"someone/something: could not be fetched") as caught:
        longscan.from_pretrained("someone/something", local_files_only=True)
    one_line(caught)


def test_models_that_ship_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create("caduceus-ph")
    folder = model.save_pretrained(tmp_path / "shipped")
    longscan.list_models()
    for name in ("_MODELS", "_ALIASES"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))
    registry.register_model(
        registry.ModelEntry(
            name="shipped", domain="core", config=lambda: model.config, architecture="Caduceus", folder=folder
        )
    )
    assert "shipped" in longscan.list_models(pretrained=True)
    same(model, longscan.from_pretrained("shipped"))


def test_a_local_folder_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = create("caduceus-ph")
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("hyenadna_tiny_1k")
    same(model, longscan.from_pretrained("hyenadna_tiny_1k"))


@pytest.mark.parametrize(
    "name, message",
    [
        ("hyenadna_tiny_2k", r"model 'hyenadna_tiny_2k' is unknown; nearest: hyenadna_tiny_1k"),
        ("runs/model.ckpt", r"runs/model\.ckpt: there is no such file or folder"),
        ("weights/model.pt", r"weights/model\.pt: there is no such file or folder"),
        ("model.bin", r"model\.bin: there is no such file or folder"),
        ("./folder", r"folder: there is no such file or folder"),
        ("/no/such/place", r"/no/such/place: there is no such file or folder"),
        (Path("relative/folder"), r"relative/folder: there is no such file or folder"),
        ("~/no-such-folder-here", r"no-such-folder-here: there is no such file or folder"),
    ],
)
def test_names_that_lead_nowhere(name: str | Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        longscan.from_pretrained(name)
    one_line(caught)


# --- Bad checkpoints ---


class Payload:
    """What a malicious checkpoint holds: unpickling it would run a command."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def saved(data: object, path: Path) -> Path:
    torch.save(data, path)
    return path


def written(data: bytes | str, path: Path) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def raw_pickle(path: Path, victim: Path, protocol: int) -> Path:
    return written(pickle.dumps({"state_dict": Payload(victim)}, protocol=protocol), path)


def zipped_pickle(path: Path, victim: Path) -> Path:
    """A zip archive like torch.save's whose data.pkl is the attack."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Payload(victim), protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


@pytest.mark.parametrize(
    "text", ["checkpoint:\n  monitor: val/loss\n", "cos\nsystem\n", "", "PK is how zip files begin"]
)
def test_text_is_no_pickled_code(text: str, tmp_path: Path) -> None:
    """The letter c, with which this begins, is how a pickle calls for a function."""
    path = tmp_path / "notes.pt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"is no torch checkpoint or is damaged|is cut short or damaged") as caught:
        load_torch_file(path)
    one_line(caught, path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_pickled_code_is_refused_and_does_not_run(suffix: str, tmp_path: Path) -> None:
    victim = tmp_path / "it-ran"
    attacks: list[Callable[[], Path]] = [
        lambda: saved({"state_dict": {"w": torch.ones(2)}, "callbacks": Payload(victim)}, tmp_path / f"a{suffix}"),
        lambda: raw_pickle(tmp_path / f"b{suffix}", victim, 2),
        lambda: zipped_pickle(tmp_path / f"c{suffix}", victim),
    ]
    for make in attacks:
        path = make()
        with pytest.raises(UserError, match=r"refused, since it holds pickled code \((posix|nt)\.system\)") as caught:
            longscan.from_pretrained(path)
        one_line(caught, path, "safetensors")
        assert not victim.exists()
    for protocol in (0, 1, 4, 5):  # torch writes none of these, so they are refused before anything is looked up
        path = raw_pickle(tmp_path / f"d{suffix}", victim, protocol)
        with pytest.raises(UserError, match=r"refused|is no torch checkpoint or is damaged") as caught:
            longscan.from_pretrained(path)
        one_line(caught, path)
        assert not victim.exists()
    module = saved(nn.Linear(2, 2), tmp_path / f"module{suffix}")
    with pytest.raises(UserError, match=r"refused, since it holds pickled code") as caught:
        longscan.from_pretrained(module)
    one_line(caught, module)


def test_plain_data_of_training_programs_is_read(golden: Path, tmp_path: Path) -> None:
    """Counters, argparse's namespace and ordered dictionaries beside the weights are no code."""
    import argparse
    from collections import OrderedDict

    folder = golden / "genomics" / "hyenadna-github-a"
    data = {
        "state_dict": OrderedDict(load_file(folder / "model.safetensors")),
        "hyper_parameters": argparse.Namespace(lr=1e-3, sizes=[1, 2]),
        "lr_schedulers": [{"base_lrs": [6e-4], "last_epoch": 3}],
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(1.0), "best_model_path": "x"}},
    }
    model = longscan.from_pretrained(saved(data, tmp_path / "weights.ckpt"))
    same(model, longscan.from_pretrained(folder))


@pytest.fixture
def whole(golden: Path, tmp_path: Path) -> dict[str, bytes]:
    """One checkpoint in each kind of file."""
    tensors = {"a.weight": torch.randn(5, 4), "b": torch.arange(3)}
    save_file(tensors, tmp_path / "x.safetensors")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "x.ckpt")
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    return {suffix: (tmp_path / f"x{suffix}").read_bytes() for suffix in (".safetensors", ".ckpt", ".bin")}


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".bin"])
def test_files_cut_short(suffix: str, whole: dict[str, bytes], tmp_path: Path) -> None:
    """At every tenth length: always one line that names the file, never weights."""
    data = whole[suffix]
    for length in [*range(0, len(data), 10), len(data) - 1]:
        path = written(data[:length], tmp_path / f"cut{suffix}")
        with pytest.raises(UserError) as caught:
            longscan.from_pretrained(path)
        one_line(caught, path)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    texts = (
        "",
        "hello\n",
        "<html>404</html>",
        "version https://git-lfs.github.com/spec/v1\nsize 3\n",
        "0\n",
        "].",
        "PK",
    )
    texts += tuple(chr(c) + "x" for c in range(32, 127))  # each may be an instruction to the unpickler
    for text in texts:
        for suffix in (".pt", ".ckpt", ".bin", ".safetensors"):
            path = written(text, tmp_path / f"text{suffix}")
            with pytest.raises(UserError) as caught:
                longscan.from_pretrained(path)
            one_line(caught, path)
    with pytest.raises(UserError, match=r"is no torch checkpoint or is damaged|cut short or damaged"):
        longscan.from_pretrained(written("just a text\n", tmp_path / "notes.pt"))
    with pytest.raises(UserError, match=r"notes\.txt: is no checkpoint file; known endings are \.safetensors"):
        longscan.from_pretrained(written("just a text\n", tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    "data, message",
    [
        ([1, 2, 3], "holds a list, expected a dictionary of tensors"),
        (torch.ones(3), "holds a Tensor, expected a dictionary of tensors"),
        ({}, "holds no weights; its entries are none"),
        ({"epoch": 3, "loss": 0.5}, "holds no weights; its entries are epoch, loss"),
        ({"state_dict": {}}, "holds no weights"),
    ],
)
def test_files_without_weights(data: object, message: str, tmp_path: Path) -> None:
    path = saved(data, tmp_path / "x.pt")
    with pytest.raises(UserError, match=message) as caught:
        longscan.from_pretrained(path)
    one_line(caught, path)


def test_folders_that_hold_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected one of model\.safetensors, .*found none") as caught:
        longscan.from_pretrained(tmp_path)
    one_line(caught, tmp_path)
    for name in ("a.ckpt", "b.ckpt"):
        saved({"x": torch.ones(2)}, tmp_path / name)
    with pytest.raises(UserError, match=r"found a\.ckpt, b\.ckpt"):
        longscan.from_pretrained(tmp_path)


def test_another_architecture(tmp_path: Path) -> None:
    """A ResNet's state dict, by its names."""
    tensors = {"conv1.weight": torch.ones(64, 3, 7, 7), "bn1.weight": torch.ones(64), "fc.bias": torch.ones(1000)}
    path = saved(tensors, tmp_path / "resnet18.pth")
    with pytest.raises(
        UserError, match=r"bn1\.weight, fc\.bias, …\) are of no known format; known are longscan"
    ) as caught:
        longscan.from_pretrained(path)
    one_line(caught, path, "hyenadna-hf")


def test_forced_formats(golden: Path) -> None:
    folder = golden / "genomics" / "hyenadna-hf-a"
    longscan.from_pretrained(folder, format="hyenadna-hf")
    for name in ("caduceus-hf", "mamba-transformers", "mamba-original"):
        with pytest.raises(UserError, match="has no weight") as caught:
            longscan.from_pretrained(folder, format=name)
        one_line(caught, folder)
    with pytest.raises(UserError, match=r"format 'hyenadna_hf' is unknown; nearest: hyenadna-hf") as caught:
        longscan.from_pretrained(folder, format="hyenadna_hf")
    one_line(caught)
    with pytest.raises(UserError, match=r"is not in longscan's own format") as caught:
        longscan.from_pretrained(folder, format="longscan")
    one_line(caught, folder)


@pytest.mark.parametrize(
    "case, fields, message",
    [
        ("hyenadna-hf-a", {"d_model": 256}, r"config\.json says d_model = 256, the weights have 28"),
        ("hyenadna-hf-a", {"n_layer": 8}, r"n_layer = 8, the weights have 2"),
        ("hyenadna-hf-a", {"max_seq_len": 1026}, r"max_seq_len = 1026, the weights have 66"),
        ("hyenadna-hf-a", {"hyena_order": 3}, r"hyena_order = 3, the weights have 2"),
        ("hyenadna-hf-a", {"emb_dim": 3}, r"emb_dim = 3, the weights have 5"),
        ("hyenadna-github-a", {"layer": {"l_max": 1026}}, r"l_max = 1026, the weights have 70"),
        ("caduceus-ph-a", {"d_model": 256}, r"d_model = 256, the weights have 40"),
        ("caduceus-ph-a", {"rcps": True}, r"config\.json says rcps = True, the weights say False"),
        ("caduceus-ps-a", {"rcps": False}, r"config\.json says rcps = False, the weights say True"),
        ("caduceus-ps-a", {"fused_add_norm": False}, r"fused_add_norm = False, the names of the norms say True"),
        ("caduceus-ps-unfused-a", {"fused_add_norm": True}, r"fused_add_norm = True, the names of the norms say False"),
        ("caduceus-ps-a", {"ssm_cfg": {"d_state": 64}}, r"d_state = 64, the weights have 16"),
        ("caduceus-ps-a", {"ssm_cfg": {"expand": 4}}, r"expand = 4, the weights have 2"),
    ],
)
def test_a_configuration_of_another_model(case: str, fields: dict, message: str, golden: Path, tmp_path: Path) -> None:
    folder = golden / "genomics" / case
    shutil.copy(folder / "model.safetensors", tmp_path)
    config = {**json.loads((folder / "config.json").read_text()), **fields}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message) as caught:
        longscan.from_pretrained(tmp_path)
    one_line(caught, tmp_path)


def test_a_length_that_the_stored_grid_contradicts(golden: Path) -> None:
    folder = golden / "genomics" / "hyenadna-hf-a"
    with pytest.raises(UserError, match=r"max_length = 100") as caught:
        longscan.from_pretrained(folder, max_length=100)
    one_line(caught, folder)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{ not json", "is no readable JSON file"),
        ("[1, 2]", "holds list, expected a JSON object"),
        ('{"architecture": "Nothing", "config": {}}', "architecture 'Nothing' is unknown"),
        ('{"architecture": "HyenaDNA", "config": {"width": 3}}', "width"),
        ('{"architecture": "HyenaDNA", "config": {"d_model": 16}}', "n_layer"),
        ('{"architecture": "HyenaDNA", "config": {"d_model": 16, "n_layer": 1, "max_length": 9}}', "unexpected"),
    ],
)
def test_bad_configurations(text: str, message: str, tmp_path: Path) -> None:
    create("hyenadna").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        longscan.from_pretrained(tmp_path)
    one_line(caught, tmp_path)


def test_shards_that_are_not_there(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    with pytest.raises(UserError, match=r"one\.safetensors: there is no such checkpoint"):
        longscan.from_pretrained(tmp_path)
    for text in ("{}", '{"weight_map": 3}', "oops"):
        index.write_text(text)
        with pytest.raises(UserError) as caught:
            longscan.from_pretrained(index)
        one_line(caught, index)


# --- Saving ---


def test_saving_where_nothing_can_be_written(tmp_path: Path) -> None:
    model = create("hyenadna")
    (tmp_path / "file").write_text("I was here first")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot be written .*choose another folder") as caught:
            model.save_pretrained(folder)
        one_line(caught, folder)
    assert (tmp_path / "file").read_text() == "I was here first"
    with pytest.raises(UserError, match=r"format 'hyena-hf' is unknown; nearest: hyenadna-hf"):
        model.save_pretrained(tmp_path / "x", format="hyena-hf")


def test_a_failed_save_keeps_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    model = create("hyenadna")
    model.save_pretrained(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(tensors: dict[str, Tensor], path: Path, metadata: dict) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        create("hyenadna").save_pretrained(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_saving_over_an_earlier_model(tmp_path: Path) -> None:
    create("samba").save_pretrained(tmp_path)
    model = create("hyenadna")
    model.save_pretrained(tmp_path)
    same(model, longscan.from_pretrained(tmp_path))
    assert read_checkpoint(tmp_path).config["architecture"] == "HyenaDNA"


def test_io_is_not_needed_for_the_error_text() -> None:
    """UserErrors pass through pickling, as worker processes send them."""
    error = pickle.load(io.BytesIO(pickle.dumps(UserError("one line"))))
    assert str(error) == "one line"
    assert isinstance(error, ValueError)
