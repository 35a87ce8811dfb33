"""Where a model's weights lie, so that what stands beside them can be read, and what its configuration knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import UserError
from .registry import ModelEntry, find_architecture, find_model


def model_place(name: str) -> Path:
    """Return the folder or file of a model's weights by what ``from_pretrained`` takes; it need not exist."""
    entry = _entry(name)
    if entry is not None and entry.folder is not None and not Path(name).expanduser().exists():
        return entry.folder
    return Path(name).expanduser()


def fetched_place(name: str, revision: str | None) -> Path:
    """Return the folder or file that ``from_pretrained`` has just read; one of the hub is in its cache."""
    place, entry = model_place(name), _entry(name)
    if place.exists():
        return place
    from huggingface_hub import snapshot_download

    repository = name if entry is None or entry.hub is None else entry.hub
    return Path(snapshot_download(repository, revision=revision, local_files_only=True))


def known_options(model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return those ``options`` that are fields of the configuration of a registered model or architecture."""
    entry = _entry(model)
    try:
        config = find_architecture(model if entry is None else entry.architecture).config
    except UserError:
        return {}  # create_model tells it
    fields = {field.name for field in dataclasses.fields(config)}
    return {name: value for name, value in options.items() if name in fields}


def _entry(name: str) -> ModelEntry | None:
    import longscan

    longscan.list_models()  # registers the models of every domain
    return find_model(name)
