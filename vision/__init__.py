"""Images: Vision Mamba and its neighbours.

Importing this package makes its models known to timm, ``timm.create_model("vim_tiny_patch16_224")``: at once if timm is
imported already, otherwise as soon as it is. It imports neither timm nor torch by itself; ``longscan.create_model``
does without timm.
"""

from . import timm_hook

timm_hook.install()
