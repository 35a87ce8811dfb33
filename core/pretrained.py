"""Pretrained models: find, recognise, convert, load and save.

A published format is a :class:`CheckpointFormat`: it recognises a checkpoint by its key names, reads its
configuration, and names for each of our parameters the published one. Loading and exporting use the same naming.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .adapters import ADAPTER_FILE, merge_lora, read_adapter
from .checkpoint_files import SUFFIXES, Checkpoint, read_checkpoint, read_json
from .errors import UserError, nearest
from .files import replacing
from .registry import apply_overrides, build, find_architecture, find_model, unknown_model


class CheckpointFormat:
    """A published way to store an architecture.

    Attributes:
        name: as in ``format="hyenadna-hf"``.
        architecture: the registered architecture that it loads into.
        description: one line for listings.
    """

    name: str
    architecture: str
    description: str = ""

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is in this format, judged by its key names and configuration."""
        raise NotImplementedError

    def read_config(self, checkpoint: Checkpoint) -> Any:
        """Return the architecture's configuration, from tensor shapes and ``checkpoint.config``.

        Raises:
            UserError: if a dimension cannot be known, or the two disagree.
        """
        raise NotImplementedError

    def canonical(self, key: str) -> str | None:
        """Return a file's key without the prefixes of training programs, or ``None`` for what is no parameter."""
        return key

    def tensors(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Return the weights under canonical published names.

        Raises:
            UserError: if two spellings of one name hold different values.
        """
        result: dict[str, Tensor] = {}
        for key, tensor in checkpoint.tensors.items():
            name = self.canonical(key)
            if name is None:
                continue
            if name in result and not torch.equal(tensor, result[name]):
                raise UserError(f"{checkpoint.path}: {key} differs from the parameter that it shares its values with")
            result[name] = tensor
        return result

    def computed(self, key: str) -> bool:
        """Whether a canonical key is stored though it follows from the configuration (position grids, …)."""
        return False

    def is_head(self, key: str) -> bool:
        """Whether a canonical key belongs to one of the possible heads, of which a model uses one."""
        return key.startswith(("lm_head.", "score."))

    def published(self, key: str, config: Any) -> str:
        """Return the canonical published name of our parameter ``key``."""
        raise NotImplementedError

    def stored(self, key: str, config: Any) -> str:
        """Return a canonical name as files hold it, the inverse of :meth:`canonical`."""
        return key

    def computed_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return what files of this format hold beside the parameters, by stored name."""
        return {}

    def check(self, tensors: Mapping[str, Tensor], model: nn.Module) -> None:
        """Compare what the file stores though it is computed with what we compute.

        Raises:
            UserError: if they differ.
        """

    def write_config(self, config: Any) -> dict[str, Any]:
        """Return the published ``config.json`` of a configuration.

        Raises:
            UserError: if the format cannot express it.
        """
        raise UserError(f"format {self.name!r} can be read but not written; known for writing: longscan")


_FORMATS: dict[str, CheckpointFormat] = {}


def register_format(checkpoint_format: CheckpointFormat) -> None:
    """Make a format known to :func:`from_pretrained`.

    Raises:
        ValueError: if the name is taken.
    """
    if checkpoint_format.name in _FORMATS:
        raise ValueError(f"format {checkpoint_format.name!r} is registered already")
    _FORMATS[checkpoint_format.name] = checkpoint_format


def list_formats() -> dict[str, str]:
    """Return the known formats with their descriptions."""
    return {"longscan": "our own: config.json and model.safetensors, or a training checkpoint"} | {
        name: fmt.description for name, fmt in sorted(_FORMATS.items())
    }


def from_pretrained(
    name_or_path: str | Path,
    *,
    format: str | None = None,
    config: Mapping[str, Any] | str | Path | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    strict: bool = True,
    **overrides: Any,
) -> nn.Module:
    """Load a model with its weights, in evaluation mode.

    Args:
        name_or_path: a registered name, a local folder or file, or a hub repository id. A folder of adapters, or a
            training checkpoint with adapters, gives the plain model with the adapters merged in.
        format: forces a format; by default it is recognised by key names and ``config.json``.
        config: the published configuration (mapping or JSON file) of a checkpoint that carries none.
        revision: branch, tag or commit of a hub repository.
        local_files_only: use the hub's cache alone.
        strict: raise on missing, unexpected or misshapen weights; otherwise load what fits.
        overrides: configuration fields to replace. With another ``head`` or ``num_classes`` the stored head is left
            out and the new one starts at random, as for fine-tuning.

    Raises:
        UserError: for an unknown name, an unreadable or unrecognised checkpoint, or weights that do not fit.
    """
    path = _locate(name_or_path, revision, local_files_only)
    adapted = (path / ADAPTER_FILE).is_file()
    checkpoint = read_adapter(path, local_files_only=local_files_only) if adapted else read_checkpoint(path)
    if config is not None:
        checkpoint.config = read_json(Path(config)) if isinstance(config, str | Path) else dict(config)
    if format in (None, "longscan"):
        own = _own_model_config(checkpoint)
        if own is not None:
            return _load_own(checkpoint, own, strict, overrides)
        if format == "longscan":
            raise UserError(f"{path}: is not in longscan's own format: config.json names no 'architecture'")
    foreign = _find_format(checkpoint, format)
    original = foreign.read_config(checkpoint)
    model = build(foreign.architecture, apply_overrides(original, overrides))
    tensors = foreign.tensors(checkpoint)
    try:
        foreign.check(tensors, model)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    ours: dict[str, Tensor] = {}
    names = {foreign.published(key, original): key for key in unique_parameters(model)}
    aliases = {foreign.published(alias, original): foreign.published(key, original) for alias, key in tied(model)}
    for key, tensor in tensors.items():
        if key in aliases and key not in names:
            if not torch.equal(tensor, tensors.get(aliases[key], tensor)):
                raise UserError(f"{path}: {key} and {aliases[key]} differ, but this model shares them")
        elif key in names:
            ours[names[key]] = tensor
        elif not (foreign.computed(key) or foreign.is_head(key)):
            ours[key] = tensor
    _load(model, _fitted(model, ours, original, path), checkpoint, strict, original, overrides)
    return model.eval()


def _fitted(model: nn.Module, tensors: dict[str, Tensor], original: Any, path: Path) -> dict[str, Tensor]:
    """Let a model that can (``fit_weights``) fit weights of the stored configuration to what overrides made of it."""
    fit = getattr(model, "fit_weights", None)
    if fit is None:
        return tensors
    try:
        return fit(tensors, original)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _locate(name_or_path: str | Path, revision: str | None, local_files_only: bool) -> Path:
    """Return the local folder or file of a registered name, a path, or a hub repository."""
    name = str(name_or_path)
    entry = find_model(name)
    if entry is not None and not (isinstance(name_or_path, Path) or Path(name).exists()):
        if entry.folder is not None:
            return entry.folder
        if entry.hub is None:
            raise UserError(f"model {name!r} has no published weights; use create_model for random ones")
        return _download(entry.hub, revision, local_files_only, entry.hub_file)
    path = Path(name).expanduser()
    if path.exists():
        return path
    if isinstance(name_or_path, Path) or name.startswith((".", "/", "~")) or path.suffix in SUFFIXES:
        raise UserError(f"{path}: there is no such file or folder")
    if name.count("/") == 1:
        return _download(name, revision, local_files_only)
    raise unknown_model(name)


def _download(repository: str, revision: str | None, local_files_only: bool, file: str | None = None) -> Path:
    """Return the folder of a hub repository's snapshot, or one ``file`` of it, from the cache where it is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision,
                local_files_only=local_files_only,
                allow_patterns=[file] if file else ["*.json", "*.safetensors", "*.bin", "*.ckpt", "*.pt", "*.pth"],
            )
        )
        return folder / file if file else folder
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{repository}: could not be fetched from the hub and is not in its cache ({reason}); "
            "download it elsewhere and pass the folder"
        ) from error


def _find_format(checkpoint: Checkpoint, name: str | None) -> CheckpointFormat:
    if name is not None:
        if name not in _FORMATS:
            raise UserError(f"format {name!r} is unknown; {nearest(name, list_formats())}")
        return _FORMATS[name]
    for candidate in _FORMATS.values():
        if candidate.recognises(checkpoint):
            return candidate
    keys = ", ".join(list(checkpoint.tensors)[:3])
    raise UserError(
        f"{checkpoint.path}: its weights ({keys}, …) are of no known format; known are {', '.join(list_formats())}"
    )


def _own_model_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return ``{"architecture", "config"}`` of our own folders and training checkpoints, or ``None``."""
    stored = checkpoint.extra.get("longscan")
    if isinstance(stored, dict) and isinstance(stored.get("model"), dict):
        return stored["model"].get("config")
    if checkpoint.config is not None and "architecture" in checkpoint.config and "config" in checkpoint.config:
        return checkpoint.config
    return None


def _load_own(checkpoint: Checkpoint, stored: dict[str, Any], strict: bool, overrides: dict[str, Any]) -> nn.Module:
    try:
        original = find_architecture(stored["architecture"]).config(**stored["config"])
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{checkpoint.path}: its configuration is not one of this version ({error})") from error
    model = build(stored["architecture"], apply_overrides(original, overrides))
    tensors = dict(checkpoint.tensors)
    if "longscan" in checkpoint.extra:
        tensors = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
        tensors = merge_lora(tensors, checkpoint.extra["longscan"]["model"].get("adapter"))
    aliases = {alias for alias, _ in tied(model)}
    tensors = {key: value for key, value in tensors.items() if key not in aliases}
    tensors = _fitted(model, tensors, original, checkpoint.path)
    _load(model, tensors, checkpoint, strict, original, overrides)
    return model.eval()


def _other_head(original: Any, overrides: Mapping[str, Any]) -> bool:
    """Whether the overrides ask for another kind of head than the stored one."""
    return "head" in overrides and overrides["head"] != getattr(original, "head", None)


def _other_classes(original: Any, overrides: Mapping[str, Any]) -> bool:
    """Whether the overrides ask for other classes than the stored ones, whose head is then of no use.

    Naming the classes of a head that had no names is not that.
    """
    if overrides.get("head", getattr(original, "head", None)) != "classification":
        return False
    stored, names = getattr(original, "class_names", None), overrides.get("class_names")
    if stored and names and tuple(names) != tuple(stored):
        return True
    return any(k in overrides and overrides[k] != getattr(original, k, None) for k in ("num_classes", "head_bias"))


def unique_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, each shared one once, under its first name."""
    aliases = {alias for alias, _ in tied(model)}
    return {key: value for key, value in model.state_dict(keep_vars=True).items() if key not in aliases}


def tied(model: nn.Module) -> list[tuple[str, str]]:
    """Return each further name of a shared parameter, with the name under which it is kept."""
    first: dict[int, str] = {}
    aliases = []
    for key, value in model.state_dict(keep_vars=True).items():
        if id(value) in first:
            aliases.append((key, first[id(value)]))
        else:
            first[id(value)] = key
    return aliases


def _load(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    checkpoint: Checkpoint,
    strict: bool,
    original: Any,
    overrides: Mapping[str, Any],
) -> None:
    """Copy weights in, or raise an error that lists what does not fit."""
    targets = unique_parameters(model)
    head = getattr(model, "head_prefix", "head.")
    if (fresh := _other_classes(original, overrides)) or _other_head(original, overrides):
        fits = {
            key for key, value in targets.items() if key in tensors and tensors[key].shape == value.shape and not fresh
        }
        targets = {key: value for key, value in targets.items() if not key.startswith(head) or key in fits}
        tensors = {key: value for key, value in tensors.items() if not key.startswith(head) or key in fits}
    misshapen = [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}"
        for key, value in targets.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    problems = {
        "missing": sorted(set(targets) - set(tensors)),
        "unexpected": sorted(set(tensors) - set(targets)),
        "misshapen": misshapen,
    }
    if strict and any(problems.values()):
        text = "; ".join(f"{kind}: {_abridge(keys)}" for kind, keys in problems.items() if keys)
        raise UserError(f"{checkpoint.path}: its weights do not fit {type(model).__name__}: {text}")
    fitting = {k: tensors[k] for k, value in targets.items() if k in tensors and tensors[k].shape == value.shape}
    # Through the modules, some of which note what they load beside the tensors (the length of a kernel).
    model.load_state_dict(fitting, strict=False)


def _abridge(keys: list[str], limit: int = 8) -> str:
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")


def save_pretrained(model: nn.Module, folder: str | Path, *, format: str = "longscan") -> Path:
    """Write ``config.json`` and ``model.safetensors``; :func:`from_pretrained` gives back the same model, bit for bit.

    Args:
        model: a model with ``model_config()``; adapters (:mod:`longscan.core.adapters`) are merged in.
        folder: made if missing; files in it are replaced only once the new ones are complete.
        format: ``"longscan"``, or a published format that can express the model.

    Raises:
        UserError: for an unknown format, one that cannot hold the model, or a folder that cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    described: dict[str, Any] = model.model_config()  # type: ignore[operator]
    plain = merge_lora(unique_parameters(model), getattr(model, "lora_record", None))
    tensors = {key: value.detach().cpu().contiguous() for key, value in plain.items()}
    if format == "longscan":
        from .. import __version__

        config = {"longscan": __version__, **described}
    else:
        if format not in _FORMATS:
            raise UserError(f"format {format!r} is unknown; {nearest(format, list_formats())}")
        foreign = _FORMATS[format]
        if foreign.architecture != described["architecture"]:
            raise UserError(f"format {format!r} holds {foreign.architecture}, not {described['architecture']}")
        config = foreign.write_config(model.config)
        names = {key: foreign.stored(foreign.published(key, model.config), model.config) for key in tensors}
        tensors = {names[key]: value for key, value in tensors.items()}
        tensors |= {key: value.contiguous() for key, value in foreign.computed_tensors(model).items()}
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(config, indent=2) + "\n")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder}: cannot be written ({reason}); choose another folder") from error
    return folder


def convert(source: str | Path, destination: str | Path, *, format: str = "longscan", **options: Any) -> Path:
    """Read a checkpoint in any known format and write it in another (by default our own); returns the folder.

    Args:
        source: as for :func:`from_pretrained`, which also takes ``options``.
        destination: the folder to write.
        format: the format to write.
    """
    return save_pretrained(from_pretrained(source, **options), destination, format=format)
