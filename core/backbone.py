"""The backbone: a stack of pre-norm residual blocks, described by data alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .channel_mixers import create_channel_mixer, list_channel_mixers
from .errors import UserError, nearest
from .mixers import SequenceMixer, State, create_mixer, list_mixers
from .norms import create_norm


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A stack of blocks.

    Each entry of ``layers`` is one block: the name of a mixer or channel mixer (``"mamba"``, ``"gated_mlp"``), the
    same with options (``{"name": "attention", "window": 2048}``), or both in one block
    (``{"mixer": "hyena", "channel_mixer": {"name": "mlp", "d_inner": 512}}``). A Samba-style stack is
    ``layers=["mamba", "gated_mlp", {"name": "attention", "window": 2048}, "gated_mlp"], repeat=6``.
    """

    d_model: int
    """Width of the residual stream."""
    layers: list[Any] = field(default_factory=lambda: ["mamba"])
    """The blocks, in order; see above."""
    repeat: int = 1
    """How often the pattern in ``layers`` is repeated."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Norm before each mixer, and after the last block."""
    norm_epsilon: float = 1e-5
    """Added to the (mean) square or variance."""
    residual_in_fp32: bool = True
    """Keep the residual stream in float32 when the weights are in a shorter type."""
    dropout: float = 0.0
    """Dropout of what each mixer adds to the stream."""
    drop_path: float = 0.0
    """Stochastic depth: the last block's probability of being skipped for a sample; earlier blocks' grow linearly."""
    gradient_checkpointing: bool = False
    """Recompute each block in the backward pass instead of storing what is inside it."""
    initializer: Literal["mamba", "normal"] = "mamba"
    """``mamba``: torch's own for linear layers, zero biases. ``normal``: N(0, initializer_range) and zero biases."""
    initializer_range: float = 0.02
    """Standard deviation of normal initialisations, the embedding's included."""
    rescale_prenorm_residual: bool = True
    """Shrink what is added to the residual stream by the square root of the number of additions (GPT-2)."""

    def __post_init__(self) -> None:
        if self.d_model < 1 or self.repeat < 1 or not self.layers:
            raise UserError(f"backbone: d_model {self.d_model}, repeat {self.repeat}, layers {self.layers}: need ≥ 1")
        if not 0 <= self.drop_path < 1 or not 0 <= self.dropout < 1:
            raise UserError(f"backbone: drop_path {self.drop_path}, dropout {self.dropout}: need 0 ≤ p < 1")
        if self.initializer not in ("mamba", "normal"):
            raise UserError(f"backbone: initializer is {self.initializer!r}; expected 'mamba' or 'normal'")


def parse_layer(spec: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Split one entry of ``BackboneConfig.layers`` into the options of its mixer and of its channel mixer.

    Raises:
        UserError: for what is neither, with the nearest names.
    """

    def named(part: Any) -> dict[str, Any] | None:
        if part is None or isinstance(part, str):
            return None if part is None else {"name": part}
        if not isinstance(part, Mapping) or not isinstance(part.get("name"), str):
            raise UserError(f"layers: {part!r} is no layer; expected a name, or a mapping with 'name' or 'mixer'")
        return dict(part)

    if isinstance(spec, Mapping) and "name" not in spec:
        unknown = set(spec) - {"mixer", "channel_mixer"}
        if unknown:
            raise UserError(f"layers: {dict(spec)}: unknown entry {sorted(unknown)}; expected mixer, channel_mixer")
        if spec.get("mixer") is not None or spec.get("channel_mixer") is not None:
            return named(spec.get("mixer")), named(spec.get("channel_mixer"))
        spec = None
    options = named(spec)
    if options is None:
        raise UserError("layers: an entry is empty; expected a name, or a mapping with 'name' or 'mixer'")
    if options["name"] in list_mixers():
        return options, None
    if options["name"] in list_channel_mixers():
        return None, options
    known = [*list_mixers(), *list_channel_mixers()]
    raise UserError(f"layers: mixer {options['name']!r} is unknown; {nearest(options['name'], known)}")


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016, arXiv:1603.09382): drops the branch of a whole sample, rescales the rest."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(batch, …) to the same shape."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        mask = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) < keep
        return x * mask / keep


class Block(nn.Module):
    """``x + mixer(norm(x))``, then ``x + channel_mixer(channel_norm(x))``; either may be absent."""

    def __init__(
        self,
        config: BackboneConfig,
        mixer: dict[str, Any] | None,
        channel_mixer: dict[str, Any] | None,
        drop_path: float,
    ) -> None:
        super().__init__()
        d_model = config.d_model
        self.mixer: SequenceMixer | None = None
        self.channel_mixer: nn.Module | None = None
        if mixer is not None:
            self.norm = create_norm(config.norm, d_model, config.norm_epsilon)
            self.mixer = create_mixer(d_model=d_model, **mixer)
        if channel_mixer is not None:
            self.channel_norm = create_norm(config.norm, d_model, config.norm_epsilon)
            self.channel_mixer = create_channel_mixer(d_model=d_model, **channel_mixer)
        self.drop = nn.Sequential(nn.Dropout(config.dropout), DropPath(drop_path))

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """(batch, length, d_model) residual stream to the same, whatever dtype the stream is in."""
        x, branch = self.extend(x, None, state=state, cu_seqlens=cu_seqlens, reverse=reverse)
        return x + branch

    def extend(
        self,
        x: Tensor,
        branch: Tensor | None,
        *,
        state: State | None = None,
        cu_seqlens: Tensor | None = None,
        reverse: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """As ``forward``, with the stream as ``x + branch`` before and after.

        The last addition is thereby left to the next norm, which does it in the same pass over memory.
        """
        if self.mixer is not None:
            h, x = self._normalise(self.norm, x, branch)
            branch = self.drop(self.mixer(h, state=state, cu_seqlens=cu_seqlens, reverse=reverse))
        return self._mix_channels(x, branch)

    def prefill(self, x: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As ``forward``, and the mixer's state after the last token."""
        x, branch, state = self.extend_prefill(x, None, state)
        return x + branch, state

    def extend_prefill(self, x: Tensor, branch: Tensor | None, state: State | None) -> tuple[Tensor, Tensor, State]:
        """As ``extend``, and the mixer's state after the last token."""
        if self.mixer is not None:
            h, x = self._normalise(self.norm, x, branch)
            branch, state = self.mixer.prefill(h, state)
            branch = self.drop(branch)
        return *self._mix_channels(x, branch), state

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One token, (batch, d_model)."""
        x_t, branch, state = self.extend_step(x_t, None, state)
        return x_t + branch, state

    def extend_step(self, x_t: Tensor, branch: Tensor | None, state: State) -> tuple[Tensor, Tensor, State]:
        """As ``extend`` for one token, (batch, d_model)."""
        if self.mixer is not None:
            h, x_t = self._normalise(self.norm, x_t, branch)
            branch, state = self.mixer.step(h, state)
        return *self._mix_channels(x_t, branch), state

    def _mix_channels(self, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.channel_mixer is None:
            assert branch is not None  # a block has one of the two
            return x, branch
        h, x = self._normalise(self.channel_norm, x, branch)
        return x, self.drop(self.channel_mixer(h))

    def _normalise(self, norm: nn.Module, x: Tensor, branch: Tensor | None) -> tuple[Tensor, Tensor]:
        """The norm of ``x + branch``, in the dtype in which the mixer computes, and the sum itself."""
        dtype = next(self.parameters()).dtype
        if x.is_cuda and torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")  # what the mixer's projection would convert to, in the same pass
        if branch is None:
            return norm(x, dtype=dtype), x
        return norm(x, branch, dtype=dtype)


class Backbone(nn.Module):
    """The stack: blocks, then a final norm. (batch, length, d_model) to the same shape.

    Has the mixers' interface: ``forward``, ``prefill``, ``init_state``, ``step``; the state is a list with one entry
    for each block.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        specs = [parse_layer(spec) for spec in config.layers] * config.repeat
        rates = [config.drop_path * i / max(1, len(specs) - 1) for i in range(len(specs))]
        self.layers = nn.ModuleList(Block(config, *spec, rate) for spec, rate in zip(specs, rates, strict=True))
        self.final_norm = create_norm(config.norm, config.d_model, config.norm_epsilon)
        initialise(self, config)

    @property
    def causal(self) -> bool:
        """Whether every mixer is causal, so that the stack can run token by token."""
        return all(block.mixer is None or block.mixer.causal for block in self.blocks())

    def blocks(self) -> list[Block]:
        """The blocks in order, typed; one that was wrapped (by FSDP, say) is there as its wrapper."""
        return [cast(Block, block) for block in self.layers]

    def forward(self, x: Tensor, *, state: list[State] | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Run the stack on whole sequences."""
        x, branch = self.stream(x), None
        for i, block in enumerate(self.blocks()):
            block_state = None if state is None else state[i]
            if not self._checkpointing and called_plainly(block):
                x, branch = block.extend(x, branch, state=block_state, cu_seqlens=cu_seqlens)
            else:
                x, branch = self.run_block(block, _total(x, branch), block_state, cu_seqlens), None
        return self._normalise(x, branch)

    @property
    def _checkpointing(self) -> bool:
        """Whether blocks are recomputed: each is then given the whole stream, one tensor to store instead of two."""
        return self.config.gradient_checkpointing and self.training and torch.is_grad_enabled()

    def _normalise(self, x: Tensor, branch: Tensor | None) -> Tensor:
        """The final norm, in the dtype of the stream."""
        if branch is None:
            return self.final_norm(x)
        return self.final_norm(x, branch, dtype=torch.promote_types(x.dtype, branch.dtype))[0]

    def run_block(
        self, block: Block, x: Tensor, state: State | None = None, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """Run one block, recomputed in the backward pass if the configuration says so."""
        if self._checkpointing:
            return checkpoint(block, x, state=state, cu_seqlens=cu_seqlens, use_reentrant=False)
        return block(x, state=state, cu_seqlens=cu_seqlens)

    def stream(self, x: Tensor) -> Tensor:
        """Bring embeddings into the dtype of the residual stream."""
        return x.float() if self.config.residual_in_fp32 and x.dtype in (torch.bfloat16, torch.float16) else x

    def prefill(self, x: Tensor, state: list[State] | None = None) -> tuple[Tensor, list[State]]:
        """Run the stack on (the next piece of) sequences and return the state after the last token."""
        x, branch, after = self.stream(x), None, []
        for i, block in enumerate(self.blocks()):
            x, branch, block_state = block.extend_prefill(x, branch, None if state is None else state[i])
            after.append(block_state)
        return self._normalise(x, branch), after

    def init_state(
        self, batch_size: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> list[State]:
        """The empty state of every block."""
        mixers = [block.mixer for block in self.blocks()]
        return [None if mixer is None else mixer.init_state(batch_size, device, dtype) for mixer in mixers]

    def step(self, x_t: Tensor, state: list[State]) -> tuple[Tensor, list[State]]:
        """Advance every block by one token, (batch, d_model)."""
        x_t, branch, after = self.stream(x_t), None, []
        for block, block_state in zip(self.blocks(), state, strict=True):
            x_t, branch, block_state = block.extend_step(x_t, branch, block_state)
            after.append(block_state)
        return self._normalise(x_t, branch), after


def called_plainly(block: nn.Module) -> bool:
    """Whether nothing depends on a block being called as a module with the whole stream: no hook, compiler or wrapper.

    Only then may :meth:`Block.extend` be called in place of the module.
    """
    if not isinstance(block, Block) or block._compiled_call_impl is not None:
        return False
    return not (block._forward_hooks or block._forward_pre_hooks or block._backward_hooks or block._backward_pre_hooks)


def _total(x: Tensor, branch: Tensor | None) -> Tensor:
    return x if branch is None else x + branch


#: Projections that write into the residual stream.
_RESIDUAL_PROJECTIONS = ("out_proj.weight", "fc2.weight", "down_proj.weight")


def initialise(backbone: nn.Module, config: BackboneConfig) -> None:
    """Initialise as published (Mamba's and HyenaDNA's own code agree with GPT-2's rule for residual projections).

    Step-size biases (``dt_proj.bias``) and everything that is no linear layer keep what their mixer gave them.
    """
    modules = dict(backbone.named_modules())
    additions = sum((b.mixer is not None) + (b.channel_mixer is not None) for b in modules.values() if type(b) is Block)
    scale = 1 / math.sqrt(max(1, additions)) if config.rescale_prenorm_residual else 1.0
    for name, module in modules.items():
        if not isinstance(module, nn.Linear):
            continue
        step_size = name.endswith("dt_proj")
        if module.bias is not None and not step_size:
            nn.init.zeros_(module.bias)
        if config.initializer == "normal" and not step_size:
            nn.init.normal_(module.weight, std=config.initializer_range)
    with torch.no_grad():
        for name, parameter in backbone.named_parameters():
            if name.endswith(_RESIDUAL_PROJECTIONS):
                if config.initializer == "mamba":
                    nn.init.kaiming_uniform_(parameter, a=math.sqrt(5))
                parameter.mul_(scale)
