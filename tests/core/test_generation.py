"""Sampling: the same tokens from every path, the distribution that was asked for, and clean ends."""

from __future__ import annotations

import pytest
import torch

from longscan.core.backbone import BackboneConfig
from longscan.core.generation import generate, sampling_logits, stream
from longscan.core.models import LanguageModel, LanguageModelConfig


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    torch.manual_seed(0)
    layers = ["mamba", {"name": "attention", "window": 4}, {"name": "hyena", "max_length": 64}]
    config = LanguageModelConfig(backbone=BackboneConfig(d_model=16, layers=layers), vocab_size=11)
    built = LanguageModel(config).eval()
    for parameter in built.parameters():  # away from the flat distribution of fresh weights
        parameter.data += 0.1 * torch.randn_like(parameter)
    return built


PROMPT = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def test_greedy_is_the_argmax_of_the_whole_forward(model: LanguageModel) -> None:
    """Token by token equals running the model on everything so far; likelihoods too."""
    ids, log_probability = generate(model, PROMPT, 12, greedy=True)
    expected = PROMPT
    for _ in range(12):
        expected = torch.cat([expected, model(expected)[:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(ids, expected)
    whole = model(ids)[:, 4:-1].log_softmax(-1).gather(-1, ids[:, 5:, None]).squeeze(-1)
    difference = (whole - log_probability).abs().max().item()
    print(f"log-probabilities differ by {difference:.2e}")
    assert difference < 1e-5


def test_a_seed_makes_it_reproducible_and_rows_are_independent(model: LanguageModel) -> None:
    """Same seed, same tokens; another seed, others; top-1 equals greedy."""
    draw = lambda seed: generate(model, PROMPT, 20, generator=torch.Generator().manual_seed(seed))[0]  # noqa: E731
    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    assert torch.equal(generate(model, PROMPT, 20, top_k=1)[0], generate(model, PROMPT, 20, greedy=True)[0])
    alone = generate(model, PROMPT[1:], 20, greedy=True)[0]
    assert torch.equal(generate(model, PROMPT, 20, greedy=True)[0][1:], alone)


def test_sampling_follows_the_distribution(model: LanguageModel) -> None:
    """20,000 first tokens against the model's softmax at temperature 0.7: total variation below 0.02."""
    prompt = PROMPT[:1].expand(20000, -1)
    token = next(stream(model, prompt, 1, temperature=0.7, generator=torch.Generator().manual_seed(0)))
    observed = torch.bincount(token.ids, minlength=11) / 20000
    expected = (model(PROMPT[:1])[0, -1] / 0.7).softmax(-1)
    distance = 0.5 * (observed - expected).abs().sum().item()
    print(f"total variation {distance:.4f}")
    assert distance < 0.02


def test_truncation_by_hand() -> None:
    """Top-k keeps k, top-p the smallest set that reaches p, the best token always stays."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = lambda **options: sampling_logits(logits, **options).isfinite().tolist()[0]  # noqa: E731
    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_p=0.75) == [True, True, False, False]
    assert kept(top_p=0.81) == [True, True, True, False]
    assert kept(top_p=0.01) == [True, False, False, False]
    assert torch.allclose(sampling_logits(logits, temperature=2.0), logits / 2)


def test_stop_tokens_and_allowed(model: LanguageModel) -> None:
    """A row is padded once it has stopped; generation ends when all have; only allowed ids are drawn."""
    ids, log_probability = generate(
        model, PROMPT, 200, allowed=[2, 3], stop_tokens=[3], pad_token=0, generator=torch.Generator().manual_seed(3)
    )
    new = ids[:, 5:]
    assert new.shape[1] < 200
    for row, likelihood in zip(new.tolist(), log_probability.tolist(), strict=True):
        end = row.index(3)
        assert set(row[:end]) <= {2}
        assert set(row[end + 1 :]) <= {0}
        assert all(value == 0 for value in likelihood[end + 1 :])
        assert all(value < 0 for value in likelihood[: end + 1])
    assert max(row.index(3) for row in new.tolist()) == new.shape[1] - 1
    stopped = list(stream(model, PROMPT, 50, stop=lambda ids: torch.ones_like(ids, dtype=torch.bool)))
    assert len(stopped) == 1


def test_memory_stays_the_same_while_generating() -> None:
    """The state of a recurrent model holds as many numbers after 300 tokens as after 3."""
    torch.manual_seed(0)
    layers = ["mamba", {"name": "attention", "window": 8}]
    model = LanguageModel(LanguageModelConfig(backbone=BackboneConfig(d_model=16, layers=layers), vocab_size=5)).eval()
    sizes = []
    with torch.no_grad():
        logits, state = model.prefill(torch.tensor([[1, 2]]))
        for step in range(300):
            logits, state = model.step(logits.flatten(0, -2)[-1:].argmax(-1), state)
            if step in (2, 299):
                leaves = torch.utils._pytree.tree_leaves(state)
                sizes.append(sum(leaf.numel() for leaf in leaves if isinstance(leaf, torch.Tensor)))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}], ids=lambda o: str(o)
)
def test_bad_options(model: LanguageModel, options: dict[str, float]) -> None:
    """Out of range is said at once."""
    with pytest.raises(ValueError, match="expected > 0"):
        generate(model, PROMPT, 1, **options)


def test_empty_prompt(model: LanguageModel) -> None:
    """There is nothing to continue."""
    with pytest.raises(ValueError, match="at least 1"):
        generate(model, PROMPT[:, :0], 1)
