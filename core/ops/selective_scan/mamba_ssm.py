"""The selective scan of the package mamba-ssm, where that is installed: a CUDA kernel with fewer options."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import UserError
from .arguments import Arguments


class _FinalState(torch.autograd.Function):
    """The identity, with an error for a gradient: the kernel ignores that of the final state, silently."""

    @staticmethod
    def forward(ctx: object, state: Tensor) -> Tensor:
        return state.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        raise UserError(
            "selective_scan: return_final_state with backend='mamba_ssm' has no gradient; use another backend"
        )


def run(arguments: Arguments) -> tuple[Tensor, Tensor]:
    """y and the final states. Raises ``UserError`` for options that the kernel does not have."""
    u, delta, A, B, C, D, z, delta_bias, initial_state, cu_seqlens, delta_softplus, reverse = arguments
    for name, option in (("initial_state", initial_state), ("cu_seqlens", cu_seqlens)):
        if option is not None:
            raise UserError(f"selective_scan: {name} is not possible with backend='mamba_ssm'; use another backend")
    if u.dtype == torch.float64:
        raise UserError("selective_scan: u of dtype float64 is not possible with backend='mamba_ssm'; convert it")
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise UserError(
            f"selective_scan: backend='mamba_ssm' needs the package mamba-ssm (pip install longscan[mamba]): {error}"
        ) from error

    dtype = torch.complex64 if A.is_complex() else torch.float32

    def channels_first(tensor: Tensor) -> Tensor:
        return (tensor.flip(1) if reverse else tensor).to(u.dtype).transpose(1, 2).contiguous()

    def matrix(tensor: Tensor) -> Tensor:
        if tensor.ndim == 2:
            return tensor.to(dtype)
        tensor = tensor.flip(1) if reverse else tensor
        tensor = tensor[:, :, None] if tensor.ndim == 3 else tensor
        if A.is_complex():
            # The kernel takes (real, imaginary) pairs along the length.
            tensor = torch.view_as_real(tensor.to(dtype)).permute(0, 2, 3, 1, 4).flatten(-2)
            return tensor.to(u.dtype).contiguous()
        return tensor.to(u.dtype).permute(0, 2, 3, 1).contiguous()

    y, final = selective_scan_fn(
        channels_first(u),
        channels_first(delta),
        A.to(dtype),
        matrix(B),
        matrix(C),
        None if D is None else D.float(),
        None if z is None else channels_first(z),
        None if delta_bias is None else delta_bias.float(),
        delta_softplus,
        return_last_state=True,
    )
    y = y.transpose(1, 2)
    return (y.flip(1) if reverse else y), _FinalState.apply(final)
