"""New audio from autoregressive models of codes, sample by sample, and the likelihood of recordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.generation import sampling_logits

_NUMBERS = 4096  # random numbers that a stream draws at once
_PROMPT_PIECE = 4096  # codes of a prompt that are read at once: memory does not grow with it


@torch.inference_mode()
def sample_codes(
    model: Any,
    prompt: np.ndarray,
    frames: int,
    seeds: Sequence[int],
    *,
    zero: int,
    device: torch.device | str = "cpu",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    greedy: bool = False,
    progress: Callable[[int], Any] = lambda count: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Continue a prompt with ``len(seeds)`` streams at once.

    The model reads ``zero`` first, then the prompt, then what was drawn. A stream's random numbers depend on its own
    seed alone, so neither the size of the batch nor its other streams change what is drawn (to the rounding of the
    model's arithmetic).

    Args:
        model: has ``init_state``, ``prefill(ids, state)`` and ``step(ids, state)``.
        prompt: int64 (length,), which all streams begin with; may be empty.
        frames: codes to draw.
        seeds: of the streams, 0 or more.
        zero: the first input.
        device: of the model.
        temperature: divides the logits.
        top_k: draw from the k most probable codes.
        top_p: draw from the fewest codes that together have this probability.
        greedy: take the most probable code.
        progress: called with the number of codes after each step.

    Returns:
        The codes drawn, int64 (streams, frames), and their log-probabilities in nats under the model itself, before
        temperature and truncation, float32 (streams, frames).

    Raises:
        UserError: a number out of range.
    """
    if frames < 1:
        raise UserError(f"{frames} frames to generate; give at least 1")
    check_sampling(temperature, top_k, top_p)
    plain = temperature == 1 and top_k is None and top_p is None
    codes = torch.empty(frames, len(seeds), dtype=torch.int64, device=device)
    scores = torch.empty(frames, len(seeds), device=device)
    given = torch.from_numpy(np.concatenate([[zero], np.asarray(prompt, dtype=np.int64)])).to(device)
    state = model.init_state(len(seeds), device)
    for piece in given.split(_PROMPT_PIECE):
        logits, state = model.prefill(piece.expand(len(seeds), -1), state)
        logits = logits[:, -1]

    def pick(logits: Tensor, numbers: Tensor) -> Tensor:
        if greedy:
            return logits.argmax(-1)
        narrowed = logits if plain else sampling_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
        return draw(narrowed.float().softmax(-1), numbers)

    numbers = _Numbers(seeds)
    fused = getattr(getattr(state, "program", None), "fused", None)
    count = frames if fused is None else 1
    uniform: Tensor | None = None
    for frame in range(count):
        if frame:
            logits, state = model.step(codes[frame - 1], state)
        if frame % _NUMBERS == 0 and not greedy:
            uniform = torch.from_numpy(numbers.take(min(_NUMBERS, count - frame)).astype(np.float64)).to(device)
        codes[frame] = pick(logits, logits if uniform is None else uniform[frame % _NUMBERS])
        scores[frame] = logits.float().log_softmax(-1).gather(-1, codes[frame].unsqueeze(-1)).squeeze(-1)
        progress(len(seeds))
    if fused is not None and frames > 1:
        from .models.sashimi_sampling import FusedGeneration

        history = given[:, None].expand(-1, len(seeds))
        narrow = None if top_k is None and top_p is None else pick
        generation = FusedGeneration(
            fused, state, history, codes[0], temperature=temperature, greedy=greedy, pick=None if greedy else narrow
        )
        for begin in range(1, frames, _NUMBERS):
            block = slice(begin, min(begin + _NUMBERS, frames))
            size = block.stop - block.start
            given_numbers = np.zeros((size, len(seeds))) if greedy else numbers.take(size)
            codes[block], scores[block] = generation.run(given_numbers)
            progress(size * len(seeds))
    return codes.T.cpu().numpy(), scores.T.cpu().numpy()


def is_causal(model: Any) -> bool:
    """Return whether a model of codes says, itself or by its backbone, that it looks back alone; true where neither
    tells."""
    return bool(getattr(model, "causal", getattr(getattr(model, "backbone", None), "causal", True)))


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Check the options of sampling.

    Raises:
        UserError: one is out of range.
    """
    if not temperature > 0:
        raise UserError(f"--temperature {temperature:g}: must be above 0; for the most probable code --greedy")
    if top_k is not None and top_k < 1:
        raise UserError(f"--top-k {top_k}: must be at least 1")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"--top-p {top_p:g}: must lie above 0 and be at most 1")


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return the codes (streams,) at which the cumulative probabilities (streams, codes) pass ``uniform`` (streams,).

    One number draws one code, so a stream's draw depends on its own number alone; a code of probability 0 adds nothing
    to the sum and is never drawn.
    """
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    return (cumulative <= (uniform * cumulative[:, -1]).unsqueeze(-1)).sum(-1)


class _Numbers:
    """A sequence of numbers in [0, 1) for each seed.

    They have 24 bits, so that a number times a sum near 1 cannot be rounded up to the sum.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [np.random.default_rng(seed) for seed in seeds]

    def take(self, count: int) -> np.ndarray:
        """Return the next ``count`` of all seeds, float32 (count, seeds); they do not depend on how many are taken."""
        return np.stack([generator.random(count, dtype=np.float32) for generator in self._generators], 1)


def stream_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of ``count`` streams, a pure function of ``seed`` and the number of each."""
    return [
        int(np.random.SeedSequence(seed, spawn_key=(number,)).generate_state(1, np.uint64)[0])
        for number in range(count)
    ]


@torch.inference_mode()
def code_log_likelihood(
    model: Any, codes: np.ndarray, *, zero: int, device: torch.device | str = "cpu", block: int = 1 << 15
) -> float:
    """Return the log-likelihood of codes (frames,) in nats, each given those before it, summed in float64.

    The model reads ``block`` codes at a time and carries its state, so that memory does not grow with the recording.
    """
    inputs = np.concatenate([[zero], codes[:-1]]).astype(np.int64)
    state, total = model.init_state(1, device), 0.0
    for begin in range(0, len(codes), block):
        ids = torch.from_numpy(inputs[begin : begin + block]).to(device)
        targets = torch.from_numpy(np.asarray(codes[begin : begin + block], dtype=np.int64)).to(device)
        logits, state = model.prefill(ids[None], state)
        own = logits[0].float().log_softmax(-1)
        total += float(own.gather(-1, targets[:, None]).double().sum())
    return total
