"""The mixer of Vim: directions, packed images, steps, mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from longscan.core.errors import UserError
from longscan.core.mixers import create_mixer


@pytest.mark.parametrize("directions", ["v2", "v1", "none"])
def test_reverse_equals_flipping(directions: str) -> None:
    mixer = create_mixer("vim", 8, directions=directions, d_state=4)
    x = torch.randn(2, 11, 8)
    torch.testing.assert_close(mixer(x, reverse=True), mixer(x.flip(1)).flip(1), rtol=1e-4, atol=1e-6)


def test_directions_see_both_sides_or_one() -> None:
    x = torch.randn(1, 9, 8)
    changed = x.clone()
    changed[:, 6] += 1
    for directions, both in (("v2", True), ("v1", True), ("none", False)):
        mixer = create_mixer("vim", 8, directions=directions, d_state=4, init="fixed")
        difference = (mixer(x) - mixer(changed)).abs().amax(-1)[0]
        assert (difference[6:] > 0).all()
        assert bool((difference[:6] > 0).all()) is both
        assert mixer.causal is not both


def test_packed_images_do_not_mix() -> None:
    mixer = create_mixer("vim", 8, d_state=4)
    a, b = torch.randn(1, 5, 8), torch.randn(1, 8, 8)
    packed = mixer(torch.cat([a, b], 1), cu_seqlens=torch.tensor([0, 5, 13]))
    torch.testing.assert_close(packed, torch.cat([mixer(a), mixer(b)], 1), rtol=1e-4, atol=1e-6)


def test_a_causal_mixer_steps() -> None:
    mixer = create_mixer("vim", 8, directions="none", d_state=4, layer_scale=0.5)
    x = torch.randn(2, 6, 8)
    state = mixer.init_state(2)
    steps = []
    for t in range(6):
        y, state = mixer.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), mixer(x), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mixer.prefill(x)[0], mixer(x))


def test_a_mixer_of_both_directions_has_no_state() -> None:
    mixer = create_mixer("vim", 8, d_state=4)
    for call in (lambda: mixer.prefill(torch.randn(1, 2, 8)), lambda: mixer.step(torch.randn(1, 8), None)):
        with pytest.raises(ValueError, match="causal"):
            call()
    with pytest.raises(ValueError, match="both ends"):
        mixer(torch.randn(1, 2, 8), state=1)


@pytest.mark.parametrize("options", [{"directions": "v3"}, {"init": "torch"}, {"stride": 3}])
def test_mixer_mistakes(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=str(next(iter(options)))):
        create_mixer("vim", 8, **options)


def test_a_mixer_by_itself_starts_the_same_way() -> None:
    steps = torch.nn.functional.softplus(create_mixer("vim", 32).dt_proj_b.bias)  # type: ignore[union-attr,operator]
    assert 0.9e-3 < steps.min() < 0.02 < steps.max() < 0.11
    original = create_mixer("vim", 32, init="vim")
    assert not original.dt_proj_b.bias.any()  # type: ignore[union-attr,operator]
    assert original.dt_proj.bias.all()  # type: ignore[union-attr,operator]
