"""Models of images, exact to the published ones."""

from . import vim_names, vmamba_names  # noqa: F401  (register the models)
from .local_mixer import LocalMamba
from .vim import Vim
from .vim_config import VimConfig, from_published
from .vim_format import VimCheckpoint
from .vim_mixer import VimMixer
from .vmamba import VMamba
from .vmamba_config import VMambaConfig, vmamba_from_published
from .vmamba_format import VMambaCheckpoint

__all__ = [
    "LocalMamba",
    "VMamba",
    "VMambaCheckpoint",
    "VMambaConfig",
    "Vim",
    "VimCheckpoint",
    "VimConfig",
    "VimMixer",
    "from_published",
    "vmamba_from_published",
]
