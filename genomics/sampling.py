"""New DNA from causal models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..core.errors import UserError
from ..core.generation import stream
from .inference import DNAModel
from .tokenizer import A, C, G, T

NUCLEOTIDES = (A, C, G, T)


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


def first_bases(number: int, generator: torch.Generator) -> list[Prompt]:
    """Prompts of a single base, drawn evenly from A, C, G and T: DNA models are trained on windows from anywhere, with
    no token for the beginning of a sequence, so that nothing else may come first."""
    drawn = torch.randint(len(NUCLEOTIDES), (number,), generator=generator, device=generator.device)
    return [Prompt("sample", np.array([NUCLEOTIDES[index]], dtype=np.uint8)) for index in drawn.tolist()]


def sample_sequences(
    model: DNAModel,
    prompts: Sequence[Prompt],
    new_bases: int,
    generator: torch.Generator,
    *,
    batch_size: int = 16,
    any_token: bool = False,
    progress: Any = lambda count: None,
    **options: Any,
) -> Iterator[Sample]:
    """Continue every prompt by ``new_bases``; results come in the order of the prompts.

    Prompts of one length are run together. The same prompts, seed, batch size and kind of device give the same
    sequences.

    Args:
        any_token: allow N and special tokens too, written as N; otherwise A, C, G and T alone.
        progress: called with 1 after each base of a batch.
        options: ``temperature``, ``top_k``, ``top_p``, ``greedy`` of `longscan.core.generation.stream`.

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
            ids, scores = [], []
            with (
                torch.inference_mode(),
                torch.autocast(model.device.type, torch.bfloat16, enabled=model.precision == "bf16"),
            ):
                allowed = None if any_token else NUCLEOTIDES
                for token in stream(model.model, given, new_bases, allowed=allowed, generator=generator, **options):
                    ids.append(token.ids)
                    scores.append(token.log_probability)
                    progress(1)
            whole = torch.cat([given, torch.stack(ids, 1)], 1).cpu().numpy()
            totals = torch.stack(scores, 1).sum(1, dtype=torch.float64).tolist()
            for row, line, total in zip(rows, whole, totals, strict=True):
                name = f"{prompts[row].name}_{numbers[row]}"
                done[row] = Sample(name, _letters(line), len(prompts[row].ids), total, new_bases)
            while following in done:
                yield done.pop(following)
                following += 1


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
