"""The configuration of VMamba, and the published names of its options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...core.errors import UserError, nearest
from .patches import Pair
from .ss2d import route_names
from .vim_config import _pair


@dataclass(frozen=True, kw_only=True)
class VMambaConfig:
    """Dimensions and options of a VMamba; the defaults are those of the released models."""

    embed_dim: int = 96
    """Width of the first stage; each further one has twice as much."""
    depths: tuple[int, ...] = (2, 2, 8, 2)
    """Blocks of each stage."""
    img_size: Any = 224
    """Nominal height and width; any size is taken."""
    in_chans: int = 3
    """Channels of the images."""
    num_classes: int = 1000
    """Classes; 0 gives features."""
    class_names: tuple[str, ...] | None = None
    """Their names, in the order of the logits; kept with the weights."""
    head: Literal["classification"] = "classification"
    """What the model ends in."""
    global_pool: Literal["avg", ""] = "avg"
    """Average of the map, or (empty) none."""
    d_state: int = 1
    """State size."""
    ssm_ratio: float = 1.0
    """Inner width of the scan divided by the width."""
    dt_rank: int | None = None
    """Rank of the step sizes, by default ceil(width / 16)."""
    conv: int = 3
    """Width of the depthwise convolution before the scan."""
    conv_bias: bool = False
    """Its bias."""
    gate: bool = False
    """Gate the output of the scan."""
    gate_activation: bool = True
    """SiLU on the gate."""
    out_activation: bool = False
    """GELU after the scan's norm."""
    routes: Any = "cross"
    """Routes of the scan (:class:`~longscan.vision.models.ss2d.SS2D`), a name or scan orders; or a list of these, one
    for each block, as LocalVMamba has them."""
    padded: bool = False
    """Windows that the map does not fill read zeros, as LocalVMamba's do."""
    channel_attention: bool = False
    """Weight the channels of each route before they are added, as LocalVMamba does."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs divided by the width; 0 is without MLPs."""
    post_norm: bool = False
    """Norm after each branch instead of before it."""
    stem: Literal["v1", "v2"] = "v2"
    """``v2``: two convolutions of stride 2; ``v1``: patches of 4 × 4."""
    downsample: Literal["v1", "v2", "v3"] = "v3"
    """``v3``: convolution 3 × 3, ``v2``: 2 × 2, ``v1``: merging of 2 × 2 cells."""
    position_embedding: bool = False
    """Learned positions for ``img_size``, resized to other sizes."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    drop_path_rate: float = 0.0
    """Stochastic depth: the last block's probability; earlier blocks' grow linearly from 0."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass."""

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("img_size", _pair(self.img_size))
        put("depths", tuple(self.depths))
        if self.class_names is not None:
            put("class_names", tuple(self.class_names))
            if len(self.class_names or ()) != self.num_classes:
                raise UserError(
                    f"class_names has {len(self.class_names or ())} names, num_classes is {self.num_classes}"
                )
        for name, known in (
            ("stem", ("v1", "v2")),
            ("downsample", ("v1", "v2", "v3")),
            ("global_pool", ("avg", "")),
            ("head", ("classification",)),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, known))}")
        if not self.depths or min(self.depths) < 1:
            raise UserError(f"depths is {self.depths}; expected at least one block in each stage")
        for routes in self.block_routes():
            route_names(routes)

    def dims(self) -> list[int]:
        """Return the width of each stage."""
        return [self.embed_dim * 2**i for i in range(len(self.depths))]

    def block_routes(self) -> list[Any]:
        """Return the routes of each block."""
        routes = self.routes
        if isinstance(routes, str) or all(isinstance(name, str) for name in routes):
            return [routes] * sum(self.depths)
        if len(routes) != sum(self.depths):
            raise UserError(f"routes has {len(routes)} entries, expected one for each of {sum(self.depths)} blocks")
        return list(routes)

    @property
    def grid(self) -> Pair:
        """Rows and columns of the first stage's map at ``img_size``: a quarter, rounded up with stem v2."""
        height, width = self.img_size
        return (height // 4, width // 4) if self.stem == "v1" else (-(-height // 4), -(-width // 4))


_RENAMED = {
    "in_chans": "in_chans",
    "num_classes": "num_classes",
    "depths": "depths",
    "ssm_d_state": "d_state",
    "ssm_ratio": "ssm_ratio",
    "ssm_conv": "conv",
    "ssm_conv_bias": "conv_bias",
    "mlp_ratio": "mlp_ratio",
    "drop_path_rate": "drop_path_rate",
    "downsample_version": "downsample",
    "patchembed_version": "stem",
    "posembed": "position_embedding",
    "imgsize": "img_size",
}
#: What is handled apart, or the only value of each that is supported.
_OTHERS: dict[str, Any] = {
    "dims": None,
    "ssm_dt_rank": None,
    "forward_type": None,
    "norm_layer": None,  # ln2d computes what ln does
    "use_checkpoint": None,
    "ssm_init": None,  # chooses initial values alone
    "patch_size": 4,
    "ssm_act_layer": "silu",
    "ssm_drop_rate": 0.0,
    "mlp_act_layer": "gelu",
    "mlp_drop_rate": 0.0,
    "gmlp": False,
    "patch_norm": True,
}
_SCANS = {"1d": "unidirectional", "2d": "bidirectional", "2d3": "rotation", "": "cross"}


def vmamba_from_published(arguments: Mapping[str, Any]) -> VMambaConfig:
    """Translate constructor arguments of the original ``VSSM``.

    Raises:
        UserError: for an argument or a value that is not supported.
    """
    known = {*_RENAMED, *_OTHERS}
    options: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in known:
            raise UserError(f"VSSM has no argument {name!r}; {nearest(name, known)}")
        if name in _RENAMED:
            options[_RENAMED[name]] = value
        elif _OTHERS[name] is not None and value != _OTHERS[name]:
            raise UserError(f"{name} = {value!r} is not supported; known is {_OTHERS[name]!r}")
    dims = arguments.get("dims", 96)
    first = dims if isinstance(dims, int) else dims[0]
    if not isinstance(dims, int) and list(dims) != [first * 2**i for i in range(len(dims))]:
        raise UserError(f"dims {dims} do not double from stage to stage, which is not supported")
    rank = arguments.get("ssm_dt_rank", "auto")
    forward_type = str(arguments.get("forward_type", "v05"))
    match = re.fullmatch(r"v(?:0|01|02|03|04|05(1d|2d3|2d)?)((?:_(?:noz|nozact|oact|no32))*)", forward_type)
    if match is None:
        raise UserError(
            f"forward_type {forward_type!r} is not supported; known are v0, v05, v051d, v052d, v052d3 "
            "with _noz, _nozact, _oact, _no32"
        )
    suffixes = (match[2] or "").split("_")
    return VMambaConfig(
        embed_dim=first,
        dt_rank=None if rank == "auto" else int(rank),
        routes=_SCANS[match[1] or ""],
        gate="noz" not in suffixes,
        gate_activation="nozact" not in suffixes,
        out_activation="oact" in suffixes,
        **options,
    )
