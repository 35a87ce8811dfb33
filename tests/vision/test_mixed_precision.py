"""Training a Vim in bf16 and fp16: what must be float32 is, and what happens where it is not.

The original code lost trainings under automatic mixed precision. That is reproduced with a scan whose step sizes and
states have 16 bits, in a model of long memories: its states are beyond what fp16 holds, its outputs are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import longscan
from longscan.vision.models import vim_mixer

SIZE, CLASSES, BATCH = 32, 4, 8


def small_vim() -> nn.Module:
    """65 tokens of width 32."""
    torch.manual_seed(0)
    return longscan.create_model(
        "vim_tiny_patch16_224", embed_dim=32, depth=2, img_size=SIZE, patch_size=4, num_classes=CLASSES
    )


def with_long_memories(model: nn.Module) -> nn.Module:
    """Large steps and inputs, slow decay, and a small C, so that states above 10⁵ become outputs of about 10³."""
    with torch.no_grad():
        for mixer in model.modules():
            if isinstance(mixer, vim_mixer.VimMixer):
                rank, state = mixer.dt_rank, mixer.d_state
                for conv, x_proj, dt_proj, A_log in (
                    (mixer.conv1d, mixer.x_proj, mixer.dt_proj, mixer.A_log),
                    (mixer.conv1d_b, mixer.x_proj_b, mixer.dt_proj_b, mixer.A_b_log),
                ):
                    conv.weight *= 6
                    x_proj.weight[rank : rank + state] *= 2**8
                    x_proj.weight[rank + state :] /= 2**7
                    dt_proj.bias.fill_(30.0)
                    A_log -= 10
    return model


def half_precision_scan(dtype: torch.dtype) -> Callable[..., Tensor]:
    """The unsafe path: step sizes, A, states and sums in 16 bits."""

    def scan(direction: Any, z: Tensor, reverse: bool) -> Tensor:
        u, delta, A, B, C, D, bias = (value.to(dtype) for value in direction)
        if reverse:
            u, delta, B, C = (value.flip(1) for value in (u, delta, B, C))
        step = F.softplus(delta + bias)
        h, outputs = u.new_zeros(len(u), *A.shape), []
        for t in range(u.shape[1]):
            h = (step[:, t, :, None] * A).exp() * h + (step[:, t] * u[:, t])[..., None] * B[:, t, None]
            outputs.append((h * C[:, t, None]).sum(-1) + D * u[:, t])
        y = torch.stack(outputs, 1)
        return (y.flip(1) if reverse else y) * F.silu(z.to(dtype))

    def both(forward: Any, reverse: Any, z: Tensor, delta_softplus: bool = True, **_: Any) -> Tensor:
        return scan(forward, z, False) + scan(reverse, z, True)

    return both


def train(model: nn.Module, dtype: torch.dtype, steps: int, lr: float) -> list[float]:
    """Return the losses of a training under autocast, with a scaled loss in fp16 as usual."""
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=lr)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    generator = torch.Generator().manual_seed(1)
    means = torch.randn(CLASSES, 3, SIZE, SIZE, generator=generator)
    losses = []
    for _ in range(steps):
        labels = torch.randint(CLASSES, (BATCH,), generator=generator)
        images = means[labels] + 0.5 * torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = F.cross_entropy(model(images).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_stays_finite(dtype: torch.dtype) -> None:
    """At thirty times the published learning rate."""
    model = small_vim()
    losses = train(model, dtype, 25, lr=3e-2)
    assert all(math.isfinite(loss) for loss in losses), losses
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_long_memories_train_as_in_float32(dtype: torch.dtype) -> None:
    wide = train(with_long_memories(small_vim()), torch.float32, 6, lr=1e-6)
    model = with_long_memories(small_vim())
    losses = train(model, dtype, 6, lr=1e-6)
    assert losses == pytest.approx(wide, rel=0.05)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_unsafe_path_is_lost_in_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same training with states of 16 bits: above 65,504 they are infinite, and then nothing is a number."""
    monkeypatch.setattr(vim_mixer, "selective_scan_bidirectional", half_precision_scan(torch.float16))
    losses = train(with_long_memories(small_vim()), torch.float16, 3, lr=1e-6)
    assert not any(math.isfinite(loss) for loss in losses)
