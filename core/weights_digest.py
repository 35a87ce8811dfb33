"""What identifies the weights of a model, whatever file they came in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def weights_digest(model: nn.Module, *, head: bool = True) -> str:
    """Return the first 12 hex digits of the SHA-256 over names, shapes and float32 values of all parameters.

    Args:
        model: any model; a parameter under several names counts once.
        head: whether the parameters of ``model.head`` count. Without them a language model and a classifier made of it
            have one digest, as long as the rest was not trained.
    """
    from .pretrained import unique_parameters

    return tensors_digest(unique_parameters(model), head=head)


def tensors_digest(tensors: Mapping[str, Tensor], *, head: bool = True) -> str:
    """Return the :func:`weights_digest` of the model whose parameters, by name, are ``tensors``."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        if not head and name.startswith("head."):
            continue
        values = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()[:12]
