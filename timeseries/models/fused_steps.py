"""Single steps of a stack on a CPU, with all that does not change from step to step computed beforehand.

A step of a small model takes less time than the calls it is made of. Here the weight of each norm is multiplied into
the projection behind it, the two maps to Mamba's step sizes into one, and no shape is checked again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.backbone import Backbone, Block
from ...core.mixers.mamba import Mamba, MambaState
from ...core.norms import RMSNorm

#: (batch, d_model) and the states of all blocks, to the output and the states; as ``Backbone.step``.
Step = Callable[[Tensor, list[Any]], tuple[Tensor, list[Any]]]


@torch.no_grad()
def fused_step(backbone: Backbone) -> Step:
    """Return what does the same as ``backbone.step`` without gradients, to rounding, with the weights as they are now.

    Blocks of Mamba behind an RMS norm are fused; others, and all on other devices or in other types, step as usual.
    """
    weight = next(backbone.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        return backbone.step
    steps = [_FusedMamba(block) if _fusable(block) else block.step for block in backbone.blocks()]
    if not any(isinstance(step, _FusedMamba) for step in steps):
        return backbone.step
    final_norm = backbone.final_norm

    def run(x: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        after = []
        for step, state in zip(steps, states, strict=True):
            x, state = step(x, state)
            after.append(state)
        return final_norm(x), after

    return run


def _fusable(block: Block) -> bool:
    # Types are compared exactly: a subclass may compute something else.
    return type(block.mixer) is Mamba and type(block.norm) is RMSNorm


class _FusedMamba:
    """One block: norm, Mamba, and the channel mixer if there is one; see :class:`longscan.core.mixers.mamba.Mamba`."""

    def __init__(self, block: Block) -> None:
        mixer: Any = block.mixer
        self.width, self.eps = mixer.d_model, block.norm.eps
        self.inner, self.parts = mixer.d_inner, (mixer.d_inner, mixer.d_state, mixer.d_state)
        self.into = (mixer.in_proj.weight * block.norm.weight).contiguous()
        self.into_bias = mixer.in_proj.bias
        self.kernel = mixer.conv1d.weight.squeeze(1).T.contiguous()
        self.kernel_bias = torch.zeros(self.inner) if mixer.conv1d.bias is None else mixer.conv1d.bias.detach()
        low, rest = mixer.x_proj.weight.split([mixer.dt_rank, 2 * mixer.d_state])
        self.select = torch.cat([mixer.dt_proj.weight @ low, rest])
        self.select_bias = torch.cat([mixer.dt_proj.bias, torch.zeros(2 * mixer.d_state)])
        self.A, self.D = -mixer.A_log.exp(), mixer.D.detach()
        self.out, self.out_bias = mixer.out_proj.weight.T.contiguous(), mixer.out_proj.bias
        self.channel_norm = None if block.channel_mixer is None else block.channel_norm
        self.channel_mixer = block.channel_mixer

    def __call__(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """(batch, d_model) of the residual stream to the same; the state is updated in place."""
        # torch's own rms_norm is several times slower on a single row.
        size = torch.linalg.vecdot(x, x).unsqueeze(1).div_(self.width).add_(self.eps).rsqrt_()
        u, z = F.linear(x * size, self.into, self.into_bias).chunk(2, 1)
        window = torch.cat([state.conv, u.unsqueeze(1)], 1)
        state.conv.copy_(window[:, 1:])
        u = F.silu(window.mul_(self.kernel).sum(1).add_(self.kernel_bias))
        dt, B, C = F.linear(u, self.select, self.select_bias).split_with_sizes(self.parts, 1)
        dt = F.softplus(dt)
        state.ssm.mul_((dt.unsqueeze(2) * self.A).exp_()).addcmul_((dt * u).unsqueeze(2), B.unsqueeze(1))
        y = torch.bmm(state.ssm, C.unsqueeze(2)).squeeze(2).addcmul_(u, self.D).mul_(F.silu(z))
        x = torch.addmm(x, y, self.out)
        if self.out_bias is not None:
            x = x + self.out_bias
        if self.channel_mixer is not None:
            assert self.channel_norm is not None
            x = x + self.channel_mixer(self.channel_norm(x))
        return x, state
