"""Sequence mixers: one file for each published layer, one interface for all."""

from .attention import Attention
from .base import SequenceMixer, State, clone_state, create_mixer, list_mixers, register_mixer
from .bidirectional import Bidirectional
from .dss import DSS
from .gated_delta_product import GatedDeltaProduct
from .gss import GSS
from .hydra import Hydra
from .hyena import Hyena
from .longconv import LongConv
from .lru import LRU
from .mamba import Mamba
from .mega_ema import MegaEMA
from .mlstm import MLSTM
from .s4 import S4
from .s4d import S4D
from .s5 import S5
from .sgconv import SGConv
from .slstm import SLSTM

__all__ = [
    "DSS",
    "GSS",
    "LRU",
    "MLSTM",
    "S4",
    "S4D",
    "S5",
    "SLSTM",
    "Attention",
    "Bidirectional",
    "GatedDeltaProduct",
    "Hydra",
    "Hyena",
    "LongConv",
    "Mamba",
    "MegaEMA",
    "SGConv",
    "SequenceMixer",
    "State",
    "clone_state",
    "create_mixer",
    "list_mixers",
    "register_mixer",
]
