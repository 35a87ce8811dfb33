"""VMamba (Liu et al. 2024, arXiv:2401.10166), exact to the published code: four stages of two-dimensional scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...core.backbone import DropPath
from ...core.channel_mixers import MLP
from ...core.errors import UserError
from ...core.norms import LayerNorm
from ...core.registry import register_architecture
from .image_model import ImageModel, take_indices
from .patches import Pair, change_channels
from .ss2d import SS2D
from .vmamba_config import VMambaConfig


class _ChannelsLast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class _ChannelsFirst(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


class PatchMerging(nn.Module):
    """Swin's downsampling: 2 × 2 cells side by side, a norm and a projection; odd maps are padded by zeros."""

    def __init__(self, dim: int, epsilon: float) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)
        self.norm = LayerNorm(4 * dim, epsilon)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, height, width, dim) to (batch, ⌈height / 2⌉, ⌈width / 2⌉, 2 · dim)."""
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        cells = [x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(cells, dim=-1)))


class VMambaBlock(nn.Module):
    """``x + SS2D(norm(x))``, then ``x + MLP(norm2(x))``, on (batch, height, width, dim)."""

    def __init__(self, config: VMambaConfig, dim: int, routes: Any, drop_path: float) -> None:
        super().__init__()
        self.post_norm = config.post_norm
        self.norm = LayerNorm(dim, config.norm_epsilon)
        self.op = SS2D(
            dim,
            config.d_state,
            config.ssm_ratio,
            config.dt_rank,
            config.conv,
            config.conv_bias,
            config.gate,
            config.gate_activation,
            config.out_activation,
            routes,
            config.padded,
            config.channel_attention,
            config.norm_epsilon,
        )
        self.drop_path = DropPath(drop_path)
        self.norm2: nn.Module | None = None
        self.mlp: nn.Module | None = None
        if config.mlp_ratio > 0:
            self.norm2 = LayerNorm(dim, config.norm_epsilon)
            self.mlp = MLP(dim, int(dim * config.mlp_ratio), "gelu")

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        x = x + self.drop_path(self._branch(self.norm, self.op, x))
        if self.norm2 is not None and self.mlp is not None:
            x = x + self.drop_path(self._branch(self.norm2, self.mlp, x))
        return x

    def _branch(self, norm: nn.Module, branch: nn.Module, x: Tensor) -> Tensor:
        return norm(branch(x)) if self.post_norm else branch(norm(x))


@register_architecture("VMamba", VMambaConfig)
class VMamba(ImageModel):
    """A stem to a quarter of the resolution, stages of blocks with a downsampling between them, norm and classifier.

    Parameter names are those of the published checkpoints. ``forward_features`` gives the last map before the norm,
    (batch, rows, columns, channels); images of any size are taken.
    """

    config: VMambaConfig
    #: Prefix of the classifier's parameters.
    head_prefix = "classifier.head."
    #: Layout of the maps of ``forward_features``, in timm's words.
    output_fmt = "NHWC"

    def __init__(self, config: VMambaConfig) -> None:
        super().__init__()
        self.config = config
        dims = config.dims()
        self.num_features = self.head_hidden_size = dims[-1]
        self.grad_checkpointing = config.gradient_checkpointing
        self.patch_embed = _stem(config)
        if config.position_embedding:
            self.pos_embed = nn.Parameter(torch.zeros(1, dims[0], *config.grid))
            self.pos_embed._no_weight_decay = True  # type: ignore[attr-defined]
        routes, total = config.block_routes(), sum(config.depths)
        rates = [config.drop_path_rate * i / max(1, total - 1) for i in range(total)]
        self.layers = nn.ModuleList()
        first = 0
        for i, (dim, depth) in enumerate(zip(dims, config.depths, strict=True)):
            blocks = [VMambaBlock(config, dim, routes[j], rates[j]) for j in range(first, first + depth)]
            last = i == len(dims) - 1
            stage = {
                "blocks": nn.Sequential(*blocks),
                "downsample": nn.Identity() if last else _downsample(config, dim),
            }
            self.layers.append(nn.ModuleDict(stage))
            first += depth
        self.classifier = nn.ModuleDict(
            {"norm": LayerNorm(dims[-1], config.norm_epsilon), "head": self.make_head(config.num_classes)}
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if config.position_embedding:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"layers.{i}"} for i, dim in enumerate(dims)
        ]

    def get_classifier(self) -> nn.Module:
        """Return the classifier, a linear layer, or an identity without classes."""
        return self.classifier["head"]

    def set_head(self, head: nn.Module) -> None:
        """Put a module in place of the classifier."""
        self.classifier["head"] = head

    def embed(self, images: Tensor) -> Tensor:
        """Images (batch, channels, height, width) to the first map, (batch, rows, columns, embed_dim).

        Raises:
            UserError: for other channels, or with stem v1 sides that are no multiple of 4.
        """
        config = self.config
        if images.dim() != 4 or images.shape[1] != config.in_chans:
            raise UserError(
                f"images are {tuple(images.shape)}, expected (batch, {config.in_chans}, height, width); "
                "build the model with in_chans=… for other channels"
            )
        if config.stem == "v1" and (images.shape[2] % 4 or images.shape[3] % 4):
            raise UserError(f"images are {images.shape[2]} × {images.shape[3]}; stem v1 takes multiples of 4")
        x = self.patch_embed(images)
        if config.position_embedding:
            positions = _resized(self.pos_embed, (x.shape[1], x.shape[2]))
            x = x + positions.permute(0, 2, 3, 1).to(x.dtype)
        return x

    def _stages(self, x: Tensor, count: int) -> list[Tensor]:
        """Return the map of each of the first stages, before its downsampling."""
        maps = []
        for i, stage in enumerate(self.layers):
            if i == count:
                break
            if i > 0:
                previous = self.layers[i - 1]
                assert isinstance(previous, nn.ModuleDict)
                x = previous["downsample"](x)
            assert isinstance(stage, nn.ModuleDict)
            for block in stage["blocks"].children():
                recompute = self.grad_checkpointing and self.training and torch.is_grad_enabled()
                x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
            maps.append(x)
        return maps

    def forward_features(self, x: Tensor) -> Tensor:
        """See the class."""
        return self._stages(self.embed(x), len(self.layers))[-1]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last map to logits, or with ``pre_logits`` to the average of its normed cells."""
        x = self.classifier["norm"](x)
        if self.config.global_pool == "avg":
            x = x.mean((1, 2))
        return x if pre_logits else self.classifier["head"](x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """Return the maps of some stages: the last n, those given (from the end where negative), or all.

        ``norm`` applies the final norm to the last stage's map. Returns (last map, maps), or what the options ask for;
        maps are (batch, channels, rows, columns), or with ``output_fmt="NHWC"`` channels last.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise UserError(f"output_fmt is {output_fmt!r}; expected 'NCHW' or 'NHWC'")
        chosen, last = take_indices(len(self.layers), indices)
        maps = self._stages(self.embed(x), last + 1 if stop_early else len(self.layers))
        final = maps[-1]
        if norm and len(maps) == len(self.config.depths):
            maps[-1] = self.classifier["norm"](maps[-1])
        taken = [maps[i] for i in sorted(set(chosen))]
        if output_fmt == "NCHW":
            taken = [y.permute(0, 3, 1, 2).contiguous() for y in taken]
        if output_dict:
            return {"image_intermediates": taken} | ({} if intermediates_only else {"image_features": final})
        return taken if intermediates_only else (final, taken)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last one asked for, and if told the final norm and the head."""
        chosen, last = take_indices(len(self.layers), indices)
        self.layers = self.layers[: last + 1]
        if prune_norm:
            self.classifier["norm"] = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return chosen

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of parameter names: the stem, the stages or blocks, what follows them."""
        blocks: list[Any] = [(r"^layers\.(\d+)", None)]
        if not coarse:
            blocks = [(r"^layers\.(\d+)\.downsample", (0,)), (r"^layers\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^patch_embed|^pos_embed", "blocks": [*blocks, (r"^classifier\.norm", (99999,))]}

    def set_input_size(self, img_size: int | Pair | None = None) -> None:
        """Note another nominal size, with resized positions where there are any."""
        if img_size is None:
            return
        self.change_config(img_size=img_size)
        if self.config.position_embedding:
            resized = nn.Parameter(_resized(self.pos_embed, self.config.grid).detach().clone())
            resized._no_weight_decay = True  # type: ignore[attr-defined]
            self.pos_embed = resized

    def fit_weights(self, tensors: Mapping[str, Tensor], source: Any) -> dict[str, Tensor]:
        """Fit weights of a VMamba of configuration ``source`` to this one's channels and positions."""
        fitted = dict(tensors)
        with torch.no_grad():
            if "pos_embed" in fitted:
                fitted["pos_embed"] = _resized(fitted["pos_embed"], self.config.grid)
            if (kernel := fitted.get("patch_embed.0.weight")) is not None:
                fitted["patch_embed.0.weight"] = change_channels(kernel, self.config.in_chans)
        return fitted


def _stem(config: VMambaConfig) -> nn.Sequential:
    """The published numbers of the layers in it: v1 0 and 2, v2 0, 2, 5 and 7."""
    dim, epsilon = config.embed_dim, config.norm_epsilon
    if config.stem == "v1":
        return nn.Sequential(nn.Conv2d(config.in_chans, dim, 4, 4), _ChannelsLast(), LayerNorm(dim, epsilon))
    return nn.Sequential(
        nn.Conv2d(config.in_chans, dim // 2, 3, 2, 1),
        _ChannelsLast(),
        LayerNorm(dim // 2, epsilon),
        _ChannelsFirst(),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, 2, 1),
        _ChannelsLast(),
        LayerNorm(dim, epsilon),
    )


def _downsample(config: VMambaConfig, dim: int) -> nn.Module:
    """The published numbers of the layers in v2 and v3: 1 and 3."""
    if config.downsample == "v1":
        return PatchMerging(dim, config.norm_epsilon)
    conv = nn.Conv2d(dim, 2 * dim, 2, 2) if config.downsample == "v2" else nn.Conv2d(dim, 2 * dim, 3, 2, 1)
    return nn.Sequential(_ChannelsFirst(), conv, _ChannelsLast(), LayerNorm(2 * dim, config.norm_epsilon))


def _resized(positions: Tensor, grid: Pair) -> Tensor:
    if tuple(positions.shape[2:]) == tuple(grid):
        return positions
    return F.interpolate(positions.float(), size=grid, mode="bicubic", align_corners=False).to(positions.dtype)
