"""The constants of a SaShiMi's levels packed for the Triton kernel that steps a level of every stream at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...core.mixers.state_space_convolution import StateSpaceMixer
from .pooling import DownPool, UpPool
from .sashimi_blocks import FeedForward, ResidualBlock
from .sashimi_compiled import norm_constants, recurrence_constants

if TYPE_CHECKING:
    from .sashimi_state import StepProgram

_HEADER = 16  # numbers before a norm's weights; sections begin at multiples of it
_WIDEST = 512  # features of a level, once padded to a power of two
_CODES = 4096
_POOL = 64
#: Numbers of a matrix, and of a plane of a state space's constants, that a program holds at once: 16 and 4 a thread.
TILE, MODES_TILE = 8192, 2048


class UnknownLayout(Exception):
    """A network that the kernel does not know; it is stepped in torch."""


@dataclass(frozen=True)
class Parts:
    """Columns of a matrix (of ``spread``: rows) that a program holds at once; its parts lie one after the other."""

    modes: int
    mix: int
    inner: int
    entry: int
    spread: int


@dataclass(frozen=True)
class Blocks:
    """Blocks of one level, or of its half before or behind the coarser levels, for the kernel."""

    mixers: Sequence[nn.Module]
    """The state space blocks of the model, whose states these are."""
    constants: Tensor
    """float32, one dimension: the pairs of blocks, then what leads into them, then what leads out."""
    pair: int
    """Numbers of a pair."""
    entry: int
    """Where the map from the finer level begins."""
    exit: int
    """Where the map to the finer level begins, or the final norm and the head."""
    features: int
    """Of the model, before padding."""
    width: int
    modes: int
    rank: int
    gated: bool
    inner: int
    """Width inside the feed-forward blocks, 0 without them."""
    parts: Parts
    """How matrices are cut."""

    @property
    def count(self) -> int:
        """Residual blocks."""
        return len(self.mixers) * (2 if self.inner else 1)


@dataclass(frozen=True)
class Level:
    """A rate of the network: its blocks on the way down (of a U-Net, but for the center) and the others."""

    down: Blocks | None
    main: Blocks
    collect: nn.Module | None
    """The pool that leads to the coarser level; ``None`` in the center."""
    spread: nn.Module | None
    """The pool that leads back from it."""


class FusedProgram:
    """All levels of a SaShiMi, taken from a :class:`StepProgram`.

    Attributes:
        levels: from fine to coarse.
        pool: factors between them.
        embedding: (codes, width of the first level), float32.
        vocabulary: codes.
        unet: whether there are blocks on the way down.
    """

    def __init__(self, program: StepProgram) -> None:
        stack = program.stack
        self.tile, self.modes_tile = TILE, MODES_TILE
        if program.dtype != torch.float32 or program.embedding is None or program.head is None:
            raise UnknownLayout
        self.unet, self.pool, self.device = stack.unet, stack.pool, program.device
        self.vocabulary = len(program.head[0])
        if self.vocabulary > _CODES or any(factor not in (2, 4, 8, 16) for factor in self.pool):
            raise UnknownLayout
        if math.prod(self.pool) > _POOL:
            raise UnknownLayout
        taken: dict[nn.Module | None, Any] = {
            action.module: (constants, frozen)
            for action, constants, frozen in zip(program.actions, program.constants, program.frozen, strict=True)
            if action.module is not None
        }
        features = [stack.d_model]
        downs: list[list[nn.Module]] = [[]]
        collects: list[nn.Module | None] = []
        for module in stack.down:
            if isinstance(module, DownPool):
                collects.append(module)
                features.append(module.d_output)
                downs.append([])
            else:
                downs[-1].append(module)
        ups = [list(modules.children()) for modules in reversed(stack.up)]
        mains = [*(modules[1:] for modules in ups), list(stack.center)]
        spreads: list[nn.Module | None] = [modules[0] for modules in ups]
        self.levels: list[Level] = []
        for index, main in enumerate(mains):
            center = index == len(self.pool)
            fine = features[index - 1] if index else 0
            entry = self._entry(taken[collects[index - 1]][0], fine, features[index], index) if index else []
            if index:
                leave = self._spread(taken[spreads[index - 1]][0], fine, features[index], index)
            else:
                leave = self._head(program, features[0])
            apart = self.unet and not center
            self.levels.append(
                Level(
                    self._blocks(downs[index], taken, features[index], entry, []) if apart else None,
                    self._blocks(main, taken, features[index], [] if apart else entry, leave),
                    None if center else collects[index],
                    None if center else spreads[index],
                )
            )
        self.embedding = self._pack([_padded(program.embedding, self.vocabulary, _power(stack.d_model))])
        self.embedding = self.embedding.view(self.vocabulary, -1)

    @classmethod
    def of(cls, program: StepProgram) -> FusedProgram | None:
        """Pack a program; ``None`` where the kernel does not know it (float64, other activations, odd pools)."""
        try:
            return cls(program)
        except UnknownLayout:
            return None

    @property
    def period(self) -> int:
        """Samples in one position of the coarsest level."""
        return math.prod(self.pool)

    def _entry(self, constants: tuple[Tensor, ...], fine: int, features: int, index: int) -> list[Tensor]:
        weight, bias = constants
        pool, fine_width, width = self.pool[index - 1], _power(fine), _power(features)
        matrix = _padded(weight.view(features, fine, pool), width, fine_width, pool).flatten(1)
        return [_cut(matrix, self._part(matrix.shape[1], width)), _padded(bias, width)]

    def _spread(self, constants: tuple[Tensor, ...], fine: int, features: int, index: int) -> list[Tensor]:
        weight, bias = constants
        pool, fine_width, width = self.pool[index - 1], _power(fine), _power(features)
        matrix = _padded(weight.view(fine, pool, features), fine_width, pool, width)
        return [matrix.flatten(0, 1), _padded(bias.view(fine, pool), fine_width, pool)]

    def _head(self, program: StepProgram, features: int) -> list[Tensor]:
        assert program.head is not None
        header, weight, bias = _folded(program.frozen[-1], features, *program.head)
        codes, width = _power(self.vocabulary), _power(features)
        return [header, _padded(weight, codes, width), _padded(bias, codes)]

    def _blocks(
        self,
        blocks: list[nn.Module],
        taken: dict[nn.Module | None, Any],
        features: int,
        entry: list[Tensor],
        leave: list[Tensor],
    ) -> Blocks:
        sections: list[Tensor] = []
        mixers, shapes, width = [], set(), _power(features)
        feeding = len(blocks) > 1 and _is_feed_forward(blocks[1])
        step = 2 if feeding else 1
        if not blocks or len(blocks) % step or width > _WIDEST:
            raise UnknownLayout
        inner, mix = 0, self._part(width, width)
        for first in range(0, len(blocks), step):
            frozen = taken[blocks[first]][1]
            if not isinstance(frozen, ResidualBlock) or not isinstance(frozen.layer, StateSpaceMixer):
                raise UnknownLayout
            mixer = frozen.layer
            if mixer.activation != "gelu" or mixer.layer.channels != 1:
                raise UnknownLayout
            matrices = recurrence_constants(mixer)  # (planes, modes, channels)
            planes, modes, _ = matrices.shape
            linear = mixer.output_linear[0]
            assert isinstance(linear, nn.Linear)
            gated = linear.out_features == 2 * features
            shapes.add((planes, modes, gated))
            header, weight, bias = norm_constants(frozen.norm, features)
            sections += [_padded(header, _HEADER), _padded(weight, width), _padded(bias, width)]
            rank = (planes - 6) // 4
            # Real and imaginary parts of left in turn, then those of right.
            order = [4 * r + plane for first in (6, 8) for r in range(rank) for plane in (first, first + 1)]
            matrices = torch.cat([matrices[:6], matrices[order]])
            padded = _padded(matrices.transpose(1, 2), planes, width, _power(modes))
            sections.append(_by_modes(padded, self._modes(width, _power(modes))))
            sections.append(_padded(mixer.layer.D.flatten(), width))
            for weight, bias in zip(linear.weight.split(features), linear.bias.split(features), strict=True):
                sections += [_cut(_padded(weight, width, width), mix), _padded(bias, width)]
            mixers.append(blocks[first])
            if feeding:
                if not _is_feed_forward(blocks[first + 1]):
                    raise UnknownLayout
                frozen = taken[blocks[first + 1]][1]
                maps = frozen.layer
                inner = _power(maps.inner.out_features)
                header, weight, bias = _folded(frozen.norm, features, maps.inner.weight, maps.inner.bias)
                outer = _cut(_padded(maps.outer.weight, width, inner), self._part(inner, width))
                sections += [header, _padded(weight, inner, width), _padded(bias, inner)]
                sections += [outer, _padded(maps.outer.bias, width)]
        if len(shapes) != 1:
            raise UnknownLayout
        planes, modes, gated = shapes.pop()
        packed, begin = self._pack(sections), sum(section.numel() for section in sections)
        middle = sum(section.numel() for section in entry)
        modes = _power(modes)
        entering = (entry[0].numel() // width) if entry else 16
        leaving = (leave[0].numel() // width) if leave else 16
        parts = Parts(
            self._modes(width, modes), mix, self._part(inner, width) if inner else 16, self._part(entering, width),
            self._part(leaving, width),
        )  # fmt: skip
        constants = torch.cat([packed, self._pack(entry), self._pack(leave)])
        return Blocks(
            mixers, constants, begin // len(mixers), begin, begin + middle, features, width, modes,
            (planes - 6) // 4, gated, inner, parts,
        )  # fmt: skip

    def _part(self, columns: int, rows: int) -> int:
        """Columns of a matrix in a part."""
        return min(columns, max(16, self.tile // rows))

    def _modes(self, channels: int, modes: int) -> int:
        """Modes of all channels in a part."""
        return min(modes, max(4, self.modes_tile // channels))

    def _pack(self, tensors: list[Tensor]) -> Tensor:
        flat = [tensor.detach().to(self.device, torch.float32).flatten() for tensor in tensors]
        return torch.cat(flat) if flat else torch.empty(0, device=self.device)


def _is_feed_forward(block: nn.Module) -> bool:
    return isinstance(block, ResidualBlock) and isinstance(block.layer, FeedForward)


def _folded(norm: nn.Module | None, features: int, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A norm's shift and epsilon, and a linear map that takes the norm's own weight and bias with it."""
    assert norm is not None
    header, scale, offset = (tensor.double().to(weight.device) for tensor in norm_constants(norm, features))
    wide = weight.double()
    return _padded(header, _HEADER), wide * scale, bias.double() + wide @ offset


def _cut(matrix: Tensor, columns: int) -> Tensor:
    """(rows, columns) as parts of some columns, (parts, rows, columns of each)."""
    return matrix.unflatten(1, (-1, columns)).transpose(0, 1)


def _by_modes(planes: Tensor, modes: int) -> Tensor:
    """(…, planes, channels, modes) as parts of some modes, (…, parts, planes, channels, modes of each)."""
    return planes.unflatten(-1, (-1, modes)).movedim(-2, -4)


def _power(number: int) -> int:
    """The next power of two, at least 16."""
    return max(16, 1 << (number - 1).bit_length())


def _padded(tensor: Tensor, *shape: int) -> Tensor:
    """Extend with zeros."""
    if tuple(tensor.shape) == shape:
        return tensor
    result = tensor.new_zeros(shape)
    result[tuple(slice(size) for size in tensor.shape)] = tensor
    return result


def state_of(blocks: Blocks, program: StepProgram, data: Tensor) -> Tensor:
    """(batch, mixers, parts, 2, width, modes of a part): states, from a row of numbers for each sequence."""
    found = []
    for mixer in blocks.mixers:
        rows = program.places[mixer].of(data)  # (batch, 2 modes, channels)
        planes = rows.unflatten(1, (2, -1)).transpose(2, 3)
        found.append(_by_modes(_padded(planes, len(data), 2, blocks.width, blocks.modes), blocks.parts.modes))
    return torch.stack(found, dim=1).contiguous()


def pooled_of(module: UpPool | DownPool, program: StepProgram, data: Tensor, width: int) -> Tensor:
    """(batch, width, pool): what a pool holds."""
    rows = program.places[module].of(data)
    return _padded(rows, len(data), width, rows.shape[2]).clone()
