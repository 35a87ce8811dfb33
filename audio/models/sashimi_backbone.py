"""The multi-rate stack of SaShiMi, plain and as a U-Net (Goel et al. 2022, arXiv:2202.09729, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.norms import LayerNorm
from ...core.state_spaces import set_kernel_length
from .pooling import DownPool, UpPool


class Action(NamedTuple):
    """One instruction of the network, for those who run it position by position."""

    kind: Literal["save", "block", "down", "up", "add", "norm"]
    """``save`` keeps the current sequence in a slot, ``add`` adds a slot to it, the others run ``module``."""
    module: nn.Module | None = None
    slot: int = -1
    """Which kept sequence."""
    level: int = 0
    """Of ``down`` and ``up``: 0 for the pool between the inputs' rate and the next."""


class MultiRateStack(nn.Module):
    """Blocks at several sampling rates, joined by pools and skip connections.

    Plain: the pools going down, the blocks of the center, then for each pool going up its :class:`UpPool` and blocks.
    The center's output gets the last pool's input to it added; each UpPool's output the sequence of that rate on the
    way down, and their sum is added again behind the level's blocks. With ``unet`` there are blocks before each pool
    too, and behind each module on the way up the input of its counterpart on the way down is added.

    Args:
        d_model: width at the inputs' rate.
        pool: factors between the rates, from fine to coarse.
        expand: growth of the width with each pool.
        blocks: makes the blocks of one level from its width.
        center: makes the blocks of the center, by default as ``blocks``.
        unet: whether there are blocks on the way down.
        norm: the final norm.
        weight_norm: of the pools.
        shift: delay of each UpPool by one coarse position, for causality.
    """

    def __init__(
        self,
        d_model: int,
        pool: tuple[int, ...],
        expand: int,
        blocks: Callable[[int], list[nn.Module]],
        *,
        unet: bool,
        center: Callable[[int], list[nn.Module]] | None = None,
        norm: nn.Module | None = None,
        weight_norm: bool = False,
        shift: bool = True,
    ) -> None:
        super().__init__()
        self.d_model, self.pool, self.unet = d_model, tuple(pool), unet
        down: list[nn.Module] = []
        width = d_model
        for factor in pool:
            down += blocks(width) if unet else []
            down.append(DownPool(width, expand, factor, weight_norm))
            width *= expand
        self.down = nn.ModuleList(down)
        self.center = nn.ModuleList((center or blocks)(width))
        up = []
        for factor in reversed(pool):
            level = UpPool(width, expand, factor, weight_norm, shift)
            width //= expand
            up.append(nn.ModuleList([level, *blocks(width)]))
        self.up = nn.ModuleList(up)
        self.norm = LayerNorm(d_model) if norm is None else norm

    @property
    def period(self) -> int:
        """Fine positions in one of the coarsest."""
        period = 1
        for factor in self.pool:
            period *= factor
        return period

    def actions(self) -> Iterator[Action]:
        """The whole network as a list of instructions."""
        slots, kept, level = 1, [0], 0
        yield Action("save", slot=0)
        for module in self.down:
            if isinstance(module, DownPool):
                yield Action("down", module, level=level)
                level += 1
            else:
                yield Action("block", module)
            yield Action("save", slot=slots)
            kept.append(slots)
            slots += 1
        for module in self.center:
            yield Action("block", module)
        yield Action("add", slot=kept.pop())
        for modules in self.up:
            assert isinstance(modules, nn.ModuleList)
            for module in modules:
                if isinstance(module, UpPool):
                    level -= 1
                    yield Action("up", module, level=level)
                else:
                    yield Action("block", module)
                if self.unet:
                    yield Action("add", slot=kept.pop())
                elif isinstance(module, UpPool):
                    yield Action("add", slot=kept.pop())
                    yield Action("save", slot=slots)
            if not self.unet:
                yield Action("add", slot=slots)
                slots += 1
        yield Action("norm", self.norm)

    def set_length(self, length: int) -> None:
        """Make the kernels of each level ready for inputs of up to ``length`` fine positions."""
        positions = -(-length // self.period) * self.period
        for action in self.actions():
            if action.kind == "down":
                positions //= self.pool[action.level]
            elif action.kind == "up":
                positions *= self.pool[action.level]
            elif action.kind == "block":
                assert action.module is not None
                set_kernel_length(action.module, positions)

    def forward(
        self,
        x: Tensor,
        *,
        block: Callable[[nn.Module, Tensor], Tensor] | None = None,
        up: Callable[[UpPool, Tensor, int], Tensor] | None = None,
    ) -> Tensor:
        """(batch, length, d_model) to the same shape, after the final norm.

        A length that is no multiple of :attr:`period` is padded with zeros and the output is cut: a causal stack does
        not notice.

        Args:
            x: the sequence.
            block: runs a block on a sequence; by default it is called.
            up: runs an UpPool of a level; by default it is called.
        """
        length = x.shape[1]
        x = F.pad(x, (0, 0, 0, -length % self.period))
        kept: dict[int, Tensor] = {}
        for action in self.actions():
            if action.kind == "save":
                kept[action.slot] = x
            elif action.kind == "add":
                x = x + kept[action.slot]
            elif action.kind == "up" and up is not None:
                assert isinstance(action.module, UpPool)
                x = up(action.module, x, action.level)
            elif action.kind == "block" and block is not None:
                assert action.module is not None
                x = block(action.module, x)
            else:
                assert action.module is not None
                x = action.module(x)
        return x[:, :length]
