"""Attention against softmax written out, in every combination of window, direction, grouping and rotation."""

from __future__ import annotations

import math
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from longscan.core.mixers import Attention
from longscan.core.mixers.attention import rotate


def rotated(x: Tensor, position: int, theta: float, n: int) -> Tensor:
    """Su et al. 2021, one vector: features i and i + n/2 turn by position · theta^(-2i/n)."""
    result = x.clone()
    for i in range(n // 2):
        angle = position * theta ** (-2 * i / n)
        a, b = x[i], x[i + n // 2]
        result[i] = a * math.cos(angle) - b * math.sin(angle)
        result[i + n // 2] = b * math.cos(angle) + a * math.sin(angle)
    return result


def by_hand(mixer: Attention, x: Tensor, reverse: bool = False) -> Tensor:
    """One sequence (length, d_model), one query and head at a time."""
    length, heads, group = len(x), mixer.n_heads, mixer.n_heads // mixer.n_kv_heads
    q = mixer.q_proj(x).view(length, heads, -1)
    k, v = (p(x).view(length, mixer.n_kv_heads, -1) for p in (mixer.k_proj, mixer.v_proj))
    out = torch.zeros_like(q)
    for t, h in product(range(length), range(heads)):
        if not mixer.causal:
            seen = [s for s in range(length) if mixer.window is None or abs(t - s) < mixer.window]
        else:
            ago = {s: s - t if reverse else t - s for s in range(length)}
            seen = [s for s in range(length) if ago[s] >= 0 and (mixer.window is None or ago[s] < mixer.window)]
        sign = -1 if reverse else 1
        args = (mixer.rope_theta, mixer.rotary_dim)
        scores = torch.stack(
            [rotated(q[t, h], sign * t, *args) @ rotated(k[s, h // group], sign * s, *args) for s in seen]
        )
        out[t, h] = (scores / math.sqrt(mixer.head_dim)).softmax(0) @ v[seen, h // group]
    return mixer.out_proj(out.flatten(1))


@pytest.mark.parametrize("window", [None, 1, 2, 3, 4, 10, 11, 12, 30])
@pytest.mark.parametrize("causal, reverse", [(True, False), (True, True), (False, False)])
def test_against_softmax(window: int | None, causal: bool, reverse: bool) -> None:
    worst = 0.0
    for kv_heads, fraction in ((4, 1.0), (2, 0.5), (1, 0.0)):
        mixer = Attention(
            16, 4, kv_heads, head_dim=6, window=window, causal=causal, rotary_fraction=fraction, bias=True
        ).double()
        x = torch.randn(2, 11, 16, dtype=torch.float64)
        with torch.no_grad():
            got = mixer(x, reverse=reverse)
            expected = torch.stack([by_hand(mixer, row, reverse) for row in x])
        worst = max(worst, float((got - expected).abs().max()))
    print(f"window {window}, causal {causal}, reverse {reverse}: {worst:.1e}")
    assert worst < 1e-12


def test_rotation_keeps_distances() -> None:
    """Scores depend on the difference of positions alone, and position 0 is untouched."""
    q, k = torch.randn(1, 1, 1, 8, dtype=torch.float64), torch.randn(1, 1, 1, 8, dtype=torch.float64)

    def score(i: int, j: int) -> float:
        a, b = (rotate(x, torch.tensor([p]), 10000.0, 6) for x, p in ((q, i), (k, j)))
        return float((a * b).sum())

    assert score(9, 4) == pytest.approx(score(1005, 1000), rel=1e-9)
    assert abs(score(9, 4) - score(4, 9)) > 1e-3
    assert torch.equal(rotate(q, torch.tensor([0]), 10000.0, 6), q)
    turned = rotate(q, torch.tensor([5]), 10000.0, 6)
    assert torch.equal(turned[..., 6:], q[..., 6:])  # features beyond rotary_dim pass
    assert turned.norm() == pytest.approx(float(q.norm()))


@pytest.mark.parametrize("window", [None, 1, 4, 7])
def test_padding_of_the_last_block_is_not_seen(window: int | None) -> None:
    """Every length around a multiple of the window, packed and not."""
    mixer = Attention(8, 2, window=window).eval()
    x = torch.randn(1, 30, 8)
    with torch.no_grad():
        whole = mixer(x)
        for length in range(1, 30):
            assert (mixer(x[:, :length]) - whole[:, :length]).abs().max() < 1e-5
        for bounds in ([0, 30], [0, 1, 30], [0, 4, 8, 30], [0, 3, 10, 11, 18, 30]):
            packed = mixer(x, cu_seqlens=torch.tensor(bounds))
            for a, b in pairwise(bounds):
                assert (packed[:, a:b] - mixer(x[:, a:b])).abs().max() < 1e-5


def test_the_ring_buffer_stays_small() -> None:
    """With a window memory is constant in the tokens seen; without, the buffer doubles."""
    ring, full = Attention(8, 2, window=4).eval(), Attention(8, 2).eval()
    x = torch.randn(2, 200, 8)
    with torch.no_grad():
        state, grown = ring.init_state(2), full.init_state(2)
        whole, whole_full = ring(x), full(x)
        for t in range(200):
            y, state = ring.step(x[:, t], state)
            z, grown = full.step(x[:, t], grown)
            assert (y - whole[:, t]).abs().max() < 1e-5
            assert (z - whole_full[:, t]).abs().max() < 1e-5
        assert state.keys.shape == (2, 4, 2, 4)
        assert state.position == grown.position == 200
        assert grown.keys.shape[1] == 256
        _, jumped = ring.prefill(x)
        assert jumped.keys.shape == (2, 4, 2, 4)
        assert (jumped.keys - state.keys).abs().max() < 1e-6  # the same slots, however the tokens came
        assert (jumped.values - state.values).abs().max() < 1e-6


def test_default_heads() -> None:
    assert [Attention(d).n_heads for d in (8, 64, 100, 128, 192, 200, 768)] == [1, 1, 1, 2, 3, 2, 12]
    assert Attention(128).head_dim == 64
    assert [Attention(16, 2, rotary_fraction=f).rotary_dim for f in (0.0, 0.3, 0.5, 1.0)] == [0, 2, 4, 8]
    assert Attention(16, 2, rotary=False).rotary_dim == 0
