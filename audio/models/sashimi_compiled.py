"""The program of a SaShiMi packed for the compiled kernel of the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from ...core.mixers.state_space_convolution import StateSpaceMixer
from ...core.ops._threads import run_tasks
from .pooling import DownPool, UpPool
from .sashimi_blocks import FeedForward, ResidualBlock, ScalarNorm

if TYPE_CHECKING:
    from .sashimi_state import StepProgram

#: Numbers of the instructions, of which the kernel is a small interpreter.
SAVE, ADD, STATE_SPACE, FEED_FORWARD, DOWN, UP, NORM = range(7)
#: Columns of the table of instructions.
COLUMNS = 8
#: Sequences below which another thread costs more than it saves.
_PER_THREAD = 4


class CompiledProgram:
    """Instructions (rows of integers) and all constants in one array, for
    :func:`longscan.audio.models.sashimi_kernels.run`.

    A step is one call that reads the constants once and allocates nothing but its output.
    """

    def __init__(self, program: StepProgram) -> None:
        self.dtype = np.dtype(np.float64 if program.dtype == torch.float64 else np.float32)
        self.torch_dtype = program.dtype
        self.pool = np.array(program.stack.pool, dtype=np.int64)
        self._constants: list[np.ndarray] = []
        self._size = 0
        self.slots = self.width = self.inner = 0
        rows = []
        for action, constants in zip(program.actions, program.constants, strict=True):
            module = action.module
            place = program.places[module].start if module in program.places else 0
            if module is None:
                rows.append([SAVE if action.kind == "save" else ADD, action.slot])
                self.slots = max(self.slots, action.slot + 1)
            else:
                rows.append(self._instruction(module, action.level, constants, place))
        self.table = _with_widths(rows, program.stack.d_model)
        embedding = torch.zeros(0, program.stack.d_model) if program.embedding is None else program.embedding
        head = (torch.zeros(0, program.stack.d_model), torch.zeros(0)) if program.head is None else program.head
        self.embedding = self._array(embedding)
        self.head, self.head_bias = self._array(head[0]), self._array(head[1])
        self.constants = np.concatenate(self._constants)
        self.outputs = len(self.head) or program.stack.d_model
        self.d_model = program.stack.d_model
        self._work: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, program: StepProgram) -> CompiledProgram | None:
        """Pack a program; ``None`` where a mixer has options that the kernel does not know."""
        for action in program.actions:
            if isinstance(action.module, ResidualBlock) and isinstance(action.module.layer, StateSpaceMixer):
                mixer = action.module.layer
                if mixer.activation != "gelu" or mixer.layer.channels != 1:
                    return None
        return cls(program)

    def run(self, inputs: Tensor, data: Tensor, position: int, whole: bool) -> Tensor:
        """Step all sequences, overwriting ``data``.

        Args:
            inputs: codes (batch,), or (batch, d_model) of floating point.
            data: (batch, size), contiguous.
            position: samples read before.
            whole: codes or vectors to logits, rather than vectors to features.
        """
        from .sashimi_kernels import run

        batch = len(data)
        embedded = whole and len(self.embedding) > 0
        codes = inputs.to(torch.int64).numpy() if embedded else _NO_CODES
        vectors = self._no_vectors if embedded else inputs.to(self.torch_dtype).contiguous().numpy()
        headed = whole and len(self.head) > 0
        y = torch.empty(batch, self.outputs if headed else self.d_model, dtype=self.torch_dtype)
        state, out, work = data.numpy(), y.numpy(), self._workspace(batch)
        head = self.head if headed else self.head[:0]
        chunks = max(1, min(torch.get_num_threads(), batch // _PER_THREAD))

        def task(index: int) -> None:
            first, last = batch * index // chunks, batch * (index + 1) // chunks
            run(
                first, last, position, self.pool, self.table, self.constants, self.width, self.inner, self.embedding,
                head, self.head_bias, codes, vectors, state, work, out,
            )  # fmt: skip

        if embedded and batch:
            lowest, highest = int(codes.min()), int(codes.max())
            if lowest < 0 or highest >= len(self.embedding):
                wrong = lowest if lowest < 0 else highest
                raise IndexError(f"code {wrong} is not in 0 … {len(self.embedding) - 1}")
        if chunks == 1:
            task(0)
        else:
            run_tasks(task, chunks)
        return y

    @property
    def _no_vectors(self) -> np.ndarray:
        return np.empty((0, self.d_model), self.dtype)

    def _workspace(self, batch: int) -> np.ndarray:
        """Sequences and kept sequences, one row of numbers for each member of the batch."""
        if batch not in self._work:
            self._work = {batch: np.zeros((batch, (self.slots + 2) * self.width + 2 * self.inner), self.dtype)}
        return self._work[batch]

    def _instruction(self, module: nn.Module, level: int, constants: tuple[Tensor, ...], place: int) -> list[int]:
        start = self._size
        if isinstance(module, DownPool | UpPool):
            weight, bias = constants
            self._pack(weight, bias)
            self._fit(max(weight.shape))
            kind = DOWN if isinstance(module, DownPool) else UP
            return [kind, weight.shape[1], weight.shape[0], module.pool, level, start, place, module.d_output]
        if isinstance(module, ResidualBlock) and isinstance(module.layer, FeedForward):
            inner_weight, inner_bias, outer_weight, outer_bias = constants
            inner, width = inner_weight.shape
            self._pack(*norm_constants(module.norm, width), inner_weight, inner_bias, outer_weight, outer_bias)
            self._fit(width, inner)
            return [FEED_FORWARD, width, inner, 0, 0, start, 0, width]
        if isinstance(module, ResidualBlock):
            mixer = module.layer
            assert isinstance(mixer, StateSpaceMixer)
            linear = mixer.output_linear[0]
            assert isinstance(linear, nn.Linear)
            matrices, skip = recurrence_constants(mixer), mixer.layer.D
            rows, modes, width = matrices.shape
            rank = (rows - 6) // 4
            self._pack(*norm_constants(module.norm, width), matrices, skip, linear.weight, linear.bias)
            self._fit(width, max(linear.out_features, rank * width))
            return [STATE_SPACE, width, modes, rank, linear.out_features, start, place, width]
        width = constants_width(module)
        self._pack(*norm_constants(module, width))
        return [NORM, width, 0, 0, 0, start, 0, width]

    def _fit(self, width: int, inner: int = 0) -> None:
        self.width, self.inner = max(self.width, width), max(self.inner, inner, width)

    def _pack(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            array = self._array(tensor).ravel()
            self._constants.append(array)
            self._size += array.size

    def _array(self, tensor: Tensor) -> np.ndarray:
        return np.ascontiguousarray(tensor.detach().cpu().double().numpy().astype(self.dtype))


_NO_CODES = np.empty(0, np.int64)


def constants_width(norm: nn.Module) -> int:
    """Features of the final norm."""
    return int(norm.weight.shape[0])  # type: ignore[union-attr,index]


def _with_widths(rows: list[list[int]], width: int) -> np.ndarray:
    """Give SAVE and ADD the width of the sequence there."""
    table = np.zeros((len(rows), COLUMNS), dtype=np.int64)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row[:COLUMNS]
        if row[0] in (SAVE, ADD):
            table[index, 2] = width
        else:
            width = row[7]
    return table


def norm_constants(norm: nn.Module, width: int) -> tuple[Tensor, ...]:
    """Shift, epsilon, scale and bias: ``scale · (x - mean + shift) / sqrt(variance + eps) + bias``."""
    if isinstance(norm, ScalarNorm):
        head = torch.tensor([float(norm.m.double()), norm.eps], dtype=torch.float64)
        return head, norm.s.double().expand(width), torch.zeros(width)
    return torch.tensor([0.0, norm.eps], dtype=torch.float64), norm.weight, norm.bias  # type: ignore[return-value,list-item]


def recurrence_constants(mixer: StateSpaceMixer) -> Tensor:
    """(6 + 4 rank, modes, d_model): real and imaginary parts of factor - 1, input, output, then left and right.

    The factor less 1 tells how slowly a mode decays with all digits that the dtype has. ``output`` and ``right`` hold
    the 2 of the sum over both states of a pair.
    """
    system = mixer.kernel.recurrence(mixer.rate)
    parts = [system.factor - 1, system.input, 2 * system.output[0]]
    for left, right in zip(system.left, 2 * system.right, strict=True):
        parts += [left, right]
    return torch.stack([plane.t() for part in parts for plane in (part.real, part.imag)])
