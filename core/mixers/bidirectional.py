"""Bidirectional mixing: one mixer from the left, one from the right, without flipping anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..norms import float32_at_least
from ..ops import ScanDirection, selective_scan_bidirectional, short_conv
from .base import SequenceMixer, State, create_mixer, register_mixer
from .mamba import Mamba


@register_mixer("bidirectional")
class Bidirectional(SequenceMixer):
    """Combine a left-to-right and a right-to-left pass of a causal mixer.

    ``out = f(x) ∘ g←(x)`` where ``g←`` scans from the last token, ``∘`` is add, average or multiply. With
    ``tie="projections"`` and a Mamba this is Caduceus' BiMamba (Schiff et al. 2024, arXiv:2403.03234, section 3.1):
    both directions share in_proj and out_proj, so each projection runs once.

    Args:
        d_model: width.
        mixer: the causal mixer, by name or as ``{"name": …, options}``.
        tie: ``"none"`` (two mixers), ``"projections"`` (in_proj and out_proj shared, the rest separate) or ``"all"``
            (one mixer run both ways).
        combine: ``"add"``, ``"average"`` or ``"multiply"``.

    Raises:
        ValueError: for a mixer that cannot run in reverse, or whose projections cannot be tied.
    """

    causal = False
    supports_reverse = True

    def __init__(
        self,
        d_model: int,
        mixer: str | Mapping[str, Any] = "mamba",
        tie: Literal["none", "projections", "all"] = "none",
        combine: Literal["add", "average", "multiply"] = "add",
    ) -> None:
        super().__init__()
        if tie not in ("none", "projections", "all"):
            raise ValueError(f"tie is {tie!r}; expected 'none', 'projections' or 'all'")
        if combine not in ("add", "average", "multiply"):
            raise ValueError(f"combine is {combine!r}; expected 'add', 'average' or 'multiply'")
        options = {"name": mixer} if isinstance(mixer, str) else dict(mixer)
        self.tie, self.combine = tie, combine
        self.forward_mixer = create_mixer(d_model=d_model, **options)
        if not (self.forward_mixer.causal and self.forward_mixer.supports_reverse):
            raise ValueError(f"mixer {options['name']!r} cannot run in reverse, so it cannot be made bidirectional")
        if tie == "projections" and not hasattr(self.forward_mixer, "mix"):
            raise ValueError(f"mixer {options['name']!r} has no projections to tie; use tie='none' or tie='all'")
        if tie != "all":
            self.reverse_mixer = create_mixer(d_model=d_model, **options)
        if tie == "projections":
            self.reverse_mixer.in_proj = self.forward_mixer.in_proj
            self.reverse_mixer.out_proj = self.forward_mixer.out_proj

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """See :meth:`SequenceMixer.forward`; ``reverse`` exchanges the two directions."""
        if state is not None:
            raise ValueError("state was given to a bidirectional mixer, which sees the whole sequence; pass None")
        left: Any = self.forward_mixer
        right: Any = left if self.tie == "all" else self.reverse_mixer
        if self._one_projection():
            # out_proj is linear, so one projection of the sum serves both directions.
            xz = left.in_proj(x)
            if type(left) is Mamba:
                y = _scan_both(xz, left, right, cu_seqlens, reverse)
            else:
                y, _ = left.mix(xz, cu_seqlens=cu_seqlens, reverse=reverse)
                y_right, _ = right.mix(xz, cu_seqlens=cu_seqlens, reverse=not reverse)
                y = y + y_right
            return left.out_proj(y / 2 if self.combine == "average" else y)
        a = left(x, cu_seqlens=cu_seqlens, reverse=reverse)
        b = right(x, cu_seqlens=cu_seqlens, reverse=not reverse)
        if self.combine == "multiply":
            return a * b
        return (a + b) / 2 if self.combine == "average" else a + b

    def _one_projection(self) -> bool:
        """Whether both directions share in_proj, and out_proj can be applied to their sum."""
        mixer: Any = self.forward_mixer
        shared = self.tie == "projections" or (self.tie == "all" and type(mixer) is Mamba)
        return shared and self.combine != "multiply" and mixer.out_proj.bias is None


def _scan_both(xz: Tensor, left: Mamba, right: Mamba, cu_seqlens: Tensor | None, reverse: bool) -> Tensor:
    if reverse:
        left, right = right, left
    first, last = (
        mamba_direction(xz, one.conv1d, one.x_proj, one.dt_proj, one.A_log, one.D, cu_seqlens=cu_seqlens, reverse=back)
        for one, back in ((left, False), (right, True))
    )
    return selective_scan_bidirectional(first, last, xz.chunk(2, dim=-1)[1], True, cu_seqlens=cu_seqlens)


def mamba_direction(
    xz: Tensor,
    conv1d: nn.Conv1d,
    x_proj: nn.Linear,
    dt_proj: nn.Linear,
    A_log: Tensor,
    D: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
) -> ScanDirection:
    """What one direction scans, from Mamba's layers and the output (batch, length, 2 · E) of in_proj.

    The gate, the other half of ``xz``, is common to all directions.
    """
    u = short_conv(
        xz.chunk(2, dim=-1)[0], conv1d.weight.squeeze(1), conv1d.bias, "silu", cu_seqlens=cu_seqlens, reverse=reverse
    )
    assert isinstance(u, Tensor)  # no state was asked for
    d_state = A_log.shape[1]
    dt, B, C = x_proj(u).split([dt_proj.in_features, d_state, d_state], dim=-1)
    return ScanDirection(
        u,
        F.linear(dt, dt_proj.weight),  # without the bias, which the scan adds in float32
        -torch.exp(float32_at_least(A_log)),
        B,
        C,
        float32_at_least(D),
        float32_at_least(dt_proj.bias),
    )
