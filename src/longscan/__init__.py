"""longscan: long-sequence models for DNA, audio, images and time series.

``import longscan`` loads neither torch nor lightning; the functions below import what they need when called.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: The domain packages, in the order in which help and listings show them.
DOMAINS = ("genomics", "audio", "vision", "timeseries")

_PUBLIC = {
    "list_models": "longscan.core.registry",
    "create_model": "longscan.core.registry",
    "from_pretrained": "longscan.core.pretrained",
}

__all__ = ["DOMAINS", "__version__", "create_model", "from_pretrained", "list_models"]

if TYPE_CHECKING:
    from .core.pretrained import from_pretrained
    from .core.registry import create_model, list_models


def _register_domains() -> None:
    """Import the models of every domain, so that the registry and the checkpoint formats know them."""
    importlib.import_module("longscan.core.models")
    for domain in DOMAINS:
        name = f"longscan.{domain}.models"
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'longscan' has no attribute {name!r}")
    _register_domains()
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
