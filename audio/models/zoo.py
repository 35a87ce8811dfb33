"""Models trained here, whose weights ship in the package."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...core.checkpoint_files import read_json
from ...core.registry import ModelEntry, register_model
from .s4_compressor import S4CompressorConfig
from .sashimi import SaShiMiConfig

_FOLDER = Path(__file__).parent.parent / "zoo"


def _compressor_config(folder: Path) -> S4CompressorConfig:
    return S4CompressorConfig(**read_json(folder / "config.json")["config"])


def _sashimi_config(folder: Path) -> SaShiMiConfig:
    return SaShiMiConfig(**read_json(folder / "config.json")["config"])


register_model(
    ModelEntry(
        name="sashimi_digits",
        domain="audio",
        config=partial(_sashimi_config, _FOLDER / "sashimi_digits"),
        architecture="SaShiMi",
        folder=_FOLDER / "sashimi_digits",
        description="SaShiMi of 1.5 M parameters on spoken digits at 8 kHz, 8-bit mu-law (audio/sashimi_digits_ar)",
    )
)

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
