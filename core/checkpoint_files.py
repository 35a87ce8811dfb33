"""Reading checkpoint files: tensors and plain data only, never code, and one-line errors."""

from __future__ import annotations

import argparse
import json
import pickle
import warnings
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import UserError

#: Files looked for in a folder, best first.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "weights.ckpt",
    "model.pt",
    "model.pth",
)
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclass
class Checkpoint:
    """What a checkpoint holds, before anyone decides what it means."""

    path: Path
    """The file or folder it came from."""
    tensors: dict[str, Tensor]
    """The weights by the names in the file."""
    config: dict[str, Any] | None = None
    """``config.json`` beside the weights, or the configuration stored with them."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other entries of a training checkpoint (``longscan``, ``epoch``, …)."""


class _InertConfig(dict):  # type: ignore[type-arg]
    """Stands in for configuration containers of training programs, which hold data alone."""


#: Containers that published training checkpoints hold beside the weights. They are read as plain data.
_HARMLESS = [
    argparse.Namespace,
    OrderedDict,
    (_InertConfig, "omegaconf.dictconfig.DictConfig"),
    (_InertConfig, "omegaconf.listconfig.ListConfig"),
    (_InertConfig, "omegaconf.base.ContainerMetadata"),
    (_InertConfig, "omegaconf.base.Metadata"),
    (_InertConfig, "omegaconf.nodes.AnyNode"),
    (_InertConfig, "lightning_fabric.utilities.data.AttributeDict"),
    (_InertConfig, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (_InertConfig, "lightning.fabric.utilities.data.AttributeDict"),
]


def load_torch_file(path: Path, map_location: str = "cpu", *, foreign: bool = True) -> Any:
    """Read a ``torch.save`` file, refusing anything that would run code.

    Args:
        path: the file.
        map_location: the device of its tensors.
        foreign: read the configuration containers of other training programs as plain data; refused otherwise.

    Raises:
        UserError: if the file is missing, cut short, no torch file, or holds pickled code.
    """
    try:
        harmless: list[Any] = _HARMLESS if foreign else []
        with torch.serialization.safe_globals(harmless), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of files that are no pickle at all
            return torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except pickle.UnpicklingError as error:
        text = str(error)
        if ("GLOBAL" in text or "global" in text) and _is_pickle(path):
            name = text.split("GLOBAL ")[-1].split()[0] if "GLOBAL " in text else "unknown"
            raise UserError(
                f"{path}: refused, since it holds pickled code ({name}) that would run on loading; "
                "ask its author for a safetensors file or a plain state dict"
            ) from error
        raise UserError(f"{path}: is no torch checkpoint or is damaged; fetch it again") from error
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can fail in any way: EOFError, IndexError, OSError of the reader, …
        first = (str(error).strip() or type(error).__name__).split("\n")[0][:120]
        raise UserError(f"{path}: is cut short or damaged ({first}); fetch it again") from error


def _is_pickle(path: Path) -> bool:
    """Whether a file begins as what ``torch.save`` writes, old or new; text may look like pickled code by chance."""
    with path.open("rb") as stream:
        return stream.read(1) == b"\x80" or zipfile.is_zipfile(path)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: if it is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such checkpoint") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: is cut short or no safetensors file ({error}); fetch it again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, with transformers' ``{"__float__": "Infinity"}`` taken for the number.

    Raises:
        UserError: if it is no JSON object.
    """

    def revive(value: dict[str, Any]) -> Any:
        return float(value["__float__"]) if set(value) == {"__float__"} else value

    try:
        data = json.loads(path.read_text(), object_hook=revive)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: is no readable JSON file ({error})") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds {type(data).__name__}, expected a JSON object")
    return data


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors of one file, and what else a training checkpoint holds."""
    if path.name.endswith(".index.json"):
        tensors: dict[str, Tensor] = {}
        where = read_json(path).get("weight_map")
        if not isinstance(where, dict):
            raise UserError(f"{path}: has no 'weight_map', which would name the files of the weights; fetch it again")
        for shard in sorted(set(where.values())):
            tensors |= _read_weights(path.parent / shard)[0]
        return tensors, {}
    if path.suffix == ".safetensors":
        return load_tensors(path), {}
    data = load_torch_file(path)
    extra: dict[str, Any] = {}
    if isinstance(data, dict):
        for wrapper in ("state_dict", "model"):
            if isinstance(data.get(wrapper), dict):
                extra = {key: value for key, value in data.items() if key != wrapper}
                data = data[wrapper]
                break
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds a {type(data).__name__}, expected a dictionary of tensors")
    tensors = {key: value for key, value in data.items() if isinstance(value, Tensor)}
    if not tensors:
        raise UserError(f"{path}: holds no weights; its entries are {', '.join(map(str, list(data)[:5])) or 'none'}")
    return tensors, extra


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, or a folder with weights and ``config.json``.

    Raises:
        UserError: if nothing readable is there.
    """
    if path.is_dir():
        weights = next((path / name for name in WEIGHT_FILES if (path / name).exists()), None)
        if weights is None:
            others = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
            if len(others) != 1:
                found = ", ".join(p.name for p in others) or "none"
                raise UserError(f"{path}: expected one of {', '.join(WEIGHT_FILES)} in this folder; found {found}")
            weights = others[0]
    else:
        weights = path
        if not weights.exists():
            raise UserError(f"{path}: there is no such file or folder")
        if not weights.name.endswith((*SUFFIXES, ".index.json")):
            raise UserError(f"{path}: is no checkpoint file; known endings are {', '.join(SUFFIXES)}")
    tensors, extra = _read_weights(weights)
    config_file = weights.parent / "config.json"
    config = read_json(config_file) if config_file.exists() else None
    return Checkpoint(path, tensors, config, extra)
