"""How a call of the selective scan's kernels is divided among programs, and what they are compiled with.

A plan depends on shapes, strides and dtypes alone, and is kept for the next call with the same ones: dividing the work
and choosing among compiled kernels anew would take the host longer than a small scan takes the device.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .._gluon import channels_of_warp, compile_kernel, has_gluon
from .._packing import sequence_offsets
from .._triton import multiprocessors
from .arguments import Arguments
from .triton_chunks import carry, summarize

#: Tokens whose elementwise part is computed together.
TOKENS, TOKENS_BACKWARD = 8, 4
#: Batches of inputs that are on their way or used, in a kernel of its own or beside many others.
STAGES, STAGES_OF_CHUNKS = 4, 8
#: Sequences are cut into chunks below so many programs a multiprocessor, and then to give at most so many.
CHUNKING, CHUNKING_BACKWARD = (3, 24), (8, 8)
#: Up to so many programs a multiprocessor, programs of half as many channels spread better over its schedulers.
SPREADING = 6
#: Blocks of channels that a program of the backward pass may take: as many fewer shares of B's and C's gradients.
TURNS = (1, 2, 3, 4)
#: With more states the backward pass does not fit into registers and takes them in groups.
MOST_STATES_BACKWARD = 64
_MOST_PLANS = 1024
#: Numbers of which many values occur, so that kernels are not compiled for some of them apart.
_ANY_VALUE = (
    "length", "row_stride", "chunk", "chunks", "pad", "channel_blocks", "columns_of_all", "group_blocks",
    "group_columns", "turns", "segments", "all_tokens",
)  # fmt: skip


class Operands(NamedTuple):
    """The tensors of one direction as the kernels take them."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    delta_bias: Tensor | None

    @classmethod
    def of(cls, scan: Arguments) -> Operands:
        """Copies where something does not lie in memory as needed."""
        B, C = (m.contiguous() if m.ndim == 2 else rows(m) for m in (scan.B, scan.C))
        D, bias = (None if v is None else v.contiguous() for v in (scan.D, scan.delta_bias))
        return cls(rows(scan.u), rows(scan.delta), scan.A.float().contiguous(), B, C, D, bias)


class Plan:
    """The division of one pass over one or both directions; see :func:`find`.

    Attributes:
        grid: programs of the main kernel.
        chunk, chunks, pad: length and number of a sequence's chunks, and what the last one lacks.
        columns: programs of a chunk: one for each block of channels, or for each ``turns`` of them.
    """

    def __init__(self, scans: tuple[Arguments, ...], operands: list[Operands], z: Tensor | None, backward: bool,
                 save: bool, segment: int, others: tuple[Any, ...]) -> None:  # fmt: skip
        scan, device = scans[0], scans[0].u.device
        _, self.length, self.dim = scan.u.shape
        self.sequences, self.state, self.segment = scan.sequences, scan.A.shape[1], segment
        self.directions = len(scans)
        self.use_gluon = has_gluon(device.type)
        self.padded = _padded(self.state)
        self.channels = channels_of_warp(self.padded)
        self.group_size = self.dim // scan.groups
        self.group_blocks = triton.cdiv(self.group_size, self.channels)
        index = device.index or 0
        self.turns, self.chunk, self.chunks = 1, max(self.length, 1), 1
        # Both directions save states by chunk, so that their forward pass has the chunks of the backward pass.
        if backward or (save and self.directions == 2):
            blocks = triton.cdiv(self.group_size, channels_of_warp(MOST_STATES_BACKWARD))
            turns, self.chunk, self.chunks = _turns_and_chunks(
                self.length, self.sequences * scan.groups, blocks, segment, scan.cu_seqlens is not None, index
            )
            self.turns = turns if backward else 1
        elif scan.cu_seqlens is None:
            programs = self.sequences * scan.groups * self.group_blocks
            self.chunk, self.chunks = _chunks(self.length, programs, segment, *CHUNKING, index)
        programs = self.sequences * scan.groups * self.group_blocks * self.chunks
        if not backward and programs <= SPREADING * multiprocessors(index):
            self.channels = 8
            self.group_blocks = triton.cdiv(self.group_size, self.channels)
        self.group_columns = triton.cdiv(self.group_blocks, self.turns)
        self.columns = self.group_columns * scan.groups
        even = self.group_size % self.channels == 0 and self.state == self.padded
        inputs = [t for o in operands for t in (o.u, o.delta)] + [t for t in (z, *others[:1]) if t is not None]
        rows_alignment = min((_alignment(m) for o in operands for m in (o.B, o.C) if m.ndim > 2), default=16)
        staged = even and self.use_gluon and rows_alignment >= 4 and all(_alignment(t) == 16 for t in inputs)
        self.pad = self.chunk * self.chunks - self.length if self.chunks > 1 else 0
        self.segments = triton.cdiv(self.length, segment)
        self.grid = self.sequences * self.chunks * self.columns
        self.strides = tuple(
            (o.u.stride(0), o.delta.stride(0), *matrix_strides(o.B)[::2], *matrix_strides(o.C)[::2]) for o in operands
        )
        self.token_strides = tuple(
            (o.u.stride(1), o.delta.stride(1), matrix_strides(o.B)[1], matrix_strides(o.C)[1]) for o in operands
        )
        self.z_strides = (0, 0) if z is None else z.stride()[:2]
        self.constant = operands[0].B.ndim == 2, operands[0].C.ndim == 2
        self.has_z = z is not None
        self.options: dict[str, Any] = {
            "STATE": self.state,
            "STATES": self.padded,
            "CHANNELS": self.channels,
            "TOKENS": TOKENS_BACKWARD if backward else TOKENS,
            "EVEN": even,
            "HAS_Z": self.has_z,
            "HAS_BIAS": scan.delta_bias is not None,
            "SOFTPLUS": scan.delta_softplus,
            "REVERSE": scan.reverse,
            "STAGED": staged,
            "ROW_BYTES": rows_alignment,
            "STAGES": STAGES_OF_CHUNKS if self.chunks > 1 and not backward else STAGES,
            "WARPS": 1,
            "GLUON": self.use_gluon,
            "num_warps": 1,
        }
        self._compiled: dict[str, tuple[Any, tuple[None, ...]]] = {}

    def launch(
        self, function: Any, grid: tuple[int, int], arguments: tuple[Any, ...], constants: Callable[[], dict[str, Any]]
    ) -> None:
        """Launch a kernel; once compiled it is called past Triton's own look-up, whose answer is the same."""
        name = function.__name__
        known = self._compiled.get(name)
        if known is not None:
            kernel, blanks = known
            kernel[(*grid, 1)](*arguments, *blanks)
            return
        kernel = _kernel(function, self.use_gluon)
        compiled = kernel[grid](*arguments, **constants())
        if compiled is not None:  # it is None in the interpreter
            self._compiled[name] = compiled, (None,) * (len(kernel.arg_names) - len(arguments))

    def entering(
        self, x: list[Tensor], operands: list[Operands], z: Tensor | None, first: list[Tensor | None], gradient: bool
    ) -> list[Tensor]:
        """What enters every chunk, (sequences * chunks, dim, state): states, or gradients from the other end.

        ``x`` is u of each direction, or the gradient of y; ``first`` is what enters the whole scan.
        """
        parts = self.sequences * self.chunks
        which = 3 if gradient else 2  # C or B
        like: dict[str, Any] = {"dtype": torch.float32, "device": x[0].device}
        ends = [torch.empty((parts, self.dim, self.state), **like) for _ in x]
        total_dt = [torch.empty((parts, self.dim), **like) for _ in x]
        rows_of = [o.C if gradient else o.B for o in operands]
        tensors = tuple(
            (t, o.delta, o.A, r, or_(o.delta_bias, t), e, s)
            for t, o, r, e, s in zip(x, operands, rows_of, ends, total_dt, strict=True)
        )
        blocks = self.group_blocks * (self.dim // self.group_size)
        self.launch(
            summarize,
            (self.sequences * (self.chunks - 1) * blocks, self.directions),
            (
                tensors,
                tuple((t.stride(0), s[1], *s[2 * which - 2 : 2 * which]) for t, s in zip(x, self.strides, strict=True)),
                or_(z, x[0]), self.z_strides[0], self.length, self.dim, self.chunk, self.chunks, self.pad,
                blocks, self.group_size, self.group_blocks,
            ),
            lambda: {
                "STRIDES": tuple((t.stride(1), s[1], s[which]) for t, s in zip(x, self.token_strides, strict=True)),
                "Z": self.z_strides[1], "CONSTANT": self.constant[which - 2], "GRADIENT": gradient, **self.options,
            },
        )  # fmt: skip
        elements = self.dim * self.state
        self.launch(
            carry,
            (self.sequences * triton.cdiv(elements, 128), self.directions),
            (
                tuple(
                    (o.A, or_(f, t), s, e)
                    for o, f, t, s, e in zip(operands, first, x, total_dt, ends, strict=True)
                ),
                elements, self.dim, self.state, self.chunks,
            ),
            lambda: {
                "ELEMENTS": 128, "AHEAD": 16, "HAS_INITIAL": first[0] is not None, "BACKWARDS": gradient,
                "DIRECTIONS": self.directions, "num_warps": 4,
            },
        )  # fmt: skip
        return ends


_plans: dict[Any, Plan] = {}


def find(
    scans: tuple[Arguments, ...], operands: list[Operands], z: Tensor | None, backward: bool, save: bool, segment: int,
    others: tuple[Any, ...] = (),
) -> Plan:  # fmt: skip
    """The plan of a call; ``others`` are what else its kernels depend on: further tensors, for their place in memory,
    and dtypes."""
    scan = scans[0]
    if scan.cu_seqlens is not None:
        sequence_offsets("selective_scan", scan.cu_seqlens, scan.u.shape[0], scan.u.shape[1])  # checks the values
    key = (
        backward, save, segment, scan.groups, scan.delta_softplus, scan.reverse, scan.u.device,
        tuple([_signature(t) for o in operands for t in o]),
        tuple([_signature(t) for t in (z, scan.cu_seqlens, scan.initial_state, *others)]),
    )  # fmt: skip
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _MOST_PLANS:
            _plans.clear()
        plan = _plans[key] = Plan(scans, operands, z, backward, save, segment, others)
    return plan


def _signature(given: Any) -> Any:
    """What a compiled kernel depends on: Triton compiles for multiples of 16 bytes apart from other addresses."""
    if isinstance(given, Tensor):
        return given.shape, given.stride(), given.dtype, given.data_ptr() % 16
    return given


def _alignment(tensor: Tensor) -> int:
    """The bytes, 16 or fewer, of which all rows of a tensor begin at multiples."""
    strides = [stride for size, stride in zip(tensor.shape[:-1], tensor.stride()[:-1], strict=True) if size > 1]
    return math.gcd(16, tensor.data_ptr(), *(stride * tensor.element_size() for stride in strides))


@functools.cache
def _kernel(function: Any, use_gluon: bool) -> Any:
    if hasattr(function, "run"):
        return function
    names = inspect.signature(function).parameters
    return compile_kernel(function, use_gluon, [name for name in _ANY_VALUE if name in names])


def _chunks(length: int, programs: int, segment: int, least: int, wanted: int, device: int) -> tuple[int, int]:
    """The length and the number of chunks of a sequence, for so many programs without chunks."""
    processors = multiprocessors(device)
    if programs >= least * processors or length < 8 * segment:
        return max(length, 1), 1
    count = max(1, wanted * processors // programs)
    chunk = max(4 * segment, triton.cdiv(triton.cdiv(length, count), segment) * segment)
    return chunk, triton.cdiv(length, chunk)


def _turns_and_chunks(
    length: int, sequences: int, blocks: int, segment: int, packed: bool, device: int
) -> tuple[int, int, int]:
    """Of the backward pass: the blocks of channels that a program takes, and the length and the number of chunks.

    Time goes with the tokens that a program walks through, times the number of times that the device is full. More
    turns need less memory, and are taken where they cost a tenth of the time at most.
    """
    full = CHUNKING_BACKWARD[1] * multiprocessors(device)
    costs = {}
    for turns in TURNS:
        programs = sequences * triton.cdiv(blocks, turns)
        chunk, chunks = (
            (max(length, 1), 1) if packed else _chunks(length, programs, segment, *CHUNKING_BACKWARD, device)
        )
        costs[turns, chunk, chunks] = min(turns, blocks) * chunk * triton.cdiv(programs * chunks, full)
    return max(way for way, cost in costs.items() if 10 * cost <= 11 * min(costs.values()))


def _padded(state: int) -> int:
    """Tiles have four lanes of at least two states."""
    return max(8, triton.next_power_of_2(state))


@functools.cache
def segment_of(state: int) -> int:
    """Tokens between two saved states; what the backward pass keeps of them fits into shared memory."""
    return max(16, min(64, 1024 // _padded(state)))


def rows(tensor: Any) -> Any:
    """The tensor itself where its last axis lies close together in memory, else a copy."""
    return tensor if tensor is None or tensor.stride(-1) == 1 else tensor.contiguous()


def matrix_strides(matrix: Tensor) -> tuple[int, int, int]:
    """Strides of batch, token and group of B or C."""
    if matrix.ndim == 2:
        return 0, 0, 0
    if matrix.ndim == 3:
        return matrix.stride(0), matrix.stride(1), 0
    return matrix.stride(0), matrix.stride(1), matrix.stride(2) if matrix.shape[2] > 1 else 0


def or_(tensor: Tensor | None, other: Tensor) -> Tensor:
    """A pointer for an argument that is not read."""
    return other if tensor is None else tensor
