"""The registry of models: architectures that a saved configuration names, and published or shipped models by name."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from .checkpoint_files import read_json
from .errors import UserError, nearest


@dataclass(frozen=True)
class Architecture:
    """A model class and the dataclass of its configuration."""

    name: str
    model: type[nn.Module]
    config: type


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be asked for by name."""

    name: str
    """``hyenadna_tiny_1k``: lower case, underscores."""
    domain: str
    """The domain package that registered it, or ``core``."""
    config: Callable[[], Any]
    """Makes its configuration."""
    architecture: str
    """Name of its architecture."""
    aliases: tuple[str, ...] = ()
    """Other names, above all the published ones."""
    hub: str | None = None
    """Hub repository of its published weights."""
    hub_file: str | None = None
    """The file in it, where it holds several models."""
    folder: Path | None = None
    """Folder with weights that ship in the package."""
    description: str = ""
    """One line for listings."""

    @property
    def pretrained(self) -> bool:
        """Whether weights are known for it."""
        return self.hub is not None or self.folder is not None


_ARCHITECTURES: dict[str, Architecture] = {}
_MODELS: dict[str, ModelEntry] = {}
_ALIASES: dict[str, str] = {}
ModelClass = TypeVar("ModelClass", bound=type[nn.Module])


def register_architecture(name: str, config: type) -> Callable[[ModelClass], ModelClass]:
    """Class decorator: let saved models name this class; ``config`` is the dataclass that its constructor takes."""

    def decorate(cls: ModelClass) -> ModelClass:
        if name in _ARCHITECTURES:
            raise ValueError(f"architecture {name!r} is registered already")
        _ARCHITECTURES[name] = Architecture(name, cls, config)
        return cls

    return decorate


def register_model(entry: ModelEntry) -> None:
    """Make a model available by its name and aliases.

    Raises:
        ValueError: if a name is taken.
    """
    for name in (entry.name, *entry.aliases):
        if name in _MODELS or name in _ALIASES:
            raise ValueError(f"model {name!r} is registered already")
    _MODELS[entry.name] = entry
    _ALIASES.update(dict.fromkeys(entry.aliases, entry.name))


def register_shipped(name: str, domain: str, architecture: str, folder: Path, description: str) -> None:
    """Make a model available whose weights and ``config.json`` ship in the package, in ``folder / name``.

    Raises:
        ValueError: if the name is taken.
    """
    config = partial(_stored_config, architecture, folder / name)
    register_model(ModelEntry(name, domain, config, architecture, folder=folder / name, description=description))


def _stored_config(architecture: str, folder: Path) -> Any:
    return find_architecture(architecture).config(**read_json(folder / "config.json")["config"])


def find_architecture(name: str) -> Architecture:
    """Return the architecture ``name``.

    Raises:
        UserError: if there is none.
    """
    if name not in _ARCHITECTURES:
        raise UserError(f"architecture {name!r} is unknown; {nearest(name, _ARCHITECTURES)}")
    return _ARCHITECTURES[name]


def find_model(name: str) -> ModelEntry | None:
    """Return the registered model of this name or alias, or ``None``."""
    return _MODELS.get(_ALIASES.get(name, name))


def list_models(pattern: str = "*", *, domain: str | None = None, pretrained: bool | None = None) -> list[str]:
    """Return the names of registered models, sorted.

    Args:
        pattern: shell-style wildcard, as in ``"*dna*"``.
        domain: only models of this domain (``"genomics"``, …, ``"core"``).
        pretrained: only models with (or, if false, without) known weights.
    """
    return sorted(
        entry.name
        for entry in _MODELS.values()
        if fnmatch.fnmatchcase(entry.name, pattern)
        and domain in (None, entry.domain)
        and pretrained in (None, entry.pretrained)
    )


def unknown_model(name: str) -> UserError:
    """Return the error for a name that no model has, with the nearest names."""
    return UserError(f"model {name!r} is unknown; {nearest(name, [*_MODELS, *_ALIASES])} (see `longscan models`)")


def apply_overrides(config: Any, overrides: dict[str, Any]) -> Any:
    """Return ``config`` with fields replaced.

    Raises:
        UserError: for a field that it does not have, naming the nearest ones.
    """
    fields = [field.name for field in dataclasses.fields(config)]
    for key in overrides:
        if key not in fields:
            raise UserError(f"{type(config).__name__} has no option {key!r}; {nearest(key, fields)}")
    return dataclasses.replace(config, **overrides)


def build(architecture: str, config: Any) -> nn.Module:
    """Build an architecture from its configuration, given as its dataclass or as a mapping of its fields.

    Raises:
        UserError: for an unknown architecture or an option that it does not have.
    """
    entry = find_architecture(architecture)
    try:
        return entry.model(entry.config(**config) if isinstance(config, dict) else config)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"configuration of {architecture}: {error}") from error


def create_model(name: str, **overrides: Any) -> nn.Module:
    """Build a registered model with random weights.

    Args:
        name: a registered or published name, as in ``"hyenadna_tiny_1k"``, or an architecture, as in
            ``"LanguageModel"``, whose configuration is then given whole.
        overrides: fields of its configuration to replace, as in ``head="classification", num_classes=2``.

    Raises:
        UserError: for an unknown name or option.
    """
    entry = find_model(name)
    if entry is None and name in _ARCHITECTURES:
        return build(name, overrides)
    if entry is None:
        raise unknown_model(name)
    return build(entry.architecture, apply_overrides(entry.config(), overrides))
