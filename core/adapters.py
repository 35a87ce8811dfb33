"""Low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685): a few trainable matrices beside frozen ones.

``W x`` becomes ``W x + alpha / rank · B A x`` with ``A`` (rank, in) random and ``B`` (out, rank) zero, so that an
adapted model begins as the model it was. The layers are those of ``peft``, which training with an adapter needs;
merging, and loading what was trained, need torch alone.
"""

from __future__ import annotations

import fnmatch
import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .checkpoint_files import Checkpoint, load_tensors, read_json
from .errors import UserError, nearest
from .files import replacing
from .mixers.hyena import HyenaFilter
from .mixers.mamba import Mamba
from .weights_digest import tensors_digest

#: The file by which the folder of an adapter is known; beside it lie peft's own two and ``head.safetensors``.
ADAPTER_FILE = "longscan_adapter.json"
#: Linear layers whose weights their owner reads by itself: an adapter beside them would never be asked.
_READ_BY_OWNER: dict[type[nn.Module], tuple[str, ...]] = {Mamba: ("dt_proj",), HyenaFilter: ("layers", "out")}
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank adapters beside linear layers.

    Args:
        rank: rows of A and columns of B.
        alpha: the adapter counts ``alpha / rank`` times.
        dropout: dropout of the adapter's input in training.
        targets: which linear layers, by the end of their name (``in_proj``) or a pattern (``backbone.layers.3.*``);
            every one of the backbone that can have an adapter where None: in_proj, x_proj and out_proj of Mamba,
            in_proj and out_proj of Hyena, the projections of attention, the layers of MLPs.
        merge: export the model with the adapters merged in (``model/``); otherwise the adapters alone (``adapter/``).
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: list[str] | None = None
    merge: bool = True

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"lora.rank must be at least 1, got {self.rank}")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha must be positive, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"lora.dropout is {self.dropout}; expected 0 ≤ p < 1")
        if self.targets is not None and not self.targets:
            raise UserError("lora.targets is empty; name layers such as in_proj, or leave it out for all")


def lora_targets(model: nn.Module, targets: list[str] | None, frozen: Collection[str] = ()) -> list[str]:
    """Return the names of the linear layers that get an adapter, each shared one once, in the order of the model.

    Args:
        model: a model without adapters.
        targets: as in :class:`LoraOptions`.
        frozen: names of parameters to leave as they are: their layers get no adapter.

    Raises:
        UserError: a target is no linear layer, is one that an adapter could not reach, or nothing is left.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    hidden = _read_by_owner(modules)
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    able = [name for name in linear if name not in hidden and not name.startswith("head.")]
    wanted: set[str] = set(able) if targets is None else set()
    for target in targets or ():
        found = [name for name in modules if name and fnmatch.fnmatchcase(f".{name}", f"*.{target}")]
        fit = [name for name in found if name in able]
        if not fit and any(name in hidden for name in found):
            raise UserError(
                f"lora.targets: {target!r} cannot have an adapter, since its layer reads the weights directly; "
                f"{nearest(target, {name.rpartition('.')[2] for name in able})}"
            )
        if not fit and any(name.startswith("head.") for name in found):
            raise UserError(f"lora.targets: {target!r} is the head, which is trained as a whole; leave it out")
        if not fit:
            what = f"is a {type(modules[found[0]]).__name__}, no linear layer" if found else "matches no layer"
            known = {name.rpartition(".")[2] for name in able}
            raise UserError(f"lora.targets: {target!r} {what}; {nearest(target, known)}")
        wanted.update(fit)
    first: dict[int, str] = {}
    for name in able:
        if name in wanted and f"{name}.weight" not in frozen:
            first.setdefault(id(modules[name]), name)
    if not first:
        raise UserError("finetuning: freeze leaves no layer for the adapters of lora; freeze less")
    # A layer goes by its first name, whichever of its names was asked for.
    names = {id(module): name for name, module in reversed(modules.items())}
    return [names[key] for key in first]


def _read_by_owner(modules: Mapping[str, nn.Module]) -> set[str]:
    hidden = set()
    for owner, module in modules.items():
        for kind, parts in _READ_BY_OWNER.items():
            if isinstance(module, kind):
                roots = [f"{owner}.{part}" for part in parts]
                hidden |= {name for name in modules if any(f"{name}.".startswith(f"{root}.") for root in roots)}
    return hidden


def add_lora(
    model: nn.Module,
    options: LoraOptions,
    *,
    frozen: Collection[str] = (),
    base: str | None = None,
    base_revision: str | None = None,
) -> dict[str, Any]:
    """Put adapters into ``model``, in place, and freeze all else but its head.

    A layer that several modules share (the projections of a tied BiMamba) has one adapter, which they share too.

    Args:
        model: a model with pretrained weights.
        options: which layers, and how.
        frozen: see :func:`lora_targets`.
        base: where the weights came from, for :func:`from_pretrained`.
        base_revision: their digest without the head; computed where None.

    Returns:
        The record that rebuilds the adapters, also kept as ``model.lora_record``: ``rank``, ``alpha``, ``dropout``,
        ``targets`` (names of the layers), ``merge``, ``base``, ``base_revision``.

    Raises:
        UserError: peft is not installed, or the targets do not fit.
    """
    if getattr(model, "lora_record", None) is not None:
        raise ValueError("the model has adapters already")
    names = lora_targets(model, options.targets, frozen)
    if base_revision is None:
        from .weights_digest import weights_digest

        base_revision = weights_digest(model, head=False)
    record = {**asdict(options), "targets": names, "base": base, "base_revision": base_revision}
    head = {name for name, parameter in model.named_parameters() if name.startswith("head.") and name not in frozen}
    places = [(*name.rpartition("."), module) for name, module in model.named_modules(remove_duplicate=False)]
    shared = {name: model.get_submodule(name) for name in names}
    inject, config = _peft()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied word embeddings, which stay as they are
        inject(config(record), model)
    adapted = {id(shared[name]): model.get_submodule(name) for name in names}
    for owner, _, name, module in places:
        if id(module) in adapted:
            setattr(model.get_submodule(owner), name, adapted[id(module)])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name or name in head)
    model.train(model.training)  # peft's new layers are in training mode
    model.lora_record = record  # type: ignore[assignment]
    return record


def add_recorded_lora(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Put in the adapters that a checkpoint's record describes; their weights follow."""
    fields = ("rank", "alpha", "dropout", "targets", "merge")
    options = LoraOptions(**{name: record[name] for name in fields})
    add_lora(model, options, base=record["base"], base_revision=record["base_revision"])


def _peft() -> tuple[Any, Any]:
    """Return peft's function that puts adapters in, and one that makes its configuration of a record.

    Raises:
        UserError: it is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora needs peft, which is not installed: pip install 'longscan[lora]'") from error

    def config(record: Mapping[str, Any]) -> Any:
        return LoraConfig(
            r=record["rank"],
            lora_alpha=record["alpha"],
            lora_dropout=record["dropout"],
            target_modules=list(record["targets"]),
            base_model_name_or_path=record["base"],
        )

    return inject_adapter_in_model, config


def merge_lora(tensors: Mapping[str, Tensor], record: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Return the weights of the plain model that does what the adapted one of ``tensors`` does.

    Args:
        tensors: the adapted model's state by name.
        record: as :func:`add_lora` returned; None leaves the state as it is.
    """
    if record is None:
        return dict(tensors)
    result: dict[str, Tensor] = {}
    for key, value in tensors.items():
        layer, adapted, own = key.rpartition(".base_layer.")
        if ".lora_A." in key or ".lora_B." in key:
            continue
        if adapted and own == "weight":
            pair = (tensors[f"{layer}.lora_A.default.weight"], tensors[f"{layer}.lora_B.default.weight"])
            value = _merged(value, *pair, record)
        result[f"{layer}.{own}" if adapted else key] = value
    return result


def _merged(weight: Tensor, a: Tensor, b: Tensor, record: Mapping[str, Any]) -> Tensor:
    change = b.detach().double() @ a.detach().double() * (record["alpha"] / record["rank"])
    return (weight.detach().double() + change.to(weight.device)).to(weight.dtype)


def write_adapter(
    tensors: Mapping[str, Tensor], record: Mapping[str, Any], described: dict[str, Any], folder: Path
) -> Path:
    """Write the adapters of a model, and its head, without the weights that they belong to.

    The folder has peft's ``adapter_model.safetensors`` and ``adapter_config.json``, ``head.safetensors`` where the
    head has parameters, and ``longscan_adapter.json`` with the base model's name and digest.

    Args:
        tensors: the adapted model's state by name.
        record: as :func:`add_lora` returned.
        described: the model's ``model_config()``.
        folder: made if missing.
    """
    from safetensors.torch import save_file

    from .. import __version__

    def saved(chosen: Mapping[str, Tensor], name: str) -> None:
        with replacing(folder / name) as temporary:
            save_file({key: value.detach().cpu().contiguous() for key, value in chosen.items()}, temporary)

    adapters = {
        _PEFT_PREFIX + key.replace(".default.", "."): value
        for key, value in tensors.items()
        if any(key.startswith(f"{name}.lora_") for name in record["targets"])
    }
    saved(adapters, "adapter_model.safetensors")
    head = {key: value for key, value in tensors.items() if key.startswith("head.")}
    if head:
        saved(head, "head.safetensors")
    settings = _peft()[1](record).to_dict() | {"peft_type": "LORA", "inference_mode": True}
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in settings.items()}
    with replacing(folder / "adapter_config.json") as temporary:
        temporary.write_text(json.dumps(plain, indent=2, default=str) + "\n")
    ours = {"longscan": __version__, "base": record["base"], "base_revision": record["base_revision"], **described}
    ours["lora"] = {name: record[name] for name in ("rank", "alpha", "dropout", "targets", "merge")}
    with replacing(folder / ADAPTER_FILE) as temporary:
        temporary.write_text(json.dumps(ours, indent=2) + "\n")
    return folder


def read_adapter(folder: Path, *, local_files_only: bool = False) -> Checkpoint:
    """Return the plain model that the adapters in ``folder`` make of their base model, as a checkpoint of our own.

    Raises:
        UserError: the base model cannot be found, or is another one than the adapters were trained on.
    """
    from .pretrained import from_pretrained, unique_parameters

    ours = read_json(folder / ADAPTER_FILE)
    missing = [key for key in ("base", "base_revision", "lora", "architecture", "config") if ours.get(key) is None]
    if missing:
        raise UserError(f"{folder / ADAPTER_FILE}: lacks {', '.join(missing)}; write the adapter again")
    try:
        base = from_pretrained(ours["base"], local_files_only=local_files_only)
    except UserError as error:
        raise UserError(f"{folder}: its base model cannot be loaded ({error})") from error
    tensors = {key: value.detach() for key, value in unique_parameters(base).items() if not key.startswith("head.")}
    if (found := tensors_digest(tensors)) != ours["base_revision"]:
        raise UserError(
            f"{folder}: was trained on {ours['base']} with the weights {ours['base_revision']}, "
            f"but {ours['base']} now has the weights {found}; adapters fit no other weights than their own"
        )
    adapters = load_tensors(folder / "adapter_model.safetensors")
    for name in ours["lora"]["targets"]:
        keys = [f"{_PEFT_PREFIX}{name}.lora_{part}.weight" for part in "AB"]
        lacking = [key for key in keys if key not in adapters]
        weight = tensors.get(f"{name}.weight")
        if lacking or weight is None:
            what = f"lacks {lacking[0]}" if lacking else f"adapts {name}, which {ours['base']} lacks"
            raise UserError(f"{folder}: {what}; write the adapter again")
        a, b = (adapters[key] for key in keys)
        if a.shape[1:] != weight.shape[1:] or b.shape[:1] != weight.shape[:1] or a.shape[0] != b.shape[1]:
            raise UserError(
                f"{folder}: its adapter of {name} is {tuple(b.shape)} by {tuple(a.shape)}, but the layer of "
                f"{ours['base']} is {tuple(weight.shape)}; take the base model that it was trained on"
            )
        tensors[f"{name}.weight"] = _merged(weight, a, b, ours["lora"])
    if (folder / "head.safetensors").exists():
        tensors |= load_tensors(folder / "head.safetensors")
    return Checkpoint(folder, tensors, {"architecture": ours["architecture"], "config": ours["config"]})


def unused_adapters(model: nn.Module) -> list[str]:
    """Return the adapters that a backward pass has not reached: the model does not call the layers they are in."""
    return [name for name, parameter in model.named_parameters() if ".lora_B." in name and parameter.grad is None]


__all__ = [
    "ADAPTER_FILE",
    "LoraOptions",
    "add_lora",
    "add_recorded_lora",
    "lora_targets",
    "merge_lora",
    "read_adapter",
    "unused_adapters",
    "write_adapter",
]
