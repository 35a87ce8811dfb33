"""Where each sequence of a batch or of a packed row begins and ends."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..errors import UserError

# Reading cu_seqlens from a GPU waits for all work before it, and every layer of a model gets the same tensor.
_known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def sequence_offsets(operator: str, cu_seqlens: Tensor | None, batch: int, length: int) -> list[int]:
    """Offsets of the sequences in the flattened (batch * length) token axis: sequence s is [offsets[s], offsets[s+1]).

    Without ``cu_seqlens`` every row of the batch is a sequence. Raises ``UserError`` if the values of ``cu_seqlens``
    do not start with 0, increase strictly and end with ``length``.
    """
    if cu_seqlens is None:
        return list(range(0, (batch + 1) * length, length))
    cached = cu_seqlens.is_cuda and not cu_seqlens.is_inference()
    if cached and cu_seqlens in _known:
        version, offsets = _known[cu_seqlens]
        if version == cu_seqlens._version:
            return _checked(operator, offsets, length)
    offsets = cu_seqlens.tolist()
    if cached:
        _known[cu_seqlens] = (cu_seqlens._version, offsets)
    return _checked(operator, offsets, length)


def _checked(operator: str, offsets: list[int], length: int) -> list[int]:
    if offsets[0] != 0 or offsets[-1] != length:
        raise UserError(
            f"{operator}: cu_seqlens runs from {offsets[0]} to {offsets[-1]}, expected from 0 to the length {length}"
        )
    for index, (begin, end) in enumerate(zip(offsets, offsets[1:], strict=False)):
        if end <= begin:
            raise UserError(
                f"{operator}: cu_seqlens[{index + 1}] = {end} after {begin}, expected strictly increasing values"
            )
    return offsets
