"""The backbone: described by data, initialised as published, one function in parallel and token by token."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import yaml
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from longscan.core.backbone import Backbone, BackboneConfig, DropPath
from longscan.core.channel_mixers import MLP, GatedMLP, create_channel_mixer, list_channel_mixers
from longscan.core.errors import UserError
from longscan.core.mixers import Attention, Hyena, Mamba, clone_state
from longscan.core.norms import LayerNorm, RMSNorm, create_norm

SAMBA = """
d_model: 24
layers:
  - mamba
  - {name: gated_mlp, d_inner: 40}
  - {name: attention, window: 6, n_heads: 2}
  - gated_mlp
repeat: 2
"""
HYBRID = BackboneConfig(
    d_model=24,
    layers=[
        {"mixer": {"name": "hyena", "max_length": 64}, "channel_mixer": {"name": "mlp", "d_inner": 50}},
        {"mixer": "mamba", "channel_mixer": None},
        {"channel_mixer": "gated_mlp"},
        "attention",
    ],
    norm="layernorm",
)


def samba(**fields) -> BackboneConfig:
    return replace(BackboneConfig(**yaml.safe_load(SAMBA)), **fields)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def test_a_stack_from_yaml() -> None:
    backbone = Backbone(samba())
    kinds = [type(block.mixer or block.channel_mixer) for block in backbone.blocks()]
    assert kinds == [Mamba, GatedMLP, Attention, GatedMLP] * 2
    assert backbone.blocks()[1].channel_mixer.gate_proj.out_features == 40
    assert backbone.blocks()[2].mixer.window == 6
    assert backbone.causal
    assert not Backbone(BackboneConfig(d_model=8, layers=["mamba", "bidirectional"])).causal


@pytest.mark.parametrize("config", [samba(), HYBRID, samba(residual_in_fp32=False)], ids=["samba", "hybrid", "plain"])
def test_parallel_and_recurrent_forms(config: BackboneConfig) -> None:
    backbone = Backbone(config).eval()
    x = torch.randn(2, 23, 24)
    with torch.no_grad():
        whole = backbone(x)
        prefilled, state = backbone.prefill(x[:, :10])
        kept = clone_state(state)
        outputs = [prefilled]
        for t in range(10, 23):
            y, state = backbone.step(x[:, t], state)
            outputs.append(y[:, None])
        found = relative(torch.cat(outputs, 1), whole)
        print(f"prefill and steps against forward: {found:.1e}")
        assert found < 1e-5
        assert relative(backbone.prefill(x[:, 10:], kept)[0], whole[:, 10:]) < 1e-5
        assert relative(backbone(x[:, 10:], state=kept), whole[:, 10:]) < 1e-5
        state = backbone.init_state(2)
        for t in range(23):
            y, state = backbone.step(x[:, t], state)
            assert relative(y, whole[:, t]) < 1e-4
        bounds = torch.tensor([0, 4, 5, 23])
        packed = backbone(x[:1], cu_seqlens=bounds)
        separate = [backbone(part) for part in x[:1].split([4, 1, 18], dim=1)]
        assert relative(packed, torch.cat(separate, 1)) < 1e-5


def test_a_block_is_pre_norm_residual() -> None:
    """h = h + mixer(norm(h)); h = h + mlp(channel_norm(h)); then the final norm."""
    backbone = Backbone(replace(HYBRID, layers=HYBRID.layers[:2])).eval()
    for parameter in backbone.parameters():
        nn.init.normal_(parameter, std=0.3)
    first, second = backbone.blocks()
    x = torch.randn(2, 9, 24)
    with torch.no_grad():
        h = x + first.mixer(first.norm(x))
        h = h + first.channel_mixer.fc2(
            nn.functional.gelu(first.channel_mixer.fc1(first.channel_norm(h)), approximate="tanh")
        )
        h = h + second.mixer(second.norm(h))
        assert relative(backbone(x), backbone.final_norm(h)) < 1e-6


def test_norms_against_their_formulas() -> None:
    x = 3 * torch.randn(4, 7, 24, dtype=torch.float64) + 1
    rms, layer = create_norm("rmsnorm", 24, 1e-3).double(), create_norm("layernorm", 24, 1e-3).double()
    assert isinstance(rms, RMSNorm)
    assert isinstance(layer, LayerNorm)
    for norm in (rms, layer):
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
    expected = rms.weight * x / (x.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt()
    assert (rms(x) - expected).abs().max() < 1e-12
    centred = x - x.mean(-1, keepdim=True)
    expected = layer.weight * centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-3).sqrt() + layer.bias
    assert (layer(x) - expected).abs().max() < 1e-12
    for norm in (rms.float(), layer.float()):
        short = (1000 * x).bfloat16()  # squares beyond float16's range, sums beyond bfloat16's precision
        assert norm(short).dtype == torch.bfloat16
        assert relative(norm(short).float(), norm(short.float())) < 0.01
        assert norm((300 * x).half()).isfinite().all()
    with pytest.raises(UserError, match="norm 'rmsnrm' is unknown; nearest: rmsnorm"):
        create_norm("rmsnrm", 8)


@pytest.mark.parametrize("name", list_channel_mixers())
def test_channel_mixers(name: str) -> None:
    mixer = create_channel_mixer(name, 24, d_inner=40)
    x = torch.randn(3, 11, 24)
    y = mixer(x)
    if isinstance(mixer, GatedMLP):
        expected = mixer.down_proj(nn.functional.silu(mixer.gate_proj(x)) * mixer.up_proj(x))
    else:
        expected = mixer.fc2(nn.functional.gelu(mixer.fc1(x), approximate="tanh"))
    assert relative(y, expected) < 1e-6
    with pytest.raises(UserError, match="activation 'gelo' is unknown; nearest: gelu"):
        create_channel_mixer(name, 24, activation="gelo")
    with pytest.raises(UserError, match="d_iner"):
        create_channel_mixer(name, 24, d_iner=3)


def test_a_long_sequence_goes_through_the_mlp_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    mlp = MLP(24, d_inner=40)
    x = torch.randn(3, 11, 24)
    with torch.no_grad():
        whole = mlp(x)
        monkeypatch.setattr(MLP, "inference_elements", 40 * 7)
        largest = []
        mlp.fc1.register_forward_hook(lambda module, inputs, output: largest.append(output.shape[:-1].numel()))
        assert relative(mlp(x), whole) < 1e-6
        assert max(largest) == 7
    assert mlp(x).requires_grad
    assert largest[-1] == 33  # in training nothing is cut


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = Backbone(samba(dropout=0.1, drop_path=0.2))
    saving = Backbone(samba(dropout=0.1, drop_path=0.2, gradient_checkpointing=True))
    assert list(plain.state_dict()) == list(saving.state_dict())
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(4, 17, 24)
    grads, runs = [], []
    for backbone in (plain, saving):
        calls = []
        backbone.blocks()[0].mixer.in_proj.register_forward_hook(lambda *args, calls=calls: calls.append(1))
        torch.manual_seed(3)
        value = x.clone().requires_grad_()
        backbone.train()(value).square().mean().backward()
        grads.append([value.grad, *(p.grad for p in backbone.parameters())])
        runs.append(len(calls))
    assert runs == [1, 2]  # recomputed in the backward pass
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    with torch.no_grad():
        assert torch.equal(plain.eval()(x), saving.eval()(x))


def test_wrapped_hooked_and_compiled_blocks_still_run() -> None:
    """FSDP and activation checkpointing put a module of theirs in a block's place."""
    backbone = Backbone(samba()).eval()
    x = torch.randn(2, 17, 24)
    with torch.no_grad():
        plain = backbone(x)
        final, _ = backbone.prefill(x)
        count = len(backbone.blocks())
        backbone.layers[1] = checkpoint_wrapper(backbone.layers[1])
        backbone.layers[2].compile(backend="eager")
        seen = []
        backbone.layers[3].register_forward_hook(lambda *args: seen.append(args[-1]))
        assert len(backbone.blocks()) == count == 8
        torch.testing.assert_close(backbone(x), plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(backbone.prefill(x)[0], final, rtol=1e-5, atol=1e-6)
    assert [y.shape for y in seen] == [(2, 17, 24)]
    backbone.train()(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in backbone.layers[1].parameters())


def test_drop_path() -> None:
    drop = DropPath(0.3).train()
    x = torch.ones(20000, 2, 3)
    y = drop(x)
    kept = y[:, 0, 0] != 0
    assert ((y == 0) | (y - 1 / 0.7).abs().lt(1e-6)).all()
    assert torch.equal(y != 0, kept[:, None, None].expand_as(y))  # a sample as a whole
    assert float(kept.float().mean()) == pytest.approx(0.7, abs=0.01)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(x), x)
    config = BackboneConfig(d_model=4, layers=["mamba", "mlp"], repeat=3, drop_path=0.5)
    rates = [block.drop[1].probability for block in Backbone(config).blocks()]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_initialisation_of_mamba_stacks() -> None:
    """Mamba: torch's own, zero biases, output projections shrunk by sqrt(additions), step sizes log-uniform."""
    torch.manual_seed(1)
    d_model, n_layer = 256, 9
    layer = {"name": "mamba", "bias": True, "dt_min": 0.001, "dt_max": 0.1}
    backbone = Backbone(BackboneConfig(d_model=d_model, layers=[layer], repeat=n_layer))
    steps = []
    for block in backbone.blocks():
        mixer = block.mixer
        bound = 1 / math.sqrt(2 * d_model)  # kaiming-uniform with a = sqrt 5 over the 512 inputs of out_proj
        weight = mixer.out_proj.weight
        assert float(weight.detach().abs().max()) == pytest.approx(bound / math.sqrt(n_layer), rel=0.01)
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3 * n_layer), rel=0.02)
        assert float(mixer.in_proj.weight.detach().abs().max()) == pytest.approx(1 / math.sqrt(d_model), rel=0.01)
        assert mixer.in_proj.bias.abs().max() == mixer.out_proj.bias.abs().max() == 0
        assert float(mixer.dt_proj.weight.detach().abs().max()) == pytest.approx(16**-0.5, rel=0.01)
        assert torch.equal(mixer.A_log, torch.arange(1, 17).float().log().expand(512, 16))
        assert torch.equal(mixer.D, torch.ones(512))
        steps.append(nn.functional.softplus(mixer.dt_proj.bias))
    dt = torch.cat(steps).detach()
    assert 0.00099 < float(dt.min()) < 0.0011
    assert 0.095 < float(dt.max()) < 0.101
    log = dt.log()
    assert float(log.mean()) == pytest.approx((math.log(0.001) + math.log(0.1)) / 2, abs=0.08)
    assert float(log.std()) == pytest.approx((math.log(0.1) - math.log(0.001)) / math.sqrt(12), rel=0.05)
    plain = Backbone(BackboneConfig(d_model=64, layers=["mamba"], repeat=4, rescale_prenorm_residual=False))
    assert float(plain.blocks()[0].mixer.out_proj.weight.detach().abs().max()) == pytest.approx(
        1 / math.sqrt(128), rel=0.02
    )


def test_step_size_options() -> None:
    mixer = Mamba(32, dt_init="constant", dt_scale=0.5, dt_min=1e-6, dt_max=1e-5, dt_init_floor=1e-4)
    assert torch.equal(mixer.dt_proj.weight, torch.full((64, 2), 0.5 / math.sqrt(2)))
    assert (nn.functional.softplus(mixer.dt_proj.bias.double()) - 1e-4).abs().max() < 1e-7


def test_initialisation_of_hyena_stacks() -> None:
    """HyenaDNA: N(0, 0.02), biases zero, what enters the stream N(0, 0.02 / sqrt(2 n_layer)), skips N(0, 1)."""
    torch.manual_seed(1)
    hyena = {"name": "hyena", "max_length": 64}
    config = BackboneConfig(
        d_model=256, layers=[{"mixer": hyena, "channel_mixer": "mlp"}], repeat=4, initializer="normal", norm="layernorm"
    )
    backbone = Backbone(config)
    for block in backbone.blocks():
        assert isinstance(block.mixer, Hyena)
        assert float(block.mixer.in_proj.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert float(block.channel_mixer.fc1.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        for weight in (block.mixer.out_proj.weight, block.channel_mixer.fc2.weight):
            assert float(weight.detach().std()) == pytest.approx(0.02 / math.sqrt(8), rel=0.02)
        for linear in (
            block.mixer.in_proj,
            block.mixer.out_proj,
            block.channel_mixer.fc1,
            block.mixer.filter.layers[1],
        ):
            assert linear.bias.abs().max() == 0
        assert float(block.mixer.filter.layers[1].weight.detach().std()) == pytest.approx(0.02, rel=0.1)
        assert torch.equal(block.mixer.filter.freq, torch.full((1, 64), 10.0))
        assert float(block.mixer.filter.skip.detach().std()) == pytest.approx(1.0, rel=0.2)


def test_the_residual_stream_stays_float32() -> None:
    """bfloat16 weights with a float32 stream lose less over many layers than a bfloat16 stream."""
    config = BackboneConfig(d_model=32, layers=["mamba", "gated_mlp"], repeat=6)
    exact = Backbone(config).eval()
    with torch.no_grad():
        for parameter in exact.parameters():  # the same rounded weights everywhere
            parameter.copy_(parameter.bfloat16())
    x = (20 * torch.randn(2, 15, 32)).bfloat16()
    wide = copy.deepcopy(exact).bfloat16()
    narrow = Backbone(replace(config, residual_in_fp32=False)).eval()
    narrow.load_state_dict(exact.state_dict())
    narrow = narrow.bfloat16()
    with torch.no_grad():
        expected = exact(x.float())
        streams = []
        for backbone in (wide, narrow):
            seen = []
            backbone.blocks()[3].register_forward_hook(lambda m, i, o, seen=seen: seen.append(o.dtype))
            y = backbone(x)
            streams.append((seen[0], y.dtype, float((y.float() - expected).square().mean())))
            state = backbone.init_state(2)
            y, state = backbone.step(x[:, 0], state)
            assert relative(y.float(), expected[:, 0]) < 0.1
            assert backbone.prefill(x)[0].dtype == streams[-1][1]
    assert streams[0][:2] == (torch.float32, torch.float32)
    assert streams[1][:2] == (torch.bfloat16, torch.bfloat16)
    assert streams[0][2] < 0.5 * streams[1][2]


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"layers": ["mambo"]}, r"layers: mixer 'mambo' is unknown; nearest: mamba"),
        ({"layers": ["gated_mpl"]}, r"nearest: gated_mlp"),
        ({"layers": [{"mixer": "hyenna"}]}, r"mixer 'hyenna' is unknown; nearest: hyena"),
        ({"layers": [{"mixer": {"d_state": 3}}]}, r"expected a name"),
        ({"layers": [{"channel_mixer": "mlpp"}]}, r"channel mixer 'mlpp' is unknown; nearest: mlp"),
        ({"layers": [{"mixer": "mamba", "mlp": "mlp"}]}, r"unknown entry \['mlp'\]"),
        ({"layers": [{"name": "mamba", "d_statte": 8}]}, r"mixer 'mamba': .*d_statte"),
        ({"layers": [{"name": "attention", "window": 0}]}, r"mixer 'attention': window is 0"),
        ({"layers": [3]}, r"layers: 3 is no layer"),
        ({"layers": [None]}, r"an entry is empty"),
        ({"layers": [{}]}, r"an entry is empty"),
        ({"layers": []}, r"need ≥ 1"),
        ({"repeat": 0}, r"need ≥ 1"),
        ({"drop_path": 1.0}, r"need 0 ≤ p < 1"),
        ({"norm": "rms"}, r"norm 'rms' is unknown; nearest: rmsnorm"),
        ({"initializer": "kaiming"}, r"initializer is 'kaiming'; expected 'mamba' or 'normal'"),
    ],
)
def test_mistakes(fields: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Backbone(BackboneConfig(**{"d_model": 16, **fields}))
    assert "\n" not in str(caught.value)


def test_a_stack_that_looks_both_ways_says_so() -> None:
    backbone = Backbone(BackboneConfig(d_model=8, layers=["bidirectional"]))
    x = torch.randn(1, 4, 8)
    for call in (lambda: backbone.init_state(1), lambda: backbone.prefill(x), lambda: backbone.step(x[:, 0], [None])):
        with pytest.raises(ValueError, match="needs a causal mixer"):
            call()


def test_dropping_one_sample_leaves_the_others() -> None:
    """Dropping one sample's branch leaves the other samples as they were."""
    backbone = Backbone(BackboneConfig(d_model=8, layers=["mamba"], repeat=2, drop_path=0.9)).train()
    x = torch.randn(64, 5, 8)
    with torch.no_grad():
        y = backbone(x)
        skipped = backbone.final_norm(x + backbone.blocks()[0].mixer(backbone.blocks()[0].norm(x)))
        same = ((y - skipped).abs().amax((1, 2)) < 1e-6).float().mean()
    assert 0.75 < float(same) < 1.0
