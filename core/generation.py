"""Sampling from causal models, token by token, through ``prefill`` and ``step``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class GeneratedToken(NamedTuple):
    """One token of every sequence of the batch."""

    ids: Tensor
    """(batch,) int64; ``pad_token`` for sequences that have stopped."""
    log_probability: Tensor
    """(batch,) float32: of that token under the model itself, before temperature and truncation; 0 once stopped."""


def sampling_logits(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> Tensor:
    """Return the logits of the distribution to draw from, (batch, vocabulary), excluded tokens at -inf.

    Args:
        logits: the model's, (batch, vocabulary).
        temperature: divides the logits.
        top_k: keep the k most probable tokens (ties with the k-th included).
        top_p: of those, keep the smallest set with at least this probability (nucleus sampling, Holtzman et al. 2020,
            arXiv:1904.09751); the most probable token always stays.
    """
    logits = logits.float() / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        kth = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(dropped, -torch.inf)
    return logits


@torch.no_grad()
def stream(
    model: Any,
    prompt: Tensor,
    max_new_tokens: int | None = None,
    *,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    allowed: Sequence[int] | None = None,
    generator: torch.Generator | None = None,
    stop_tokens: Sequence[int] = (),
    stop: Callable[[Tensor], Tensor] | None = None,
    pad_token: int = 0,
    state: Any = None,
) -> Iterator[GeneratedToken]:
    """Yield one token for each sequence of the batch at a time, in constant memory for recurrent models.

    Args:
        model: has ``prefill(ids, state)`` and ``step(ids, state)`` that return logits and the state.
        prompt: (batch, length ≥ 1) int64, the tokens to continue.
        max_new_tokens: how many at most; ``None`` goes on until everything has stopped.
        greedy: take the most probable token instead of drawing.
        temperature, top_k, top_p: see :func:`sampling_logits`.
        allowed: ids that may be drawn; by default all.
        generator: source of randomness, on the model's device; with a seeded one the result is reproducible.
        stop_tokens: a sequence ends with (and including) the first of these.
        stop: called with the new ids (batch,), returns which sequences end with them, (batch,) bool.
        pad_token: what ended sequences are filled with.
        state: the state after earlier tokens, to go on from.

    Raises:
        ValueError: for an empty prompt or options out of range.
    """
    if prompt.dim() != 2 or prompt.shape[1] < 1:
        raise ValueError(f"prompt has shape {tuple(prompt.shape)}; expected (batch, length) with length at least 1")
    if temperature <= 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature}, top_k {top_k}, top_p {top_p}: expected > 0, ≥ 1 and in (0, 1]")
    logits, state = model.prefill(prompt, state)
    logits = logits[:, -1]
    excluded = None
    if allowed is not None:
        excluded = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
        excluded[list(allowed)] = False
    ends = torch.tensor(list(stop_tokens), dtype=torch.int64, device=logits.device)
    stopped = torch.zeros(len(prompt), dtype=torch.bool, device=logits.device)
    count = 0
    while max_new_tokens is None or count < max_new_tokens:
        candidates = logits if excluded is None else logits.masked_fill(excluded, -torch.inf)
        if greedy:
            ids = candidates.argmax(-1)
        else:
            drawn = sampling_logits(candidates, temperature=temperature, top_k=top_k, top_p=top_p)
            ids = torch.multinomial(drawn.softmax(-1), 1, generator=generator).squeeze(-1)
        log_probability = logits.float().log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        ids = ids.masked_fill(stopped, pad_token)
        yield GeneratedToken(ids, log_probability.masked_fill(stopped, 0.0))
        count += 1
        stopped = stopped | torch.isin(ids, ends)
        if stop is not None:
            stopped = stopped | stop(ids)
        if bool(stopped.all()):
            return
        if max_new_tokens is None or count < max_new_tokens:
            logits, state = model.step(ids, state)


def generate(model: Any, prompt: Tensor, max_new_tokens: int, **options: Any) -> tuple[Tensor, Tensor]:
    """Continue ``prompt`` and return it with the new tokens, (batch, length + new), and their log-likelihoods.

    Args:
        model, prompt, max_new_tokens, options: as for :func:`stream`.

    Returns:
        The ids and the (batch, new) float32 log-probabilities of the new tokens.
    """
    tokens = list(stream(model, prompt, max_new_tokens, **options))
    if not tokens:
        return prompt, prompt.new_zeros(len(prompt), 0, dtype=torch.float32)
    ids = torch.stack([token.ids for token in tokens], dim=1)
    return torch.cat([prompt, ids], dim=1), torch.stack([token.log_probability for token in tokens], dim=1)
