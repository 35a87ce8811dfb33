"""mLSTM and sLSTM against references in float64, transformers' xLSTM and their equations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from longscan.core.backbone import Backbone, BackboneConfig
from longscan.core.mixers import create_mixer
from longscan.core.mixers.mlstm_cell import MLSTMState, empty_state, mlstm, mlstm_step


@pytest.fixture(scope="module")
def cell(golden: Path) -> dict[str, Tensor]:
    stored = np.load(golden / "core" / "ref64" / "mlstm_a.npz")
    return {name: torch.from_numpy(stored[name]) for name in stored}


def relative(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got - expected).detach().abs().max() / expected.abs().max())


@pytest.mark.parametrize("chunk", [1, 5, 16, 64])
def test_cell_and_its_exact_gradient(cell: dict[str, Tensor], chunk: int) -> None:
    inputs = [cell[name].clone().requires_grad_() for name in ("q", "k", "v", "i", "f")]
    state = MLSTMState(cell["C0"], cell["n0"], cell["m0"])
    h, after = mlstm(*inputs, state, chunk)
    assert relative(h, cell["h"]) < 1e-12
    truth, found = cell["mT"].exp(), after.m.exp()
    assert relative(after.C * found[..., None, None], cell["CT"] * truth[..., None, None]) < 1e-12
    assert relative(after.n * found[..., None], cell["nT"] * truth[..., None]) < 1e-12
    h.backward(cell["dh"])
    for name, tensor in zip("qkvif", inputs, strict=True):
        assert relative(tensor.grad, cell[f"d_{name}"]) < 1e-9, name


def test_cell_step_by_step(cell: dict[str, Tensor]) -> None:
    state = MLSTMState(cell["C0"], cell["n0"], cell["m0"])
    for t in range(cell["q"].shape[2]):
        h, state = mlstm_step(*(cell[name][:, :, t] for name in ("q", "k", "v", "i", "f")), state)
        assert relative(h, cell["h"][:, :, t]) < 1e-12


def test_cell_with_large_gates_and_many_tokens() -> None:
    """Gates whose exponentials overflow float32: the ratio is what counts."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 1, 40, 4, dtype=torch.float64) for _ in range(3))
    i, f = 300 * torch.randn(1, 1, 40, dtype=torch.float64), 50 * torch.randn(1, 1, 40, dtype=torch.float64)
    wide, _ = mlstm(q, k, v, i, f, chunk=7)
    short, _ = mlstm(*(part.float() for part in (q, k, v, i, f)), chunk=16)
    assert short.isfinite().all()
    # Where n · q̂ nearly vanishes the quotient magnifies rounding; the median does not.
    assert float(((short - wide).abs() / wide.abs().clamp(min=1e-3)).median()) < 1e-4
    _, far = mlstm(*(torch.randn(1, 1, 1 << 16, 2) for _ in range(3)), *(torch.randn(1, 1, 1 << 16) for _ in range(2)))
    assert all(part.isfinite().all() for part in far)


def test_the_normaliser_has_a_gradient() -> None:
    """Left out, the gradients would differ by tens of percent (see the module's description)."""
    torch.manual_seed(1)
    q, k, v = (2 * torch.randn(1, 1, 6, 3, dtype=torch.float64) for _ in range(3))
    i, f = torch.randn(1, 1, 6, dtype=torch.float64), torch.randn(1, 1, 6, dtype=torch.float64) + 2
    inputs = [part.requires_grad_() for part in (q, k, v, i, f)]
    assert torch.autograd.gradcheck(lambda *parts: mlstm(*parts, chunk=4)[0], inputs)
    start = empty_state(1, 1, 3, 3, torch.float64, torch.device("cpu"))
    assert torch.autograd.gradcheck(lambda *parts: mlstm_step(*(part[:, :, 0] for part in parts), start)[0], inputs)


_NAMES = {
    "norm_mlstm": "norm",
    "mlstm_layer": "mixer",
    "norm_ffn": "channel_norm",
    "ffn.proj_up_gate": "channel_mixer.gate_proj",
    "ffn.proj_up": "channel_mixer.up_proj",
    "ffn.proj_down": "channel_mixer.down_proj",
}


def test_against_transformers(golden: Path) -> None:
    """The xLSTM-7B's layers in our backbone: hidden states, logits, cached decoding and all gradients."""
    folder = golden / "core" / "hf_xlstm_a"
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    names = {}
    for name in weights:
        ours = name.removeprefix("backbone.").replace("blocks.", "layers.").replace("out_norm", "final_norm")
        if ".out_proj" in name:
            ours = ours.replace("mlstm_layer", "mixer")
        for theirs, replacement in _NAMES.items():
            ours = ours.replace(f"{theirs}.", f"{replacement}.")
        names[name] = ours
    mixer = {"name": "mlstm", "n_heads": config["num_heads"], "qk_factor": config["qk_dim_factor"], "chunk": 8}
    block = {"mixer": mixer, "channel_mixer": {"name": "gated_mlp", "d_inner": 88}}
    backbone = Backbone(
        BackboneConfig(d_model=config["hidden_size"], layers=[block], repeat=2, norm_epsilon=config["norm_eps"])
    )
    own = {names[name]: tensor for name, tensor in weights.items() if name.startswith("backbone.")}
    embeddings, head = own.pop("embeddings.weight"), weights["lm_head.weight"]
    backbone.load_state_dict(own)
    stored = dict(np.load(folder / "inputs.npz")) | dict(np.load(folder / "outputs.npz"))
    tokens = torch.from_numpy(stored["input_ids"])
    cap = config["output_logit_soft_cap"]

    def logits_of(features: Tensor) -> Tensor:
        return cap * torch.tanh(features @ head.T / cap)

    x = F.embedding(tokens, embeddings)
    features = backbone(x)
    logits = logits_of(features)
    assert relative(features, torch.from_numpy(stored["hidden_states"][-1])) < 1e-5
    assert relative(logits, torch.from_numpy(stored["logits_full"])) < 1e-5
    with torch.no_grad():
        state, steps = backbone.init_state(len(x)), []
        for t in range(x.shape[1]):
            feature, state = backbone.step(x[:, t], state)
            steps.append(logits_of(feature))
        assert relative(torch.stack(steps, 1), torch.from_numpy(stored["logits_token_by_token"])) < 1e-5
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    assert abs(float(loss.detach()) - float(stored["loss"])) < 1e-5
    loss.backward()
    grads, found = np.load(folder / "grads.npz"), dict(backbone.named_parameters())
    for name, ours in names.items():
        if ours in found:
            assert relative(found[ours].grad, torch.from_numpy(grads[name])) < 1e-3, name


def test_slstm_against_its_equations() -> None:
    """Beck et al. 2024, equations 8 to 18, without stabiliser, one token and one head at a time in float64."""
    torch.manual_seed(2)
    mixer = create_mixer("slstm", 6, n_heads=2, norm=False, projection=False).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        x = torch.randn(5, 6, dtype=torch.float64)
        h, c, n = (torch.zeros(6, dtype=torch.float64) for _ in range(3))
        expected = []
        for row in x:
            gates = [mixer.weight[gate] @ row + mixer.bias[gate] for gate in range(4)]
            for head in range(2):
                part = slice(3 * head, 3 * head + 3)
                seen = h[part] @ mixer.recurrent[head]
                for gate in range(4):
                    gates[gate][part] += seen[3 * gate : 3 * gate + 3]
            i, f, z, o = gates
            c = torch.sigmoid(f) * c + i.exp() * z.tanh()
            n = torch.sigmoid(f) * n + i.exp()
            h = torch.sigmoid(o) * c / n
            expected.append(h)
        assert relative(mixer(x[None])[0], torch.stack(expected)) < 1e-12


def test_slstm_gradient() -> None:
    torch.manual_seed(3)
    mixer = create_mixer("slstm", 4, n_heads=2, norm=False, projection=False).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda value, recurrent: torch.func.functional_call(mixer, {"recurrent": recurrent}, (value,)),
        (x, mixer.recurrent.detach().clone().requires_grad_()),
    )


def test_memory_of_mlstm_is_linear() -> None:
    """What autograd keeps grows with the length, not with its square."""

    def kept(length: int) -> int:
        total = 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        parts = [torch.randn(1, 2, length, 8, requires_grad=True) for _ in range(3)]
        gates = [torch.randn(1, 2, length, requires_grad=True) for _ in range(2)]
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            mlstm(*parts, *gates)
        return total

    assert kept(2048) < 2.1 * kept(1024)
