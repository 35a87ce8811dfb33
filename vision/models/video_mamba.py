"""VideoMamba (Li et al. 2024, arXiv:2403.06977): Vim over tubelets, the class token first, both directions added."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.checkpoint_files import Checkpoint
from ...core.errors import UserError
from ...core.pretrained import register_format
from ...core.registry import ModelEntry, register_architecture, register_model
from .patches import PatchEmbedding, grid_size
from .positions import insert_tokens, resize_positions
from .vim import Vim
from .vim_config import VimConfig
from .vim_format import VimCheckpoint


@dataclass(frozen=True, kw_only=True)
class VideoMambaConfig(VimConfig):
    """A Vim for clips; the defaults of what both have are those of VideoMamba."""

    num_frames: int = 8
    """Frames of a clip."""
    tubelet_size: int = 1
    """Frames of a patch."""
    class_token: Any = "first"
    """As in Vim; the released models have it first."""
    divide_out: bool = False
    """Halve the sum of both directions."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tubelet_size < 1 or self.num_frames < 1 or self.num_frames % self.tubelet_size:
            raise UserError(
                f"num_frames is {self.num_frames}; expected a multiple of tubelet_size, {self.tubelet_size}"
            )
        if self.rope != "none":
            raise UserError(f"rope is {self.rope!r}; rotary positions are for images, a VideoMamba has none")

    @property
    def steps(self) -> int:
        """Tubelets along time."""
        return self.num_frames // self.tubelet_size


class TubeletEmbedding(PatchEmbedding):
    """One convolution, ``proj``: clips (batch, channels, frames, height, width) to (batch, tubelets, dim)."""

    proj: Any

    def __init__(self, channels: int, dim: int, patch: int, stride: int, frames: int) -> None:
        super().__init__(channels, dim, patch, stride)
        self.frames = frames
        self.proj = nn.Conv3d(channels, dim, (frames, patch, patch), (frames, stride, stride))


@register_architecture("VideoMamba", VideoMambaConfig)
class VideoMamba(Vim):
    """A classifier of clips (batch, channels, frames, height, width).

    Tokens follow frame by frame, each row by row; ``pos_embed`` is shared by the frames and
    ``temporal_pos_embedding`` (1, steps, dim) by the patches of a frame. Parameter names are the published
    ones. Maps of ``forward_intermediates`` are (batch, channels, steps, rows, columns).
    """

    config: VideoMambaConfig

    def __init__(self, config: VideoMambaConfig) -> None:
        super().__init__(config)
        kernel = self.patch_embed.proj.weight
        self.patch_embed = TubeletEmbedding(
            config.in_chans, config.embed_dim, config.patch_size, config.stride, config.tubelet_size
        )
        with torch.no_grad():  # LeCun normal over the tubelet
            weight = self.patch_embed.proj.weight
            std = weight[0].numel() ** -0.5 / 0.87962566103423978
            nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)
            self.patch_embed.proj.bias.zero_()
        self.patch_embed.to(kernel.device)
        if config.position_embedding:
            self.temporal_pos_embedding = nn.Parameter(torch.zeros(1, config.steps, config.embed_dim))
            self.temporal_pos_embedding._no_weight_decay = True  # type: ignore[attr-defined]

    def class_token_positions(self, patches: int | None = None) -> tuple[int, ...]:
        """Return the indices of the class tokens among the tokens of so many tubelets (by default, of a clip)."""
        count = math.prod(self.config.grid) * self.config.steps if patches is None else patches
        return super().class_token_positions(count)

    def embed(self, images: Tensor) -> tuple[Tensor, Any]:
        """Clips to tokens (batch, length, embed_dim), and the grid: steps, rows, columns.

        Raises:
            UserError: for clips of a size, a length or with channels that the model does not take.
        """
        config = self.config
        if images.dim() != 5 or images.shape[1] != config.in_chans:
            raise UserError(
                f"clips are {tuple(images.shape)}, expected (batch, {config.in_chans}, frames, height, width); "
                "build the model with in_chans=… for other channels"
            )
        frames, size = images.shape[2], (images.shape[3], images.shape[4])
        dynamic = config.dynamic_img_size
        if frames % config.tubelet_size or (frames != config.num_frames and not dynamic):
            raise UserError(
                f"clips have {frames} frames, this model takes {config.num_frames}; sample as many, or build it with "
                f"dynamic_img_size=True for other multiples of {config.tubelet_size}"
            )
        self.patch_embed.check(size, None if dynamic and size != config.img_size else config.img_size)
        rows, columns = grid_size(size, config.patch_size, config.stride)
        patches = self.patch_embed(images)
        steps = frames // config.tubelet_size
        if config.position_embedding:
            place = resize_positions(
                self.pos_embed, config.grid, (rows, columns), config.class_token, config.posembed_resize
            )
            time = _resize_time(self.temporal_pos_embedding, steps)
            positions = super().class_token_positions(rows * columns)
            keep = torch.ones(place.shape[1], dtype=torch.bool, device=place.device)
            keep[list(positions)] = False
            shared = place[:, keep]
            patches = patches + (shared.unsqueeze(1) + time.unsqueeze(2)).flatten(1, 2).to(patches.dtype)
            classes = [
                token + place[:, [position]]
                for token, position in zip(map(self._token, self._class_token_names()), positions, strict=True)
            ]
        else:
            classes = [self._token(name) for name in self._class_token_names()]
        tokens = insert_tokens(patches, classes, super().class_token_positions(patches.shape[1]))
        return self.pos_drop(tokens), (steps, rows, columns)

    def _token(self, name: str) -> Tensor:
        token = getattr(self, name)
        assert isinstance(token, Tensor)
        return token

    def fit_weights(self, tensors: Mapping[str, Tensor], source: Any) -> dict[str, Tensor]:
        """As Vim's; positions in time are interpolated, and kernels of an image model stand in a tubelet's middle.

        Raises:
            UserError: for patches of another size or channels.
        """
        fitted = dict(tensors)
        kernel = fitted.pop("patch_embed.proj.weight", None)
        fitted = super().fit_weights(fitted, source)
        with torch.no_grad():
            if kernel is not None:
                if kernel.dim() == 4:
                    kernel = kernel.unsqueeze(2)
                if kernel.shape[2] != self.config.tubelet_size:
                    if kernel.shape[2] != 1:
                        raise UserError(
                            f"tubelets have {kernel.shape[2]} frames in the weights, {self.config.tubelet_size} here"
                        )
                    before = self.config.tubelet_size // 2
                    kernel = F.pad(kernel, (0, 0, 0, 0, before, self.config.tubelet_size - 1 - before))
                if kernel.shape[1] != self.config.in_chans or kernel.shape[-1] != self.config.patch_size:
                    raise UserError(
                        f"kernels of the weights are {tuple(kernel.shape[1:])}; a VideoMamba takes the same patch_size "
                        "and in_chans only"
                    )
                fitted["patch_embed.proj.weight"] = kernel
            if (time := fitted.get("temporal_pos_embedding")) is not None:
                fitted["temporal_pos_embedding"] = _resize_time(time, self.config.steps)
        return fitted


def _resize_time(positions: Tensor, steps: int) -> Tensor:
    """Interpolate (1, steps, dim) linearly."""
    if positions.shape[1] == steps:
        return positions
    return F.interpolate(positions.float().transpose(1, 2), size=steps, mode="linear").transpose(1, 2).to(positions)


class VideoMambaCheckpoint(VimCheckpoint):
    """Checkpoints of ``OpenGVLab/VideoMamba``: Vim's names, with positions in time and kernels of tubelets."""

    name = "videomamba"
    architecture = "VideoMamba"
    description = "VideoMamba checkpoints of OpenGVLab/VideoMamba"

    def recognises(self, checkpoint: Checkpoint) -> bool:
        """By the positions in time."""
        return "temporal_pos_embedding" in {self.canonical(key) for key in checkpoint.tensors}

    def read_config(self, checkpoint: Checkpoint) -> VideoMambaConfig:
        """Return what weights show; everything else is as in the released models."""
        tensors = self.tensors(checkpoint)
        kernel, time = tensors["patch_embed.proj.weight"], tensors["temporal_pos_embedding"]
        if kernel.dim() != 5:
            raise UserError(f"{checkpoint.path}: patch_embed.proj.weight is {tuple(kernel.shape)}, expected five sizes")
        given = {
            name: value
            for name, value in self._stated(checkpoint).items()
            if name in VideoMambaConfig.__dataclass_fields__
        }
        frame = {key: value for key, value in tensors.items() if key != "temporal_pos_embedding"}
        frame["patch_embed.proj.weight"] = kernel[:, :, 0]
        shown = super().read_config(dataclasses.replace(checkpoint, tensors=frame, config=None))
        fields = {field.name: getattr(shown, field.name) for field in dataclasses.fields(shown)}
        fields |= {"num_frames": time.shape[1] * kernel.shape[2], "tubelet_size": kernel.shape[2]}
        fields |= {"class_token": "first", "divide_out": False, "global_pool": None}
        return VideoMambaConfig(**{**fields, **{k: v for k, v in given.items() if k not in ("num_classes",)}})

    def _stated(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        """Our own fields beside the weights; the published names of the same things are read off the weights."""
        stated = checkpoint.config or {}
        return stated if set(stated) <= set(VideoMambaConfig.__dataclass_fields__) else {}


register_format(VideoMambaCheckpoint())

#: Width and depth of the published models.
_SIZES = {"tiny": (192, 24), "small": (384, 24), "middle": (576, 32), "base": (768, 24)}
for _name, (_width, _depth) in _SIZES.items():
    register_model(
        ModelEntry(
            name=f"videomamba_{_name}",
            domain="vision",
            config=partial(VideoMambaConfig, embed_dim=_width, depth=_depth),
            architecture="VideoMamba",
            description=f"VideoMamba for clips of 8 frames, width {_width}, {_depth} blocks",
        )
    )
