"""SaShiMi one sample at a time: its state, and the network as a program that steps it."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.mixers.state_space_convolution import StateSpaceMixer, StateSpaceState
from ...core.ops._dispatch import choose
from ...core.state_spaces.recurrence import Recurrence, dense, from_real, to_real
from .pooling import DownPool, UpPool
from .sashimi_backbone import Action, MultiRateStack
from .sashimi_blocks import FeedForward, ResidualBlock
from .sashimi_compiled import CompiledProgram
from .sashimi_fused import FusedProgram

if TYPE_CHECKING:
    from .sashimi import SaShiMi


class SaShiMiState(NamedTuple):
    """What a SaShiMi carries between samples; :func:`longscan.core.mixers.clone_state` takes snapshots of it."""

    position: int
    """Samples read so far."""
    data: Tensor
    """(batch, size), float32 or float64: the states of all layers and pools, each at its place in a row."""
    program: StepProgram
    """The discretised model, shared by all states made from it."""


class Place(NamedTuple):
    """Where a module's state lies in a row of ``data``."""

    start: int
    shape: tuple[int, ...]

    def of(self, data: Tensor) -> Tensor:
        """View (batch, *shape)."""
        stop = self.start + torch.Size(self.shape).numel()
        return data[:, self.start : stop].unflatten(1, self.shape)


class StepProgram:
    """The instructions of a SaShiMi with constants for one sample at a time, taken from the weights once.

    At position t a level of rate 1/r is due where t + 1 is a multiple of r, when its pool has read its last input. What
    an UpPool spreads over the following fine positions waits in the state; all shapes are static and the state is
    written in place, so a GPU's step can be captured once for each of the ``period`` phases.

    On a CPU the program is compiled (:mod:`longscan.audio.models.sashimi_compiled`), elsewhere it runs in torch, or,
    where many samples are drawn on a GPU, in kernels of :mod:`longscan.audio.models.sashimi_fused`.

    Attributes:
        actions: the network.
        places: module -> where its state lies.
        size: numbers in the state of one sequence.
        compiled: the program for a CPU, ``None`` on other devices and for mixers that it does not know.
    """

    def __init__(self, model: SaShiMi, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.device, self.dtype = model, device, dtype
        self.stack = model.backbone
        self.actions: list[Action] = list(self.stack.actions())
        self.places: dict[nn.Module, Place] = {}
        self.size = 0
        for action in self.actions:
            shape = _state_shape(action.module)
            if shape is not None and action.module is not None:
                self.places[action.module] = Place(self.size, shape)
                self.size += torch.Size(shape).numel()
        # Constants are taken now, so that training on does not change a running generation.
        self.constants = [self._take(action.module) for action in self.actions]
        self.frozen = [self._freeze(action.module) for action in self.actions]
        self.embedding = None if model.embedding is None else self._copy(model.embedding.weight)
        self.head = None if model.head is None else (self._copy(model.head.weight), self._copy(model.head.bias))
        self.compiled = CompiledProgram.of(self) if self.device.type == "cpu" else None

    @functools.cached_property
    @torch.no_grad()
    def fused(self) -> FusedProgram | None:
        """The levels packed for kernels on a GPU; ``None`` where torch or the compiled program is the backend (see
        ``LONGSCAN_BACKEND``), and for networks that the kernels do not know."""
        backends = {"cpu": lambda _: None, "torch": lambda _: None, "triton": FusedProgram.of}
        return choose("sashimi", backends, None, self.device)(self)

    @classmethod
    @torch.no_grad()
    def of(cls, model: SaShiMi, device: torch.device | str | None, dtype: torch.dtype | None) -> StepProgram:
        """Take the constants of ``model``, in float64 for a float64 model or dtype and in float32 otherwise."""
        weight = next(model.parameters())
        wide = (dtype or weight.dtype) == torch.float64
        return cls(model, torch.device(device or weight.device), torch.float64 if wide else torch.float32)

    def empty(self, batch_size: int) -> SaShiMiState:
        """The state before the first sample."""
        return SaShiMiState(0, torch.zeros(batch_size, self.size, device=self.device, dtype=self.dtype), self)

    def step(self, inputs: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
        """One code (batch,) int64, or (batch, d_model) for a plain backbone, to (batch, outputs)."""
        if self.compiled is not None:
            y = self.compiled.run(inputs, state.data, state.position, whole=True)
        else:
            x = inputs.to(self.dtype) if self.embedding is None else F.embedding(inputs, self.embedding)
            y = self.run(x, state.data, state.position)
            y = y if self.head is None else F.linear(y, *self.head)
        return y, state._replace(position=state.position + 1)

    def step_features(self, x: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
        """One embedded sample (batch, d_model) to features (batch, d_model)."""
        if self.compiled is not None:
            y = self.compiled.run(x, state.data, state.position, whole=False)
        else:
            y = self.run(x.to(self.dtype), state.data, state.position)
        return y, state._replace(position=state.position + 1)

    def run(self, x: Tensor, data: Tensor, position: int) -> Tensor:
        """(batch, d_model) to features (batch, d_model) in torch, overwriting ``data``."""
        phases = []
        for factor in self.stack.pool:
            phases.append(position % factor)
            position //= factor
        kept: dict[int, Tensor] = {}
        asleep: int | None = None
        for action, constants, frozen in zip(self.actions, self.constants, self.frozen, strict=True):
            if asleep is not None and not (action.kind == "up" and action.level == asleep):
                continue
            module = action.module
            if action.kind == "save":
                kept[action.slot] = x
            elif action.kind == "add":
                x = x + kept[action.slot]
            elif isinstance(module, DownPool):
                waiting = self.places[module].of(data)
                waiting[:, :, phases[action.level]] = x
                if phases[action.level] == module.pool - 1:
                    x = F.linear(waiting.flatten(1), *constants)
                else:
                    asleep = action.level
            elif isinstance(module, UpPool):
                waiting = self.places[module].of(data)
                due = F.linear(x, *constants) if asleep is None else None
                x = waiting[:, :, phases[action.level]].clone()
                if due is not None:
                    waiting.copy_(due.unflatten(1, (module.d_output, module.pool)))
                asleep = None
            elif isinstance(frozen, ResidualBlock) and isinstance(frozen.layer, StateSpaceMixer):
                assert module is not None
                inner = _norm(frozen.norm, x)
                x = x + _state_space(frozen.layer, constants, inner, self.places[module].of(data))
            elif isinstance(frozen, ResidualBlock):
                x = x + frozen.layer(_norm(frozen.norm, x))
            else:
                assert frozen is not None
                x = _norm(frozen, x)
        return x

    def _take(self, module: nn.Module | None) -> tuple[Tensor, ...]:
        if isinstance(module, DownPool | UpPool):
            return self._copy(module.linear.matrix()), self._copy(module.linear.bias)
        if isinstance(module, ResidualBlock) and isinstance(module.layer, FeedForward):
            inner, outer = module.layer.inner, module.layer.outer
            return tuple(self._copy(p) for p in (inner.weight, inner.bias, outer.weight, outer.bias))
        if isinstance(module, ResidualBlock) and isinstance(module.layer, StateSpaceMixer):
            # What a step adds to the state is kept rather than its factor: near 1 the factor would lose, in float32,
            # the digits that tell how slowly a mode decays.
            system = dense(recurrence_of(module.layer))
            eye = torch.eye(system.transition.shape[-1], dtype=torch.float64, device=system.transition.device)
            tensors = (system.transition - eye, system.input, system.output, module.layer.layer.D)
            return tuple(self._copy(tensor) for tensor in tensors)
        return ()

    def _freeze(self, module: nn.Module | None) -> nn.Module | None:
        """Copy a block or norm as it is now."""
        if module is None or isinstance(module, DownPool | UpPool):
            return None
        return copy.deepcopy(module).to(self.device, self.dtype).eval().requires_grad_(False)

    def _copy(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.dtype, copy=True)


def recurrence_of(mixer: StateSpaceMixer) -> Recurrence:
    """The discretised system of a mixer as it is now."""
    return mixer.kernel.recurrence(mixer.rate)


def _state_shape(module: nn.Module | None) -> tuple[int, ...] | None:
    """Shape of one sequence's state in a module."""
    if isinstance(module, ResidualBlock) and isinstance(module.layer, StateSpaceMixer):
        channels, modes = module.layer.kernel.state_shape
        return 2 * modes, channels
    if isinstance(module, DownPool):
        return module.linear.matrix().shape[1] // module.pool, module.pool
    if isinstance(module, UpPool):
        return module.d_output, module.pool
    return None


def _norm(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x[:, None])[:, 0]


def _state_space(mixer: StateSpaceMixer, constants: tuple[Tensor, ...], u: Tensor, state: Tensor) -> Tensor:
    """Step (batch, channels) through ``state`` (batch, 2 modes, channels), which is overwritten."""
    growth, entry, output, skip = constants
    state += torch.einsum("hnm,bmh->bnh", growth, state) + entry.t() * u[:, None]
    y = torch.einsum("chn,bnh->bch", output, state) + skip * u[:, None]
    return mixer._project(y.flatten(1))


def prefill_stack(stack: MultiRateStack, x: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
    """Features of (batch, length, d_model) read from ``state``, and the state after the last.

    ``state`` is overwritten; whole periods run in parallel.
    """
    length, period = x.shape[1], stack.period
    before = min(-state.position % period, length)
    middle = (length - before) // period * period
    pieces = []
    for t in range(before):
        y, state = _step_features(x[:, t], state)
        pieces.append(y[:, None])
    if middle:
        pieces.append(_parallel(stack, x[:, before : before + middle], state))
        state = state._replace(position=state.position + middle)
    for t in range(before + middle, length):
        y, state = _step_features(x[:, t], state)
        pieces.append(y[:, None])
    if not pieces:
        return x, state
    return torch.cat([piece.to(x.dtype) for piece in pieces], dim=1), state


@torch.no_grad()
def _step_features(x: Tensor, state: SaShiMiState) -> tuple[Tensor, SaShiMiState]:
    return state.program.step_features(x, state)


def _parallel(stack: MultiRateStack, x: Tensor, state: SaShiMiState) -> Tensor:
    """Whole periods from a position between two of them, where no pool holds back inputs."""
    places, data = state.program.places, state.data

    def block(module: nn.Module, x: Tensor) -> Tensor:
        if not (isinstance(module, ResidualBlock) and isinstance(module.layer, StateSpaceMixer)):
            return module(x)
        mixer, place = module.layer, places[module].of(data)
        # Without a past the state's response need not be computed.
        past: Any = None
        if state.position:
            ssm = from_real(place.transpose(1, 2)).to(mixer.kernel.complex_dtype)
            past = StateSpaceState(ssm, recurrence_of(mixer))
        y, after = mixer.prefill(module.norm(x), past)
        place.copy_(to_real(after.ssm).detach().transpose(1, 2))
        return x + y

    def up(module: UpPool, x: Tensor, level: int) -> Tensor:
        place = places[module].of(data)
        y = module.linear(x)
        shifted = module.delay(y, place.flatten(1).clone())
        place.copy_(y[:, -1].detach().unflatten(1, place.shape[1:]))
        return module.spread(shifted)

    return stack(x, block=block, up=up)
