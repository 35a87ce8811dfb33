"""New DNA from causal models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import UserError
from ..core.generation import sampling_logits
from .inference import DNAModel
from .tokenizer import A, C, G, T

NUCLEOTIDES = (A, C, G, T)
_BLOCK = 1024  # random numbers that a sequence draws at once


@dataclass(frozen=True)
class Prompt:
    """What a sequence begins with: ``ids`` (length,) uint8, of at least one base."""

    name: str
    ids: np.ndarray


@dataclass(frozen=True)
class Sample:
    """A generated sequence.

    Attributes:
        name: the prompt's, with a number from 1.
        sequence: letters, prompt included.
        prompt: bases of it that were given, or drawn evenly, and not by the model.
        log_likelihood: natural logarithm of the model's probability of all further bases, each after those before it,
            over the whole vocabulary and before temperature and truncation.
        predicted: how many bases that is.
    """

    name: str
    sequence: str
    prompt: int
    log_likelihood: float
    predicted: int


def first_bases(number: int, seed: int) -> list[Prompt]:
    """Prompts of a single base, drawn evenly from A, C, G and T: DNA models are trained on windows from anywhere, with
    no token for the beginning of a sequence, so that nothing else may come first."""
    drawn = np.random.default_rng(seed).integers(len(NUCLEOTIDES), size=number)
    return [Prompt("sample", np.array([NUCLEOTIDES[index]], dtype=np.uint8)) for index in drawn.tolist()]


def sample_sequences(
    model: DNAModel,
    prompts: Sequence[Prompt],
    new_bases: int,
    seed: int,
    *,
    batch_size: int = 16,
    any_token: bool = False,
    greedy: bool = False,
    progress: Callable[[int], Any] = lambda count: None,
    **options: Any,
) -> Iterator[Sample]:
    """Continue every prompt by ``new_bases``; results come in the order of the prompts.

    Prompts of one length are run together. Each has random numbers of its own, from ``seed`` and its place among the
    prompts: neither the batch size nor the other prompts change what is drawn.

    Args:
        any_token: allow N and special tokens too, written as N; otherwise A, C, G and T alone.
        greedy: take the most probable base instead of drawing.
        progress: called with the number of new bases after each step of a batch.
        options: ``temperature``, ``top_k``, ``top_p`` of `longscan.core.generation.sampling_logits`.

    Raises:
        UserError: a model that is not a causal language model, numbers out of range, or more bases than the model
            takes.
    """
    check_generates(model)
    if new_bases < 1:
        raise UserError(f"--length {new_bases}: leaves no base to generate; raise it")
    for prompt in prompts:
        if len(prompt.ids) + new_bases > (model.max_length or np.inf):
            raise UserError(
                f"prompt {prompt.name!r}: its {len(prompt.ids)} bases and {new_bases} new ones are more than "
                f"{model.name} takes, whose filters end at {model.max_length}; lower --length or shorten the prompt"
            )
    groups: dict[int, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(len(prompt.ids), []).append(row)
    numbers = _numbers(prompts)
    done: dict[int, Sample] = {}
    following = 0
    for members in groups.values():
        for begin in range(0, len(members), batch_size):
            rows = members[begin : begin + batch_size]
            given = torch.from_numpy(np.stack([prompts[row].ids for row in rows]).astype(np.int64)).to(model.device)
            uniform = None if greedy else _uniform([_generator(seed, row) for row in rows])
            ids, scores = [], []
            for new, log_probability in _continued(model, given, new_bases, uniform, any_token, options):
                ids.append(new)
                scores.append(log_probability)
                progress(len(rows))
            whole = torch.cat([given, torch.stack(ids, 1)], 1).cpu().numpy()
            totals = torch.stack(scores, 1).sum(1, dtype=torch.float64).tolist()
            for row, line, total in zip(rows, whole, totals, strict=True):
                name = f"{prompts[row].name}_{numbers[row]}"
                done[row] = Sample(name, _letters(line), len(prompts[row].ids), total, new_bases)
            while following in done:
                yield done.pop(following)
                following += 1


def _continued(
    model: DNAModel,
    given: Tensor,
    new_bases: int,
    uniform: Iterator[np.ndarray] | None,
    any_token: bool,
    options: dict[str, Any],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the ids (batch,) of each new base and their log-probabilities under the model itself, float32."""
    state: Any = None
    ids = given
    for count in range(new_bases):
        with (
            torch.inference_mode(),
            torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16"),
        ):
            if count == 0:
                logits, state = model.model.prefill(given, None)
                logits = logits[:, -1]
            else:
                logits, state = model.model.step(ids, state)
        logits = logits.float()
        allowed = logits
        if not any_token:
            allowed = torch.full_like(logits, -torch.inf)
            allowed[:, list(NUCLEOTIDES)] = logits[:, list(NUCLEOTIDES)]
        if uniform is None:
            ids = allowed.argmax(-1)
        else:
            numbers = torch.from_numpy(next(uniform)).to(logits.device)
            ids = _drawn(sampling_logits(allowed, **options).softmax(-1), numbers)
        yield ids, logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The ids (batch,) at which the cumulative probabilities (batch, vocabulary) pass ``uniform`` (batch,) in [0, 1).

    One number draws one token, so a row's draw depends on nothing but its own number; a token of probability 0 adds
    nothing to the cumulative sum and is never drawn.
    """
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    return (cumulative <= (uniform * cumulative[:, -1]).unsqueeze(-1)).sum(-1)


def _generator(seed: int, row: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(row,)))


def _uniform(generators: Sequence[np.random.Generator]) -> Iterator[np.ndarray]:
    """Yield one number of each generator, (batch,) float64 in [0, 1), without end.

    They have 24 bits, so that a number times a sum near 1 cannot be rounded up to the sum.
    """
    while True:
        block = np.stack([generator.random(_BLOCK, dtype=np.float32) for generator in generators])
        yield from block.T.astype(np.float64)


def check_generates(model: DNAModel) -> None:
    """Refuse models that cannot write DNA from left to right.

    Raises:
        UserError: a model that is not causal, or a classifier.
    """
    if model.model.config.head != "language_model":
        raise UserError(f"{model.name}: is a classifier and cannot generate; take the language model it came from")
    if not model.causal:
        raise UserError(
            f"{model.name}: reads from both ends and cannot generate from left to right; take a causal model, such as "
            f"HyenaDNA"
        )


def _numbers(prompts: Sequence[Prompt]) -> list[int]:
    counts: dict[str, int] = {}
    numbers = []
    for prompt in prompts:
        counts[prompt.name] = counts.get(prompt.name, 0) + 1
        numbers.append(counts[prompt.name])
    return numbers


def _letters(ids: np.ndarray) -> str:
    table = np.full(256, ord("N"), dtype=np.uint8)
    table[list(NUCLEOTIDES)] = np.frombuffer(b"ACGT", dtype=np.uint8)
    return table[ids].tobytes().decode("ascii")


__all__ = ["Prompt", "Sample", "check_generates", "first_bases", "sample_sequences"]
