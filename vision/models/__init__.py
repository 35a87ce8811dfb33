"""Models of images, exact to the published ones."""

from . import isotropic_names, local_names, vim_names, vmamba_names, zoo  # noqa: F401  (register the models)
from .gated_conv import GatedConv
from .local_mixer import LocalMamba
from .pixel_classifier import PixelClassifier
from .segmenter import Segmenter
from .timm_model import TimmModel
from .video_mamba import VideoMamba, VideoMambaConfig
from .vim import Vim
from .vim_config import VimConfig, from_published
from .vim_format import VimCheckpoint
from .vim_mixer import VimMixer
from .vmamba import VMamba
from .vmamba_config import VMambaConfig, vmamba_from_published
from .vmamba_format import VMambaCheckpoint

__all__ = [
    "GatedConv",
    "LocalMamba",
    "PixelClassifier",
    "Segmenter",
    "TimmModel",
    "VMamba",
    "VMambaCheckpoint",
    "VMambaConfig",
    "VideoMamba",
    "VideoMambaConfig",
    "Vim",
    "VimCheckpoint",
    "VimConfig",
    "VimMixer",
    "from_published",
    "vmamba_from_published",
]
