"""Generation with a SaShiMi whose levels run in one kernel each, on a GPU as a CUDA graph of one period."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sashimi_fused import Blocks, FusedProgram, Level, pooled_of, state_of
from .sashimi_fused_kernels import (
    COLLECT,
    EMBEDDED,
    EMBEDDED_POOL,
    GREEDY,
    LATER,
    LOGITS,
    NOTHING,
    POOL,
    RANDOM,
    SPREAD,
    level,
)
from .sashimi_state import SaShiMiState

#: Samples of every stream between two transfers of random numbers and codes.
BLOCK = 4096
_WARPS = 16
_EARLY = 64  # width up to which all weights of a pair fit the registers
_SPAN = 16  # samples in a graph, or one period
_FEWEST = 128  # samples for which it pays to record a graph


class FusedGeneration:
    """Streams that go on from a state; each call of :meth:`run` draws some more codes of all of them.

    A coarse level's result is needed one of its positions later, so it runs beside the finer levels: as another branch
    of the graph. Every kernel reads a position's inputs where its predecessor left them; nothing is returned to the
    host before a block of samples is complete.

    Args:
        fused: the model.
        state: where to go on; it is left as it is.
        history: codes (count, streams) that were read last, the latest at the end; the first level's pool less one of
            them are used.
        first: codes (streams,) that are read next.
        temperature: divides the logits.
        greedy: take the most probable code.
        pick: draws codes (streams,) from logits (streams, codes) and numbers (streams,), in place of the kernel.
        graph: record CUDA graphs; by default on a GPU.
    """

    def __init__(
        self,
        fused: FusedProgram,
        state: SaShiMiState,
        history: Tensor,
        first: Tensor,
        *,
        temperature: float = 1.0,
        greedy: bool = False,
        pick: Callable[[Tensor, Tensor], Tensor] | None = None,
        graph: bool | None = None,
    ) -> None:
        self.fused, self.position = fused, state.position
        self.temperature, self.pick = float(temperature), pick
        self.draw = LATER if pick is not None else GREEDY if greedy else RANDOM
        self.graph = fused.device.type == "cuda" if graph is None else graph
        streams, device = len(first), fused.device
        self.streams = streams
        self.history = fused.pool[0] - 1 if fused.pool else 0
        self.codes = torch.zeros(self.history + BLOCK + 1, streams, dtype=torch.int64, device=device)
        count = min(len(history), self.history)
        self.codes[self.history - count : self.history] = history[len(history) - count :]
        self.codes[self.history] = first
        self.numbers = torch.zeros(BLOCK + 1, streams, device=device)
        self.scores = torch.zeros(BLOCK + 1, streams, device=device)
        self.logits = torch.zeros(streams, fused.vocabulary, device=device)
        self.cursor = torch.zeros(1, dtype=torch.int64, device=device)
        self.none = torch.zeros(16, device=device)
        self.buffers = [self._buffers(index, each, state) for index, each in enumerate(fused.levels)]
        self._captured: torch.cuda.CUDAGraph | None = None
        self._eager = 0
        self.span = fused.period * max(1, _SPAN // fused.period)
        """Samples in a graph."""

    def run(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        """Draw ``len(numbers)`` codes of every stream, at most ``BLOCK``.

        Args:
            numbers: (count, streams) in [0, 1), one for each code.

        Returns:
            Codes (count, streams), int64, and their log-probabilities in nats before temperature, float32.
        """
        count = len(numbers)
        self.numbers[1 : count + 1] = torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.float32)).to(
            self.numbers.device
        )
        self.cursor.zero_()
        done = 0
        while done < count:
            if self._period_fits(count - done):
                assert self._captured is not None
                self._captured.replay()
                done += self.span
                self.position += self.span
            else:
                self.step()
                done += 1
        codes = self.codes[self.history + 1 : self.history + 1 + count].clone()
        scores = self.scores[1 : count + 1].clone()
        self.codes[: self.history + 1] = self.codes[count : count + self.history + 1].clone()
        return codes, scores

    def step(self) -> None:
        """One sample of every stream, one kernel after the other."""
        self._sample(self.position, 0, [])
        self.cursor += 1
        self.position += 1
        self._eager += 1

    def _period_fits(self, left: int) -> bool:
        """Whether to replay the graph now, which is recorded at the first occasion."""
        fused = self.fused
        # Behind this phase nothing of the coarse levels of the period before is still to come (two levels of pools).
        aligned = self.position % fused.period == (fused.pool[0] if len(fused.pool) > 1 else 0)
        if not self.graph or not aligned or left < self.span:
            return False
        if self._captured is None:
            # All kernels have been compiled once a period has run.
            if self._eager < self.span or left < _FEWEST:
                return False
            self._capture()
        return True

    def _capture(self) -> None:
        captured = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(captured):
            main = torch.cuda.current_stream()
            streams = [main, *(torch.cuda.Stream() for _ in self.fused.pool)]
            self._done: list[Any] = [main.record_event(), *(None for _ in self.fused.pool)]
            for offset in range(self.span):
                self._sample(self.position + offset, offset, streams)
            for event in self._done[1:]:
                if event is not None:
                    main.wait_event(event)
            self.cursor += self.span
        self._captured = captured

    def _sample(self, position: int, offset: int, streams: list[Any]) -> None:
        """The kernels of one sample, on streams of their level's own when they are recorded."""
        fused = self.fused
        phases, due = [], 0
        for index, factor in enumerate(fused.pool):
            phases.append(position % factor)
            position //= factor
            if due == index and phases[index] == factor - 1:
                due += 1
        phases.append(0)
        before = self._done[0] if streams else None
        arrived = before
        for index in range(due + 1):
            each = fused.levels[index]
            with _on(streams, index):
                if streams:
                    # What this level reads is complete, and so is what it last got from the coarser one.
                    self._wait(index, arrived, self._done[index + 1] if index < len(fused.pool) else None)
                if each.down is not None:
                    self._launch(index, each.down, offset, phases[index], down=True)
                else:
                    self._launch(index, each.main, offset, phases[index], down=False)
                if each.down is None and index == 0 and self.pick is not None:
                    self._pick(offset)
                if streams:
                    arrived = torch.cuda.current_stream().record_event()
                    if each.down is None:
                        self._done[index] = arrived
                        # In the plain network the next level needs no more than the codes.
                        arrived = before if index == 0 else arrived
        for index in range(due, -1, -1):
            each = fused.levels[index]
            if each.down is None:
                continue
            with _on(streams, index):
                self._launch(index, each.main, offset, phases[index], down=False)
                if index == 0 and self.pick is not None:
                    self._pick(offset)
                if streams:
                    self._done[index] = torch.cuda.current_stream().record_event()

    @staticmethod
    def _wait(index: int, *events: Any) -> None:
        for event in events:
            if event is not None:
                torch.cuda.current_stream().wait_event(event)

    def _pick(self, offset: int) -> None:
        assert self.pick is not None
        row = self.cursor + (offset + 1)
        numbers = self.numbers.index_select(0, row)[0]
        drawn = self.pick(self.logits, numbers)
        own = self.logits.log_softmax(-1).gather(-1, drawn[:, None]).T
        self.codes.index_copy_(0, row + self.history, drawn[None])
        self.scores.index_copy_(0, row, own)

    def _buffers(self, index: int, each: Level, state: SaShiMiState) -> dict[str, Tensor]:
        program, data = state.program, state.data.to(self.fused.device)
        found = {"main": state_of(each.main, program, data)}
        found["work"] = torch.zeros(self.streams, each.main.width, device=data.device)
        if each.down is not None:
            found["down"] = state_of(each.down, program, data)
            found["kept"] = torch.zeros(self.streams, each.down.count + 1, each.down.width, device=data.device)
        if each.collect is not None and each.spread is not None:
            found["coarser"] = pooled_of(each.collect, program, data, each.main.width)  # type: ignore[arg-type]
            found["waiting"] = pooled_of(each.spread, program, data, each.main.width)  # type: ignore[arg-type]
            found["fresh"] = found["waiting"].clone()
        return found

    def _launch(self, index: int, blocks: Blocks, offset: int, phase: int, *, down: bool) -> None:
        fused, own = self.fused, self.buffers[index]
        finer = self.buffers[index - 1] if index else {}
        center = index == len(fused.pool)
        apart = fused.unet and not center
        if apart and not down:
            reads = NOTHING
        elif index == 0:
            reads = EMBEDDED
        elif index == 1 and not fused.unet:
            reads = EMBEDDED_POOL
        else:
            reads = POOL
        writes = COLLECT if down else SPREAD if index else LOGITS
        none = self.none
        kernel, use_layouts = level(fused.device.type)
        parts = blocks.parts
        kernel[(self.streams,)](
            blocks.constants,
            own["down" if down else "main"],
            own.get("kept", none),
            fused.embedding,
            self.codes,
            self.numbers,
            self.scores,
            self.logits,
            self.cursor,
            finer.get("coarser", none),
            own.get("waiting", none),
            own.get("fresh", none),
            own.get("coarser", none),
            finer.get("fresh", none),
            own["work"],
            offset,
            phase,
            len(blocks.mixers),
            self.streams,
            float(blocks.features),
            fused.vocabulary,
            self.temperature,
            H=blocks.width,
            M=blocks.modes,
            RANK=blocks.rank,
            GLU=int(blocks.gated),
            INNER=blocks.inner,
            FINE=fused.levels[index - 1].main.width if index else 1,
            FINE_POOL=fused.pool[index - 1] if index else 1,
            COARSE_POOL=1 if center else fused.pool[index],
            VOCABULARY=max(16, 1 << (fused.vocabulary - 1).bit_length()),
            INPUT=reads.value,
            OUTPUT=writes.value,
            DRAW=self.draw.value,
            UP=not center and not down,
            SAVE=down,
            ADD=apart and not down,
            AROUND=not apart,
            BLOCKS=blocks.count,
            HISTORY=self.history,
            PAIR=blocks.pair,
            ENTRY=blocks.entry,
            EXIT=blocks.exit,
            MODES=parts.modes,
            MIX_PART=parts.mix,
            INNER_PART=parts.inner,
            ENTRY_PART=parts.entry,
            SPREAD_PART=parts.spread,
            EARLY=blocks.width <= _EARLY and 0 < blocks.inner == parts.inner and parts.modes == blocks.modes,
            WARPS=_WARPS,
            USE=use_layouts,
            num_warps=_WARPS,
        )


def _on(streams: list[Any], index: int) -> AbstractContextManager[Any]:
    return torch.cuda.stream(streams[index]) if streams else nullcontext()
