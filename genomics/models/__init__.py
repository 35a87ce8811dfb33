"""DNA models, exact to the published ones."""

from . import zoo  # noqa: F401  (registers the models that ship)
from .caduceus import Caduceus, CaduceusConfig
from .caduceus_format import CaduceusHub
from .hyenadna import HyenaDNA, HyenaDNAConfig
from .hyenadna_formats import HyenaDNAGitHub, HyenaDNAHub

__all__ = ["Caduceus", "CaduceusConfig", "CaduceusHub", "HyenaDNA", "HyenaDNAConfig", "HyenaDNAGitHub", "HyenaDNAHub"]
