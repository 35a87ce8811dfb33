"""Audio data: recordings with classes, as codes for autoregressive modelling, and as pairs of an effect.

The data modules need lightning, which takes seconds to import, so each is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .autoregressive import AudioTokenDataModule
    from .classification import AudioClassificationDataModule
    from .compression import CompressorDataModule
    from .effects import EffectDataModule
    from .files import AudioFormat, AudioInfo, read_audio, read_info
    from .waveforms import WaveformDataModule
    from .writing import write_audio

_MODULES = {
    "AudioClassificationDataModule": "classification",
    "AudioFormat": "files",
    "AudioInfo": "files",
    "AudioTokenDataModule": "autoregressive",
    "CompressorDataModule": "compression",
    "EffectDataModule": "effects",
    "WaveformDataModule": "waveforms",
    "read_audio": "files",
    "read_info": "files",
    "write_audio": "writing",
}

__all__ = [
    "AudioClassificationDataModule",
    "AudioFormat",
    "AudioInfo",
    "AudioTokenDataModule",
    "CompressorDataModule",
    "EffectDataModule",
    "WaveformDataModule",
    "read_audio",
    "read_info",
    "write_audio",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
