"""Pooling and heads, against sums and picks by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from longscan.core.backbone import BackboneConfig
from longscan.core.errors import UserError
from longscan.core.heads import ClassificationHead, HeadConfig, pool
from longscan.core.models import LanguageModel, LanguageModelConfig

KINDS = ("mean", "max", "first", "last", "center")


def by_hand(rows: Tensor, kind: str) -> Tensor:
    """Pool one sequence's real tokens (n, d_model)."""
    return {
        "mean": lambda: sum(rows) / len(rows),
        "max": lambda: torch.stack([max(column) for column in rows.unbind(1)]),
        "first": lambda: rows[0],
        "last": lambda: rows[len(rows) - 1],
        "center": lambda: rows[len(rows) // 2],
    }[kind]()


@pytest.mark.parametrize("kind", KINDS)
def test_pooling_knows_padding(kind: str) -> None:
    features = torch.randn(7, 10, 5) - 3  # mostly negative, so that padding of zeros would show in the maximum
    real = [range(10), range(4), range(6, 10), range(3, 8), range(1), range(9, 10), (0, 2, 3, 7)]
    mask = torch.zeros(7, 10, dtype=torch.bool)
    for row, positions in enumerate(real):
        mask[row, list(positions)] = True
    features[~mask] = 1e4
    expected = torch.stack([by_hand(features[row, list(p)], kind) for row, p in enumerate(real)])
    assert (pool(features, mask, kind) - expected).abs().max() < 1e-6
    assert torch.equal(pool(features, mask.long(), kind), pool(features, mask, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mask_counts_every_position(kind: str) -> None:
    """Upstream HyenaDNA and Caduceus average over padding too; that is what no mask means."""
    features = torch.randn(3, 9, 4)
    expected = torch.stack([by_hand(row, kind) for row in features])
    assert (pool(features, None, kind) - expected).abs().max() < 1e-6
    assert torch.equal(pool(features, torch.ones(3, 9, dtype=torch.bool), kind), pool(features, None, kind))


def test_pooling_gradients_stay_off_padding() -> None:
    mask = torch.tensor([[False, False, True, True, True]])
    for kind in KINDS:
        features = torch.randn(1, 5, 3, requires_grad=True)
        pool(features, mask, kind).sum().backward()
        assert features.grad[0, :2].abs().max() == 0
        assert features.grad.sum() == pytest.approx(3.0)


def test_a_sequence_of_padding_alone() -> None:
    mask = torch.tensor([[True, True], [False, False]])
    for kind in KINDS:
        with pytest.raises(ValueError, match="no real token in sequence 1"):
            pool(torch.randn(2, 2, 3), mask, kind)


def test_classification_head() -> None:
    head = ClassificationHead(6, HeadConfig(head="classification", num_classes=4, pooling="last"))
    assert head.output.bias.abs().max() == 0
    features = torch.randn(2, 5, 6)
    assert torch.allclose(head(features), features[:, -1] @ head.output.weight.T)
    assert ClassificationHead(6, HeadConfig(head="classification", num_classes=4, head_bias=False)).output.bias is None


@pytest.mark.parametrize("pooling", KINDS)
def test_logits_do_not_depend_on_the_amount_of_padding(pooling: str) -> None:
    """Right padding of a causal model: the real tokens never see it, and pooling leaves it out."""
    config = LanguageModelConfig(
        backbone=BackboneConfig(d_model=16, layers=["mamba", {"name": "attention", "window": 4}], repeat=2),
        vocab_size=9,
        head="classification",
        num_classes=3,
        pooling=pooling,
    )
    model = LanguageModel(config).eval()
    ids = torch.randint(9, (2, 11))
    with torch.no_grad():
        expected = model(ids)
        for extra in (1, 2, 17):
            padded = torch.cat([ids, torch.randint(9, (2, extra))], 1)
            mask = torch.arange(11 + extra).expand(2, -1) < 11
            assert (model(padded, mask) - expected).abs().max() < 1e-5
            assert pooling == "first" or (model(padded) - expected).abs().max() > 1e-4  # without a mask it counts


def test_class_names_give_the_number() -> None:
    config = HeadConfig(head="classification", class_names=["a", "b", "c"])
    assert config.num_classes == 3
    assert config.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"head": "classification"}, "needs num_classes"),
        ({"head": "classify"}, "head is 'classify'; expected 'language_model' or 'classification'"),
        ({"pooling": "median"}, "pooling is 'median'; expected mean"),
        ({"head": "classification", "num_classes": 2, "class_names": ("a",)}, "1 names, num_classes is 2"),
    ],
)
def test_mistakes(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        HeadConfig(**fields)
