"""Models trained here, whose weights ship in the package."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...core.checkpoint_files import read_json
from ...core.registry import ModelEntry, register_model
from .s4_compressor import S4CompressorConfig

_FOLDER = Path(__file__).parent.parent / "zoo"


def _compressor_config(folder: Path) -> S4CompressorConfig:
    return S4CompressorConfig(**read_json(folder / "config.json")["config"])


register_model(
    ModelEntry(
        name="digital_compressor",
        domain="audio",
        config=partial(_compressor_config, _FOLDER / "digital_compressor"),
        architecture="S4Compressor",
        folder=_FOLDER / "digital_compressor",
        description="dynamic range compressor at 44.1 kHz: threshold, ratio, attack, release (audio/compressor)",
    )
)
