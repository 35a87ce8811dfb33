"""Sequence mixers: one file for each published layer, one interface for all."""

from .attention import Attention
from .base import SequenceMixer, State, clone_state, create_mixer, list_mixers, register_mixer
from .bidirectional import Bidirectional
from .hyena import Hyena
from .mamba import Mamba

__all__ = [
    "Attention",
    "Bidirectional",
    "Hyena",
    "Mamba",
    "SequenceMixer",
    "State",
    "clone_state",
    "create_mixer",
    "list_mixers",
    "register_mixer",
]
