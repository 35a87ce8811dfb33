"""The configuration of Vision Mamba, and the published names of its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...core.backbone import BackboneConfig
from ...core.errors import UserError, nearest
from ...core.scan_orders import scan_order
from .patches import Pair, grid_size
from .positions import ClassToken
from .vim_mixer import Directions

GlobalPool = Literal["token", "avg", "last", "max", ""]


@dataclass(frozen=True, kw_only=True)
class VimConfig:
    """Dimensions and options of a Vim; the defaults are those of the released models, with their slips mended."""

    embed_dim: int = 192
    """Width."""
    depth: int = 24
    """Blocks."""
    img_size: Any = 224
    """Height and width of the images, or one number for both."""
    patch_size: int = 16
    """Side of a patch, pixels."""
    patch_stride: int | None = None
    """Pixels from one patch to the next; by default the patch size, smaller for patches that overlap."""
    stem: Literal["patch", "convolutions"] = "patch"
    """What makes tokens of pixels: one convolution over each ``patch``, or several ``convolutions`` of 3 × 3 that get
    to ``patch_size`` by halving, for training on small sets of images."""
    in_chans: int = 3
    """Channels of the images."""
    num_classes: int = 1000
    """Classes; 0 gives features."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights."""
    head: Literal["classification"] = "classification"
    """What the model ends in."""
    class_token: ClassToken = "middle"
    """Where the class token stands: in the ``middle`` of the patches, ``first``, ``double`` (one at each end, their
    mean is the feature), or ``none``."""
    global_pool: GlobalPool | None = None
    """What the head sees: the class ``token``, the average of the patches (``avg``), the ``last`` token, all tokens
    and of the logits the largest (``max``), or every token by itself (empty). By default the class token where there
    is one, the average otherwise."""
    position_embedding: bool = True
    """Learned positions, added to patches and class token."""
    posembed_resize: Literal["exact", "vim-row0"] = "exact"
    """How positions are resized; ``vim-row0`` takes the first row for the class token's, as the original code does."""
    dynamic_img_size: bool = False
    """Take images of any size that patches fill, with positions resized to each."""
    rope: Literal["none", "patches", "vim"] = "none"
    """Rotary positions before each block; ``vim`` places them as the original code (see :mod:`.rotary`)."""
    rope_residual: bool = False
    """Turn the residual stream too."""
    rope_reference: int = 14
    """Grid to which rotary positions are scaled."""
    layers: Any = None
    """Other blocks in place of Vim's: a list as in :class:`~longscan.core.backbone.BackboneConfig`, repeated to
    ``depth``, so any mixer and channel mixer by name."""
    directions: Directions = "v2"
    """Vim's ``bimamba_type``; see :class:`~longscan.vision.models.vim_mixer.VimMixer`."""
    divide_out: bool = True
    """Halve the sum of both directions ("div2")."""
    d_state: int = 16
    """State size."""
    d_conv: int = 4
    """Width of the short convolution."""
    expand: float = 2
    """Inner width divided by ``embed_dim``."""
    dt_rank: int | None = None
    """Rank of the step sizes, by default ceil(embed_dim / 16)."""
    layer_scale: float | None = None
    """Initial value of a learned factor on each mixer's output; ``None`` is without."""
    layer_pairs: bool = False
    """Take blocks in pairs, the second of each on the reversed sequence, and add both (``if_bidirectional``)."""
    flip_ratio: float = 0.0
    """Probability in training that all blocks read the sequence backwards."""
    scan_orders: tuple[str, ...] | None = None
    """Orders of the patches (:func:`~longscan.core.scan_orders.scan_order`), one for each block in turn, as
    ``("raster", "raster_reverse", "column", "column_reverse")`` of Mamba-ND; by default row by row."""
    init: Literal["fixed", "vim"] = "fixed"
    """``vim`` starts the reverse direction as the original code does, with its step sizes' bias at zero."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Norm before each mixer, and after the last block."""
    norm_epsilon: float = 1e-5
    """Added to the mean square or variance."""
    residual_in_fp32: bool = True
    """Residual stream in float32."""
    drop_rate: float = 0.0
    """Dropout of the tokens."""
    drop_path_rate: float = 0.0
    """Stochastic depth: the last block's probability; earlier blocks' grow linearly from 0."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""

    def __post_init__(self) -> None:
        self._set("img_size", _pair(self.img_size))
        for name in ("class_names", "scan_orders"):
            if getattr(self, name) is not None:
                self._set(name, tuple(getattr(self, name)))
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise UserError(f"class_names has {len(self.class_names)} names, num_classes is {self.num_classes}")
        for name in ("embed_dim", "depth", "patch_size", "patch_stride", "in_chans"):
            value = getattr(self, name)
            if value is not None and value < 1:  # patch_stride alone may be None, and stays it: another patch_size
                raise UserError(f"{name} is {value}; expected at least 1")  # then brings its own stride
        self._choose("class_token", "middle", "first", "double", "none")
        if self.global_pool is None:
            self._set("global_pool", "avg" if self.class_token == "none" else "token")
        self._choose("global_pool", "token", "avg", "last", "max", "")
        self._choose("posembed_resize", "exact", "vim-row0")
        self._choose("rope", "none", "patches", "vim")
        self._choose("init", "fixed", "vim")
        self._choose("head", "classification")
        self._choose("stem", "patch", "convolutions")
        if self.stem == "convolutions" and self.stride != self.patch_size:
            raise UserError("patch_stride is of patches; a stem of convolutions goes by patch_size alone")
        if self.global_pool == "token" and self.class_token == "none":
            raise UserError("global_pool is 'token', but there is no class token; use 'avg', 'last' or 'max'")
        if min(self.grid) < 1:
            raise UserError(f"img_size {self.img_size} is smaller than a patch of {self.patch_size} pixels")
        if self.rope != "none" and self.embed_dim % 4:
            raise UserError(f"embed_dim is {self.embed_dim}; rotary positions need a multiple of 4")
        if self.layer_pairs and self.depth % 2:
            raise UserError(f"depth is {self.depth}; layer_pairs needs an even number of blocks")
        if self.scan_orders is not None:
            if self.layer_pairs:
                raise UserError("layer_pairs and scan_orders both say how blocks read the patches; give one of them")
            for name in self.scan_orders:
                scan_order(name, 1, 1)  # an unknown name is told now

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _choose(self, name: str, *known: str) -> None:
        if getattr(self, name) not in known:
            raise UserError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}")

    @property
    def stride(self) -> int:
        """Pixels from one patch to the next."""
        return self.patch_size if self.patch_stride is None else self.patch_stride

    @property
    def grid(self) -> Pair:
        """Rows and columns of patches of an image of ``img_size``."""
        return grid_size(self.img_size, self.patch_size, self.stride)

    def backbone(self) -> BackboneConfig:
        """Return the stack of blocks: ``h = h + mixer(norm(h))``."""
        mixer = {
            "name": "vim",
            "directions": self.directions,
            "divide_out": self.divide_out,
            "layer_scale": self.layer_scale,
            "init": self.init,
            "d_state": self.d_state,
            "d_conv": self.d_conv,
            "expand": self.expand,
            "dt_rank": self.dt_rank or "auto",
        }
        layers = [mixer] if self.layers is None else list(self.layers)
        return BackboneConfig(
            d_model=self.embed_dim,
            layers=[layers[i % len(layers)] for i in range(self.depth)] if layers else [],
            norm=self.norm,
            norm_epsilon=self.norm_epsilon,
            residual_in_fp32=self.residual_in_fp32,
            drop_path=self.drop_path_rate,
            gradient_checkpointing=self.gradient_checkpointing,
        )


def _pair(size: Any) -> Pair:
    try:
        height, width = (size, size) if isinstance(size, int) else size
        return int(height), int(width)
    except (TypeError, ValueError) as error:
        raise UserError(f"img_size is {size!r}; expected a number of pixels, or height and width") from error


#: Published constructor arguments with another name of ours and the same meaning.
_RENAMED = {
    "img_size": "img_size",
    "patch_size": "patch_size",
    "stride": "patch_stride",
    "depth": "depth",
    "embed_dim": "embed_dim",
    "d_state": "d_state",
    "channels": "in_chans",
    "num_classes": "num_classes",
    "drop_rate": "drop_rate",
    "drop_path_rate": "drop_path_rate",
    "norm_epsilon": "norm_epsilon",
    "residual_in_fp32": "residual_in_fp32",
    "pt_hw_seq_len": "rope_reference",
    "if_abs_pos_embed": "position_embedding",
    "if_rope_residual": "rope_residual",
    "if_bidirectional": "layer_pairs",
    "bimamba_type": "directions",
    "if_divide_out": "divide_out",
    "init_layer_scale": "layer_scale",
}
_HANDLED = {
    "rms_norm",
    "if_rope",
    "if_cls_token",
    "use_double_cls_token",
    "use_middle_cls_token",
    "final_pool_type",
    "flip_img_sequences_ratio",
    "ssm_cfg",
}
#: What chooses a kernel or is never read.
_WITHOUT_EFFECT = {
    "fused_add_norm",
    "if_bimamba",
    "if_devide_out",
    "initializer_cfg",
    "ft_seq_len",
    "device",
    "dtype",
    "drop_block_rate",
    "img_seq_len",
}
_POOLS: dict[str, GlobalPool] = {"none": "last", "mean": "avg", "max": "max", "all": ""}


def from_published(arguments: Mapping[str, Any]) -> VimConfig:
    """Translate constructor arguments of the original ``VisionMamba``, with its defaults and its quirks.

    Raises:
        UserError: for an argument that it does not have, or ``ft_seq_len`` other than the grid's.
    """
    known = {*_RENAMED, *_HANDLED, *_WITHOUT_EFFECT}
    for name in arguments:
        if name not in known:
            raise UserError(f"VisionMamba has no argument {name!r}; {nearest(name, known)}")
    published = {"stride": 16, "drop_path_rate": 0.1, **arguments}
    options: dict[str, Any] = {_RENAMED[name]: value for name, value in published.items() if name in _RENAMED}
    options["norm"] = "rmsnorm" if published.get("rms_norm", True) else "layernorm"
    options["rope"] = "vim" if published.get("if_rope", False) else "none"
    options["flip_ratio"] = max(0.0, published.get("flip_img_sequences_ratio", 0.0))
    class_token: ClassToken = "first"
    if not published.get("if_cls_token", True):
        class_token = "none"
    elif published.get("use_double_cls_token", False):
        class_token = "double"
    elif published.get("use_middle_cls_token", True):
        class_token = "middle"
    pool = published.get("final_pool_type", "none")
    if pool not in _POOLS:
        raise UserError(f"final_pool_type is {pool!r}; expected one of {', '.join(_POOLS)}")
    options["class_token"] = class_token
    options["global_pool"] = _POOLS[pool] if class_token == "none" else "token"
    return VimConfig(init="vim", posembed_resize="vim-row0", **options, **(published.get("ssm_cfg") or {}))
