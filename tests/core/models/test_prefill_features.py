"""Features of a sequence in pieces, with the state carried, are those of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import longscan

CAUSAL = [
    ("caduceus_ph_1k_d118", {"d_model": 16, "n_layer": 2, "bidirectional": False}),
    ("hyenadna_tiny_1k", {"d_model": 16, "n_layer": 2, "max_length": 130}),
    (
        "LanguageModel",
        {"vocab_size": 12, "backbone": {"d_model": 16, "layers": ["mamba", {"name": "attention", "window": 8}]}},
    ),
]


@pytest.mark.parametrize(("name", "options"), CAUSAL)
def test_pieces_equal_the_whole(name: str, options: dict[str, Any]) -> None:
    model: Any = longscan.create_model(name, **options).eval()
    ids = torch.randint(7, 11, (2, 61))
    with torch.no_grad():
        whole = model.forward_features(ids)
        state, parts = None, []
        for begin, end in ((0, 1), (1, 20), (20, 61)):
            features, state = model.prefill_features(ids[:, begin:end], state)
            parts.append(features)
        assert (torch.cat(parts, 1) - whole).abs().max() < 1e-5
        logits, after = model.prefill(ids)
        assert torch.equal(logits, model.forward_head(model.prefill_features(ids)[0]))
        following = torch.full((2,), 8)
        torch.testing.assert_close(model.step(following, state)[0], model.step(following, after)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{}, {"rcps": True}, {"rcps": True, "bidirectional": False}])
def test_a_model_that_reads_from_both_ends_refuses(options: dict[str, Any]) -> None:
    model: Any = longscan.create_model("caduceus_ph_1k_d118", d_model=16, n_layer=1, **options)
    with pytest.raises(ValueError, match=r"prefill_features needs a causal model"):
        model.prefill_features(torch.full((1, 4), 7))
