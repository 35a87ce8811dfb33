"""Caduceus and HyenaDNA by themselves: symmetry under the reverse complement, sizes, limits, every option."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import longscan
from longscan.core.errors import UserError
from longscan.core.pretrained import unique_parameters
from longscan.genomics.models import Caduceus, CaduceusConfig, HyenaDNA, HyenaDNAConfig
from longscan.genomics.tokenizer import COMPLEMENT

#: Trainable parameters as published, shared ones counted once.
PUBLISHED = {
    "hyenadna_tiny_1k": 436_096,
    "hyenadna_tiny_1k_d256": 1_641_088,
    "hyenadna_tiny_16k": 436_096,
    "hyenadna_small_32k": 3_277_568,
    "hyenadna_medium_160k": 6_550_528,
    "hyenadna_medium_450k": 6_550_528,
    "hyenadna_large_1m": 6_550_528,
    "caduceus_ph_1k_d118": 470_702,
    "caduceus_ps_1k_d118": 470_702,
    "caduceus_ph_1k_d256": 1_934_592,
    "caduceus_ps_1k_d256": 1_934_592,
    "caduceus_ph_131k": 7_725_312,
    "caduceus_ps_131k": 7_725_312,
}
LENGTHS = {f"hyenadna_{k}": v for k, v in (("tiny_1k", 1026), ("tiny_16k", 16_386), ("small_32k", 32_770))} | {
    f"hyenadna_{k}": v for k, v in (("medium_160k", 160_002), ("medium_450k", 450_002), ("large_1m", 1_000_002))
}


def shaken(model: torch.nn.Module) -> torch.nn.Module:
    """Move every parameter away from where it would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def caduceus(**fields) -> Caduceus:
    return shaken(Caduceus(CaduceusConfig(**{"d_model": 20, "n_layer": 3, "d_state": 5, **fields})))


def hyenadna(**fields) -> HyenaDNA:
    return shaken(HyenaDNA(HyenaDNAConfig(**{"d_model": 16, "n_layer": 2, "max_length": 40, **fields})))


def sequence(length: int, batch: int = 2) -> Tensor:
    """Ids of all kinds: bases, N, specials, unused rows."""
    return torch.randint(16, (batch, length))


def largest(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def rc(ids: Tensor) -> Tensor:
    """The other strand, base by base: A ↔ T, C ↔ G, the rest as it is."""
    pairs = {7: 10, 10: 7, 8: 9, 9: 8}
    return torch.tensor([[pairs.get(int(i), int(i)) for i in reversed(row)] for row in ids.tolist()])


PS = {
    "swap": {"rcps": True},
    "no-swap": {"rcps": True, "rcps_swap": False},
    "multiply": {"rcps": True, "bidirectional_strategy": "ew_multiply"},
    "untied": {"rcps": True, "bidirectional_weight_tie": False, "rms_norm": False},
    "one-way": {"rcps": True, "bidirectional": False, "bias": True},
}


@pytest.mark.parametrize("fields", PS.values(), ids=PS)
@pytest.mark.parametrize("length", [1, 2, 17, 32])
def test_ps_is_equivariant(fields: dict, length: int) -> None:
    model = caduceus(**fields)
    ids = sequence(length)
    with torch.no_grad():
        hidden, of_rc = model.forward_features(ids), model.forward_features(rc(ids))
        assert hidden.shape == (2, length, 40)
        found = {"hidden": largest(of_rc, hidden.flip(1, 2))}
        logits = model(ids)
        found["logits"] = largest(model(rc(ids))[..., list(COMPLEMENT)].flip(1), logits)
        classifier = caduceus(**fields, head="classification", num_classes=4)
        found["classes"] = largest(classifier(rc(ids)), classifier(ids))
        # Invariant features: the mean of the halves, the second with its channels turned back.
        halves = [h[:, :, :20] + h[:, :, 20:].flip(2) for h in (hidden, of_rc)]
        found["mean of strands"] = largest(halves[1].flip(1), halves[0])
    print({key: f"{value:.1e}" for key, value in found.items()})
    assert max(found.values()) < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last", "center"])
def test_ps_classifier_with_padding(pooling: str) -> None:
    """The mask turns with the strand, so that the classes stay invariant."""
    model = caduceus(rcps=True, head="classification", num_classes=3, pooling=pooling)
    ids = sequence(15)
    mask = torch.zeros(2, 15, dtype=torch.bool)
    mask[0, 4:] = mask[1, 2:9] = True
    with torch.no_grad():
        assert largest(model(rc(ids), mask.flip(1)), model(ids, mask)) < 1e-5
        assert largest(model(ids, mask), model(ids)) > 1e-3


def test_the_strands_exchange_matters() -> None:
    """With and without the exchange the same weights are different models."""
    with_swap = caduceus(rcps=True)
    without = caduceus(rcps=True, rcps_swap=False)
    without.load_state_dict(with_swap.state_dict())
    ids = sequence(21)
    assert largest(with_swap(ids), without(ids)) > 0.05


def test_ps_without_exchange_is_two_separate_strands() -> None:
    """Then each half is what the Ph model with the same weights gives for that strand."""
    ps, ph = caduceus(rcps=True, rcps_swap=False), caduceus()
    ph.load_state_dict(ps.state_dict())
    ids = sequence(21)
    hidden = ps.forward_features(ids)
    assert largest(hidden[..., :20], ph.forward_features(ids)) < 1e-5
    assert largest(hidden[..., 20:].flip(1, 2), ph.forward_features(rc(ids))) < 1e-5


def test_conjoined_classifier_is_invariant() -> None:
    model = caduceus(head="classification", num_classes=3, conjoin=True)
    ids = sequence(18)
    mask = torch.ones(2, 18, dtype=torch.bool)
    mask[:, :5] = False
    with torch.no_grad():
        assert largest(model(rc(ids)), model(ids)) < 1e-5
        assert largest(model(rc(ids), mask.flip(1)), model(ids, mask)) < 1e-5
        both = torch.stack([ids, rc(ids)], -1)
        assert largest(model(both), model(ids)) < 1e-6
        plain = caduceus(head="classification", num_classes=3)
        plain.load_state_dict(model.state_dict())
        assert largest(model(ids), (plain(ids) + plain(rc(ids))) / 2) < 1e-6
        assert largest(plain(rc(ids)), plain(ids)) > 1e-3
    with pytest.raises(UserError, match="conjoin is for Ph models"):
        CaduceusConfig(d_model=8, n_layer=1, rcps=True, conjoin=True)


def test_reverse_complement_of_ids() -> None:
    model = caduceus()
    ids = sequence(33)
    assert torch.equal(model.reverse_complement_ids(ids), rc(ids))
    assert torch.equal(model.reverse_complement_ids(rc(ids)), ids)


def test_complement_map() -> None:
    """JSON's string keys, and a map shorter than the vocabulary: further ids are their own complement."""
    config = CaduceusConfig(d_model=8, n_layer=1, vocab_size=5, complement_map={"0": 1, "1": 0, "2": 3, "3": 2})
    assert config.complement_map == (1, 0, 3, 2)
    assert Caduceus(config).complement.tolist() == [1, 0, 3, 2, 4, 5, 6, 7]
    with pytest.raises(UserError, match="complement_map has 16 entries, the vocabulary 8"):
        Caduceus(CaduceusConfig(d_model=8, n_layer=1, vocab_size=5))


def test_caduceus_streams_only_one_way() -> None:
    ids = sequence(11)
    for fields in ({}, {"rcps": True}, {"rcps": True, "bidirectional": False}):
        model = caduceus(**fields)
        for call in (
            lambda m=model: m.init_state(2),
            lambda m=model: m.prefill(ids),
            lambda m=model: m.step(ids[:, 0], []),
        ):
            with pytest.raises(ValueError, match="needs a causal model"):
                call()
    model = caduceus(bidirectional=False)
    with torch.no_grad():
        logits, state = model.prefill(ids[:, :6])
        rows = [logits]
        for t in range(6, 11):
            y, state = model.step(ids[:, t], state)
            rows.append(y[:, None])
        assert largest(torch.cat(rows, 1), model(ids)) < 1e-5


def test_packed_sequences() -> None:
    ids = sequence(20, batch=1)
    bounds = torch.tensor([0, 7, 8, 20])
    for model in (caduceus(), hyenadna()):
        with torch.no_grad():
            packed = model(ids, cu_seqlens=bounds)
            separate = torch.cat([model(part) for part in ids.split([7, 1, 12], dim=1)], 1)
            assert largest(packed, separate) < 1e-5
    with pytest.raises(ValueError, match=r"cu_seqlens: Caduceus-PS"):
        caduceus(rcps=True)(ids, cu_seqlens=bounds)


def test_hyenadna_up_to_its_length() -> None:
    model = hyenadna(max_length=24)
    with torch.no_grad():
        assert model(sequence(24)).isfinite().all()
        assert model(sequence(1)).shape == (2, 1, 16)
        with pytest.raises(ValueError, match=r"a sequence of 25 tokens is longer than .*max_length 24"):
            model(sequence(25))
        _, state = model.prefill(sequence(24))
        with pytest.raises(ValueError, match=r"25 tokens is longer"):
            model.step(sequence(1)[:, 0], state)


def test_hyenadna_filters_do_not_depend_on_the_input() -> None:
    """A causal model: the logits of a prefix are the prefix of the logits, whatever the length."""
    model = hyenadna(max_length=40, order=3).double()
    ids = sequence(40)
    with torch.no_grad():
        whole = model(ids)
        for length in (1, 2, 7, 39):
            assert largest(model(ids[:, :length]), whole[:, :length]) < 1e-10


def test_hyenadna_dropout_only_in_training() -> None:
    model = hyenadna(embed_dropout=0.5)
    ids = sequence(30)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    zeros = (model.embed(ids) == 0).float().mean()
    assert 0.4 < float(zeros) < 0.6


@pytest.mark.parametrize("build", [caduceus, hyenadna], ids=["caduceus", "hyenadna"])
def test_gradient_checkpointing(build) -> None:
    ids = sequence(19)
    grads = []
    models = [build(), build(gradient_checkpointing=True)]
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        torch.manual_seed(1)
        model.train()(ids).square().mean().backward()
        grads.append({key: value.grad for key, value in model.named_parameters()})
    assert list(grads[0]) == list(grads[1])
    assert all(torch.equal(grads[0][key], grads[1][key]) for key in grads[0])


def test_gradient_checkpointing_of_both_strands() -> None:
    ids = sequence(19)
    plain, saving = caduceus(rcps=True), caduceus(rcps=True, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        model.train()(ids).square().mean().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_bfloat16_stays_near_float32() -> None:
    ids = sequence(25)
    for model in (caduceus(), caduceus(rcps=True), hyenadna()):
        with torch.no_grad():
            expected = model(ids)
            with torch.autocast("cpu", torch.bfloat16):
                assert largest(model(ids).float(), expected) < 0.1
            short = model.bfloat16()
            rounded = type(model)(model.config).eval()
            rounded.load_state_dict(short.state_dict())
            y = short(ids)
            assert y.dtype == torch.bfloat16
            assert largest(y.float(), rounded(ids)) < 0.1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name: str) -> None:
    with torch.device("meta"):
        model = longscan.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name]
    stored = sum(v.numel() for v in unique_parameters(model).values())
    assert stored == PUBLISHED[name]  # nothing beside the parameters is written
    if name in LENGTHS:
        assert model.config.max_length == LENGTHS[name]
    assert model.embedding.weight.shape[0] == 16


def test_every_published_size_is_tested() -> None:
    assert set(longscan.list_models(domain="genomics", pretrained=True)) >= set(PUBLISHED)


def test_hub_head_is_untied() -> None:
    tied, untied = hyenadna(), hyenadna(tie_embeddings=False)
    difference = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert difference == 16 * 16
    assert tied.head is None
    ids = sequence(9)
    assert largest(tied(ids), tied.forward_features(ids) @ tied.embedding.weight.T) < 1e-6
    assert largest(untied(ids), untied.forward_features(ids) @ untied.head.weight.T) < 1e-6


def test_initialisation_as_published() -> None:
    """Embeddings N(0, 0.02); Caduceus' output projections shrink by sqrt(n_layer), HyenaDNA's by sqrt(2 n_layer)."""
    model = longscan.create_model("caduceus_ph_1k_d256")
    assert float(model.embedding.weight.std().detach()) == pytest.approx(0.02, rel=0.05)
    for block in model.backbone.blocks():
        weight = block.mixer.forward_mixer.out_proj.weight
        assert float(weight.detach().abs().max()) == pytest.approx(512**-0.5 / 2, rel=0.01)
    model = longscan.create_model("hyenadna_small_32k", head="classification", num_classes=50)
    assert float(model.embedding.weight.std().detach()) == pytest.approx(0.02, rel=0.05)
    assert float(model.head.output.weight.std().detach()) == pytest.approx(0.02, rel=0.05)
    for block in model.backbone.blocks():
        assert float(block.mixer.in_proj.weight.std().detach()) == pytest.approx(0.02, rel=0.02)
        for weight in (block.mixer.out_proj.weight, block.channel_mixer.fc2.weight):
            assert float(weight.std().detach()) == pytest.approx(0.02 / 8**0.5, rel=0.02)


def test_exports_that_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a head of its own; load the model with tie_embeddings=False"):
        hyenadna().save_pretrained(tmp_path, format="hyenadna-hf")
    with pytest.raises(UserError, match=r"fixes the window's shift at 0\.05; this model has 0\.0"):
        hyenadna(tie_embeddings=False, shift=0.0).save_pretrained(tmp_path, format="hyenadna-hf")
    with pytest.raises(UserError, match="can be read but not written"):
        hyenadna().save_pretrained(tmp_path, format="hyenadna-github")
    with pytest.raises(UserError, match="holds Caduceus, not HyenaDNA"):
        hyenadna().save_pretrained(tmp_path, format="caduceus-hf")
    assert not list(tmp_path.iterdir())


VARIANTS: dict[str, tuple] = {
    "hub-3-inner-order-3": (hyenadna, {"tie_embeddings": False, "num_inner_mlps": 3, "order": 3, "emb_dim": 7}),
    "hub-no-bias": (hyenadna, {"tie_embeddings": False, "use_bias": False, "d_inner": 40, "activation_freq": 1.0}),
    "hub-short-filter": (hyenadna, {"tie_embeddings": False, "short_filter_order": 5, "num_inner_mlps": 0}),
    "hub-classifier": (
        hyenadna,
        {"tie_embeddings": False, "head": "classification", "num_classes": 3, "pooling": "last", "head_bias": False},
    ),
    "ps-unfused-layernorm": (caduceus, {"rcps": True, "rcps_swap": False, "rms_norm": False}),
    "ps-classifier-max": (caduceus, {"rcps": True, "head": "classification", "num_classes": 3, "pooling": "max"}),
    "ph-untied": (caduceus, {"bidirectional_weight_tie": False, "bias": True, "conv_bias": False}),
    "ph-multiply": (caduceus, {"bidirectional_strategy": "ew_multiply", "d_conv": 3, "dt_rank": 3, "expand": 1.5}),
    "ph-one-way": (caduceus, {"bidirectional": False}),
    "ps-one-way": (caduceus, {"bidirectional": False, "rcps": True}),
    "ph-conjoin": (caduceus, {"head": "classification", "num_classes": 2, "conjoin": True, "head_bias": True}),
    "ph-plant": (caduceus, {"vocab_size": 8, "complement_map": (0, 1, 2, 6, 5, 4, 3, 7), "pad_token_id": 0}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_published_formats_hold_every_variant(variant: str, tmp_path: Path) -> None:
    """Written in the published format and read back: the same weights, bit for bit, and the same function."""
    build, fields = VARIANTS[variant]
    model = build(**fields)
    model.save_pretrained(tmp_path, format="hyenadna-hf" if build is hyenadna else "caduceus-hf")
    again = longscan.from_pretrained(tmp_path)
    state, same = model.state_dict(), again.state_dict()
    assert list(state) == list(same)
    assert all(torch.equal(state[key], same[key]) for key in state)
    ids = torch.randint(model.embedding.weight.shape[0], (2, 21))
    assert torch.equal(again(ids), model(ids))
    kept = {key: getattr(again.config, key) for key in fields}
    assert kept == fields
