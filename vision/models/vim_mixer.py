"""The mixer of Vision Mamba: a Mamba that reads the sequence from both ends (Zhu et al. 2024, arXiv:2401.09417)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import UserError
from ...core.mixers.base import State, register_mixer
from ...core.mixers.bidirectional import mamba_direction
from ...core.mixers.fused_projections import project_beside, project_in_halves
from ...core.mixers.mamba import Mamba
from ...core.norms import float32_at_least
from ...core.ops import ScanDirection, selective_scan, selective_scan_bidirectional, short_conv

Directions = Literal["v2", "v1", "none"]


@register_mixer("vim")
class VimMixer(Mamba):
    """Two selective scans, one from the first token and one from the last, between shared projections.

    With ``scan(…)`` Mamba's convolution, step sizes and scan, gated by ``z`` (:class:`~longscan.core.mixers.Mamba`)::

        [u | z] = in_proj(x)
        v2:    y = scan(u, z; forward weights) + scan←(u, z; weights with suffix b)       halved with divide_out
        v1:    as v2, but both directions share everything except A, and the convolution is causal for both
        none:  y = scan(u, z), causal
        out = out_proj(y) · gamma

    The reverse scan indexes backwards; nothing is flipped. Parameter names are the published ones: ``conv1d_b``,
    ``x_proj_b``, ``dt_proj_b``, ``A_b_log`` and ``D_b`` belong to the reverse direction.

    Args:
        d_model: width of the input and output.
        directions: ``"v2"``, ``"v1"`` or ``"none"``, Vim's ``bimamba_type``.
        divide_out: halve the sum of both directions ("div2"), which keeps activations small; for ``"v2"`` alone.
        layer_scale: initial value of the factor ``gamma`` (d_model) on the output; ``None`` has no such factor.
        init: ``"fixed"`` draws the step sizes of the reverse direction by the same rule as those of the forward one;
            ``"vim"`` leaves their bias at zero as the original code does, so that the reverse direction starts with a
            step of 0.69 and forgets at once.
        options: those of :class:`~longscan.core.mixers.Mamba`.
    """

    def __init__(
        self,
        d_model: int,
        directions: Directions = "v2",
        divide_out: bool = True,
        layer_scale: float | None = None,
        init: Literal["fixed", "vim"] = "fixed",
        **options: Any,
    ) -> None:
        super().__init__(d_model, **options)
        if directions not in ("v2", "v1", "none"):
            raise UserError(f"mixer 'vim': directions is {directions!r}; expected 'v2', 'v1' or 'none'")
        if init not in ("fixed", "vim"):
            raise UserError(f"mixer 'vim': init is {init!r}; expected 'fixed' or 'vim'")
        self.causal = directions == "none"
        self.directions, self.divide_out, self.init = directions, divide_out, init
        self.gamma: nn.Parameter | None = None
        if layer_scale is not None:
            self.gamma = nn.Parameter(torch.full((d_model,), float(layer_scale)))
        if directions != "none":
            self.A_b_log = nn.Parameter(self.A_log.detach().clone())
        if directions == "v2":
            conv = self.conv1d
            self.conv1d_b = nn.Conv1d(
                self.d_inner, self.d_inner, self.d_conv, groups=self.d_inner, bias=conv.bias is not None
            )
            self.x_proj_b = nn.Linear(self.d_inner, self.dt_rank + 2 * self.d_state, bias=False)
            self.dt_proj_b = nn.Linear(self.dt_rank, self.d_inner)
            self.D_b = nn.Parameter(torch.ones(self.d_inner))
            self.reset_reverse_dt()

    def reset_reverse_dt(self) -> None:
        """Draw the step sizes of the reverse direction as ``init`` says."""
        if self.directions != "v2":
            return
        if self.init == "vim":
            self.dt_proj_b.reset_parameters()
            nn.init.zeros_(self.dt_proj_b.bias)
            return
        forward = self.dt_proj
        self.dt_proj = self.dt_proj_b  # the parent's rule, on the other direction
        try:
            self.reset_dt()
        finally:
            self.dt_proj = forward

    def forward(
        self, x: Tensor, *, state: State | None = None, cu_seqlens: Tensor | None = None, reverse: bool = False
    ) -> Tensor:
        """(batch, length, d_model) to the same; ``reverse`` equals flipping the input and the output.

        Raises:
            ValueError: for a state in a mixer that reads from both ends.
        """
        if state is not None and self.directions != "none":
            raise ValueError("state was given to a mixer that reads from both ends; pass None")
        if self.directions == "v2":
            out = self._project_out(self._separate_directions(x, cu_seqlens, reverse))
        elif self.directions == "v1":
            out = self.out_proj(self._shared_directions(self.in_proj(x), cu_seqlens, reverse))
        else:
            out = self.out_proj(self.mix(self.in_proj(x), state=state, cu_seqlens=cu_seqlens, reverse=reverse)[0])
        return out if self.gamma is None else out * self.gamma

    def _project_out(self, y: Tensor) -> Tensor:
        """``out_proj`` of the sum of both directions, or of half of it."""
        if not self.divide_out:
            return self.out_proj(y)
        if _is_plain(self.out_proj):
            # Halving the weight changes no bit of the product, and leaves out a pass over all tokens.
            return F.linear(y, self.out_proj.weight * 0.5, self.out_proj.bias)
        return self.out_proj(y / 2)

    def prefill(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """See :meth:`SequenceMixer.prefill`; for ``directions="none"`` alone."""
        self._need_causal("prefill")
        out, after = super().prefill(x, state)
        return (out if self.gamma is None else out * self.gamma), after

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """See :meth:`SequenceMixer.step`; for ``directions="none"`` alone."""
        self._need_causal("step")
        out, after = super().step(x_t, state)
        return (out if self.gamma is None else out * self.gamma), after

    def _need_causal(self, method: str) -> None:
        if not self.causal:
            raise self._not_causal(method)

    def _separate_directions(self, x: Tensor, cu_seqlens: Tensor | None, reverse: bool) -> Tensor:
        layers = (
            (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D),
            (self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b),
        )
        u, z = project_in_halves(x, self.in_proj)
        first = _direction(u, *layers[int(reverse)], cu_seqlens=cu_seqlens)
        last = _direction(u, *layers[1 - int(reverse)], cu_seqlens=cu_seqlens, reverse=True)
        return selective_scan_bidirectional(first, last, z, True, cu_seqlens=cu_seqlens)

    def _shared_directions(self, xz: Tensor, cu_seqlens: Tensor | None, reverse: bool) -> Tensor:
        forward = mamba_direction(
            xz, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D, cu_seqlens=cu_seqlens, reverse=reverse
        )
        other = forward._replace(A=-torch.exp(float32_at_least(self.A_b_log)))
        first, last = (other, forward) if reverse else (forward, other)
        return selective_scan_bidirectional(first, last, xz.chunk(2, dim=-1)[1], True, cu_seqlens=cu_seqlens)


def _is_plain(layer: nn.Module) -> bool:
    """Whether calling a layer does what its weights say and nothing else (no adapter, no hook)."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return type(layer) is nn.Linear and "forward" not in vars(layer) and not any(hooks)


def _direction(
    u: Tensor,
    conv1d: nn.Conv1d,
    x_proj: nn.Linear,
    dt_proj: nn.Linear,
    A_log: Tensor,
    D: Tensor,
    *,
    cu_seqlens: Tensor | None = None,
    reverse: bool = False,
) -> ScanDirection:
    """As `mamba_direction`, of the half of in_proj's output that is scanned; gradients are added up in place."""
    convolved = short_conv(u, conv1d.weight.squeeze(1), conv1d.bias, "silu", cu_seqlens=cu_seqlens, reverse=reverse)
    assert isinstance(convolved, Tensor)  # no state was asked for
    u, projected = project_beside(convolved, x_proj)
    d_state = A_log.shape[1]
    dt, B, C = projected.split([dt_proj.in_features, d_state, d_state], dim=-1)
    return ScanDirection(
        u,
        F.linear(dt, dt_proj.weight),  # without the bias, which the scan adds in float32
        -torch.exp(float32_at_least(A_log)),
        B,
        C,
        float32_at_least(D),
        float32_at_least(dt_proj.bias),
    )


def scan_direction(
    xz: Tensor, conv1d: nn.Conv1d, x_proj: nn.Linear, dt_proj: nn.Linear, A_log: Tensor, D: Tensor
) -> Tensor:
    """What Mamba does between its projections, (batch, length, 2 · E) to (batch, length, E), with given layers."""
    one = mamba_direction(xz, conv1d, x_proj, dt_proj, A_log, D)
    y = selective_scan(
        one.u, one.delta, one.A, one.B, one.C, one.D, xz.chunk(2, dim=-1)[1], one.delta_bias, delta_softplus=True
    )
    assert isinstance(y, Tensor)  # no state was asked for
    return y
