"""Models trained here, whose weights ship in the package."""

from __future__ import annotations

from pathlib import Path

from ...core.registry import register_shipped

for _name, _architecture, _description in (
    ("s4d_digits", "S4Classifier", "spoken digits at 8 kHz, and with rate at others (audio/digits_official)"),
    (
        "sashimi_digits",
        "SaShiMi",
        "SaShiMi of 1.5 M parameters on spoken digits at 8 kHz, 8-bit mu-law (audio/sashimi_digits_ar)",
    ),
    (
        "digital_compressor",
        "S4Compressor",
        "dynamic range compressor at 44.1 kHz: threshold, ratio, attack, release (audio/compressor)",
    ),
):
    register_shipped(_name, "audio", _architecture, Path(__file__).parent.parent / "zoo", _description)
