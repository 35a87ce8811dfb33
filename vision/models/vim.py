"""Vision Mamba, "Vim" (Zhu et al. 2024, arXiv:2401.09417), exact to the published code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...core.backbone import Block, called_plainly, initialise, parse_layer
from ...core.errors import UserError
from ...core.norms import create_norm
from ...core.registry import register_architecture
from ...core.scan_orders import permute_tokens
from .grid_mixer import GridMixer
from .image_model import ImageModel, compute_dtype, take_indices
from .patches import ConvolutionalStem, Pair, PatchEmbedding, change_channels, grid_size, resize_patches
from .positions import class_token_positions, insert_tokens, resize_positions, split_tokens, token_order
from .rotary import rotary_tables, rotate
from .vim_config import VimConfig
from .vim_mixer import VimMixer

_Tables = tuple[Tensor, Tensor]


@register_architecture("Vim", VimConfig)
class Vim(ImageModel):
    """Patches and a class token through a stack of blocks, "add, then norm, then mixer".

    Parameter names are those of the published checkpoints. With M patches and C class tokens, ``forward_features``
    gives every token after the final norm, (batch, M + C, embed_dim), in the order of the sequence; the class tokens
    stand at ``class_token_positions(M)``.
    """

    config: VimConfig

    def __init__(self, config: VimConfig) -> None:
        super().__init__()
        self.config = config
        dim = self.num_features = self.head_hidden_size = self.embed_dim = config.embed_dim
        self.grad_checkpointing = config.gradient_checkpointing
        if config.stem == "convolutions":
            self.patch_embed: PatchEmbedding = ConvolutionalStem(config.in_chans, dim, config.patch_size)
        else:
            self.patch_embed = PatchEmbedding(config.in_chans, dim, config.patch_size, config.stride)
        for name in self._class_token_names():
            setattr(self, name, nn.Parameter(torch.zeros(1, 1, dim)))
        if config.position_embedding:
            tokens = math.prod(config.grid) + len(self._class_token_names())
            self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.pos_drop = nn.Dropout(config.drop_rate)
        backbone = config.backbone()
        rates = [config.drop_path_rate * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.layers = nn.ModuleList(
            Block(backbone, *parse_layer(spec), rate) for spec, rate in zip(backbone.layers, rates, strict=True)
        )
        self.norm_f: nn.Module = create_norm(config.norm, dim, config.norm_epsilon)
        self.head = self.make_head(config.num_classes)
        self._initialise()
        self._describe_features()

    def _class_token_names(self) -> list[str]:
        names = {"double": ["cls_token_head", "cls_token_tail"], "none": []}
        return names.get(self.config.class_token, ["cls_token"])

    def _initialise(self) -> None:
        """LeCun normal patches, truncated normal tokens and positions; blocks as Mamba's."""
        initialise(self, self.config.backbone())
        for module in self.modules():
            if isinstance(module, VimMixer):
                module.reset_reverse_dt()
        projection = self.patch_embed.proj
        # Cut at two deviations, a normal distribution keeps 0.8796 of its deviation.
        std = projection.weight[0].numel() ** -0.5 / 0.87962566103423978
        nn.init.trunc_normal_(projection.weight, std=std, a=-2 * std, b=2 * std)
        assert projection.bias is not None
        nn.init.zeros_(projection.bias)
        for name in (*self._class_token_names(), *(["pos_embed"] if self.config.position_embedding else [])):
            parameter = getattr(self, name)
            nn.init.trunc_normal_(parameter, std=0.02)
            parameter._no_weight_decay = True
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)

    def _describe_features(self) -> None:
        step, stride = (2 if self.config.layer_pairs else 1), self.config.stride
        self.feature_info = [
            {"num_chs": self.embed_dim, "reduction": stride, "module": f"layers.{i}"}
            for i in range(step - 1, len(self.layers), step)
        ]

    # ---- the network -------------------------------------------------------------------------------------------------

    def class_token_positions(self, patches: int | None = None) -> tuple[int, ...]:
        """Return the indices of the class tokens among the tokens of so many patches (by default, of ``img_size``)."""
        return class_token_positions(
            self.config.class_token, math.prod(self.config.grid) if patches is None else patches
        )

    def embed(self, images: Tensor) -> tuple[Tensor, Pair]:
        """Images (batch, channels, height, width) to tokens (batch, length, embed_dim), and the grid of patches.

        Raises:
            UserError: for images of a size or with channels that the model does not take.
        """
        config = self.config
        if images.dim() != 4 or images.shape[1] != config.in_chans:
            raise UserError(
                f"images are {tuple(images.shape)}, expected (batch, {config.in_chans}, height, width); "
                "build the model with in_chans=… for other channels"
            )
        size = (images.shape[2], images.shape[3])
        dynamic = config.dynamic_img_size and size != config.img_size
        self.patch_embed.check(size, None if dynamic else config.img_size)
        grid = grid_size(size, config.patch_size, config.stride)
        tokens = self.patch_embed(images)
        classes = [getattr(self, name) for name in self._class_token_names()]
        tokens = insert_tokens(tokens, classes, self.class_token_positions(math.prod(grid)))
        if config.position_embedding:
            positions = resize_positions(self.pos_embed, config.grid, grid, config.class_token, config.posembed_resize)
            tokens = tokens + positions.to(tokens.dtype)
        return self.pos_drop(tokens), grid

    def forward_features(self, x: Tensor) -> Tensor:
        """See the class."""
        tokens, grid = self.embed(x)
        return self._run(tokens, grid, set())[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """All tokens to logits, or with ``pre_logits`` to the pooled features, (batch, embed_dim)."""
        pool = self.config.global_pool
        if pool == "token":
            positions = self.class_token_positions(x.shape[1] - len(self._class_token_names()))
            x = x[:, list(positions)].mean(1) if len(positions) > 1 else x[:, positions[0]]
        elif pool == "avg":
            x = split_tokens(x, self.class_token_positions(x.shape[1] - len(self._class_token_names())))[1].mean(1)
        elif pool == "last":
            x = x[:, -1]
        if not pre_logits:
            x = self.head(x)
        return x.amax(1) if pool == "max" else x

    def _run(
        self, tokens: Tensor, grid: Pair, taken: set[int], stop: int | None = None, norm: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the stages (blocks, or pairs of them) and return the tokens after the final norm, and those ``taken``."""
        stream = tokens.float() if self._wide_stream(tokens) else tokens
        reverse = self._reverse()
        rotary = self._rotary(grid, tokens.device)
        step = 2 if self.config.layer_pairs else 1
        for block in self.layers:
            if isinstance(mixer := getattr(block, "mixer", None), GridMixer):
                mixer.grid = grid
        x, branch, order = stream, None, "raster"
        intermediates = []
        for i in range(0, len(self.layers), step):
            if self.config.scan_orders is not None:
                wanted = self.config.scan_orders[i % len(self.config.scan_orders)]
                x = self._reorder(x, order, wanted, grid)
                branch = None if branch is None else self._reorder(branch, order, wanted, grid)
                order = wanted
            tables = self._reordered_tables(rotary, order, grid)
            blocks = [cast(Block, block) for block in self.layers[i : i + step]]  # or wrappers of them
            if self.grad_checkpointing and self.training and torch.is_grad_enabled():
                x, branch = checkpoint(self._stage, blocks, x, branch, tables, reverse, use_reentrant=False)
            else:
                x, branch = self._stage(blocks, x, branch, tables, reverse)
            if i // step in taken:
                y = self._normalise(x, branch) if norm else x + branch
                intermediates.append(self._reorder(y, order, "raster", grid))
            if i // step == stop:
                break
        assert branch is not None  # there is at least one block
        return self._reorder(self._normalise(x, branch), order, "raster", grid), intermediates

    def _stage(
        self, blocks: list[Block], x: Tensor, branch: Tensor | None, rotary: _Tables | None, reverse: bool
    ) -> tuple[Tensor, Tensor]:
        """One block, or a pair of which the second reads backwards and both are added; the stream is x + branch."""
        if rotary is not None:
            if branch is None:
                x = rotate(x, *rotary)
            else:
                branch = rotate(branch, *rotary)
                x = rotate(x, *rotary) if self.config.rope_residual else x
        x_a, branch_a = _extend(blocks[0], x, branch, reverse)
        if len(blocks) == 1:
            return x_a, branch_a
        x_b, branch_b = _extend(blocks[1], x, branch, not reverse)
        return x_a + x_b, branch_a + branch_b

    def _reverse(self) -> bool:
        ratio = self.config.flip_ratio
        return self.training and ratio > 0 and bool(torch.rand(()) < ratio)

    def _wide_stream(self, tokens: Tensor) -> bool:
        return self.config.residual_in_fp32 and tokens.dtype in (torch.bfloat16, torch.float16)

    def _rotary(self, grid: Pair, device: torch.device) -> _Tables | None:
        config = self.config
        if config.rope == "none":
            return None
        return rotary_tables(self.embed_dim, grid, config.class_token, config.rope_reference, config.rope, device)

    def _reorder(self, x: Tensor, current: str, wanted: str, grid: Pair) -> Tensor:
        """Bring tokens from one scan order of the grid into another."""
        if wanted == current:
            return x
        return permute_tokens(x, *token_order(wanted, grid, self.config.class_token, x.device, current))

    def _reordered_tables(self, rotary: _Tables | None, wanted: str, grid: Pair) -> _Tables | None:
        if rotary is None or wanted == "raster":
            return rotary
        index, _ = token_order(wanted, grid, self.config.class_token, rotary[0].device)
        return rotary[0][index], rotary[1][index]

    def _normalise(self, x: Tensor, branch: Tensor) -> Tensor:
        if isinstance(self.norm_f, nn.Identity):
            return x + branch
        return self.norm_f(x, branch, dtype=compute_dtype(self.patch_embed.proj.weight))[0]

    # ---- features of inner blocks ------------------------------------------------------------------------------------

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """Return the residual stream after some blocks (after pairs of them with ``layer_pairs``).

        Args:
            x: images.
            indices: the last n blocks, the ones given (from the end where negative), or all.
            return_prefix_tokens: give (map, class tokens (batch, C, embed_dim)) for each.
            norm: apply the final norm to each.
            stop_early: leave blocks after the last one asked for out.
            output_fmt: ``"NCHW"`` maps (batch, embed_dim, rows, columns), or ``"NLC"`` patches.
            intermediates_only: leave the final tokens out.
            output_dict: give a dictionary, ``image_features`` and ``image_intermediates`` (``…_prefix``).

        Returns:
            (final tokens, intermediates), or what the options ask for.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt is {output_fmt!r}; expected 'NCHW' or 'NLC'")
        chosen, last = take_indices(len(self.feature_info), indices)
        tokens, grid = self.embed(x)
        final, streams = self._run(tokens, grid, set(chosen), last if stop_early else None, norm)
        positions = self.class_token_positions(math.prod(grid))
        split = [split_tokens(stream, positions) for stream in streams]
        maps = [patches for _, patches in split]
        if output_fmt == "NCHW":
            maps = [patches.transpose(1, 2).unflatten(-1, grid).contiguous() for patches in maps]
        prefix = [classes for classes, _ in split] if positions and return_prefix_tokens else None
        if output_dict:
            result: dict[str, Any] = {"image_intermediates": maps}
            if prefix is not None:
                result["image_intermediates_prefix"] = prefix
            if not intermediates_only:
                result["image_features"] = final
            return result
        intermediates = maps if prefix is None else list(zip(maps, prefix, strict=True))
        return intermediates if intermediates_only else (final, intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the blocks after the last one asked for, and if told the final norm and the head."""
        chosen, last = take_indices(len(self.feature_info), indices)
        step = 2 if self.config.layer_pairs else 1
        self.layers = self.layers[: (last + 1) * step]
        self.change_config(depth=len(self.layers))
        self._describe_features()
        if prune_norm:
            self.norm_f = nn.Identity()
        if prune_head:
            self.reset_classifier(0)
        return chosen

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return patterns of parameter names: the stem, the blocks, what follows them (for layer-wise rates)."""
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^norm_f", (99999,))],
        }

    # ---- other sizes and other weights -------------------------------------------------------------------------------

    def set_input_size(self, img_size: int | Pair | None = None, patch_size: int | None = None) -> None:
        """Take images of another size from now on, with resized positions; or patches of another size.

        A new patch size keeps its relation to the stride (overlap).
        """
        fields: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
        if patch_size is not None:
            if self.config.stem == "convolutions":
                raise UserError("patch_size cannot be changed; a stem of convolutions has patches of one size")
            ratio = self.config.stride / self.config.patch_size
            fields |= {"patch_size": patch_size, "patch_stride": max(1, round(patch_size * ratio))}
        old = self.config
        self.change_config(**fields)
        weights = self.fit_weights(dict(self.named_parameters()), old)
        if self.config.position_embedding:
            self.pos_embed = _parameter_like(self.pos_embed, weights["pos_embed"])
        patches = self.patch_embed
        if patch_size is not None:
            patches.patch, patches.stride = self.config.patch_size, self.config.stride
            projection = patches.proj
            projection.weight = _parameter_like(projection.weight, weights["patch_embed.proj.weight"])
            projection.kernel_size = (patches.patch, patches.patch)
            projection.stride = (patches.stride, patches.stride)
        self._describe_features()

    def fit_weights(self, tensors: Mapping[str, Tensor], source: Any) -> dict[str, Tensor]:
        """Fit weights of a Vim of configuration ``source`` to this one's grid, patches and channels.

        Raises:
            UserError: if positions are not those of the grid that ``source`` states.
        """
        fitted = dict(tensors)
        with torch.no_grad():
            if "pos_embed" in fitted:
                fitted["pos_embed"] = resize_positions(
                    fitted["pos_embed"],
                    source.grid,
                    self.config.grid,
                    self.config.class_token,
                    self.config.posembed_resize,
                )
            if self.config.stem == "convolutions":
                if (kernel := fitted.get("patch_embed.stem.0.weight")) is not None:
                    fitted["patch_embed.stem.0.weight"] = change_channels(kernel, self.config.in_chans)
            elif (kernel := fitted.get("patch_embed.proj.weight")) is not None:
                kernel = change_channels(kernel, self.config.in_chans)
                fitted["patch_embed.proj.weight"] = resize_patches(kernel, self.config.patch_size)
        return fitted

    def load_pretrained(self, path: str | Path, prefix: str = "") -> None:
        """Load a published checkpoint or one of ours, fitted to this model; a head of other classes stays as it is.

        Raises:
            UserError: for a file that is unreadable, holds code, or is of another width or depth.
        """
        from ...core.pretrained import from_pretrained

        config = self.config
        names = ("img_size", "patch_size", "patch_stride", "in_chans", "class_token", "global_pool", "posembed_resize")
        source = from_pretrained(Path(path), **{name: getattr(config, name) for name in names})
        assert isinstance(source, Vim)
        weights = source.state_dict()
        ours = self.state_dict()
        for key in ("head.weight", "head.bias"):
            if key not in ours or key not in weights or weights[key].shape != ours[key].shape:
                weights.pop(key, None)
        wrong = sorted(
            key
            for key in ours.keys() | weights.keys()
            if not (key.startswith("head.") and key not in weights)
            and (key not in ours or key not in weights or ours[key].shape != weights[key].shape)
        )
        if wrong:
            raise UserError(
                f"{path}: its weights are of another model (width {source.config.embed_dim}, depth "
                f"{source.config.depth}; {', '.join(wrong[:3])} do not fit)"
            )
        self.load_state_dict(weights, strict=False)


def _extend(block: Block, x: Tensor, branch: Tensor | None, reverse: bool) -> tuple[Tensor, Tensor]:
    """Run a block; one with hooks or a wrapper is called as a module with the whole stream."""
    if called_plainly(block):
        return block.extend(x, branch, reverse=reverse)
    total = x if branch is None else x + branch
    # What the block added is told apart again: rotary positions turn the two differently.
    return total, block(total, reverse=reverse) - total


def _parameter_like(old: Tensor, values: Tensor) -> nn.Parameter:
    """Return a parameter with new values and what was declared for the old one."""
    parameter = nn.Parameter(values.detach().clone(), requires_grad=old.requires_grad)
    if getattr(old, "_no_weight_decay", False):
        parameter._no_weight_decay = True  # type: ignore[attr-defined]
    return parameter
