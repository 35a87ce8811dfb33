"""A linear recurrence over a block of tokens in a number of tensor operations that grows with the square root."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor

# From this many elements per token on, one more pass over memory costs more than launching a step per token.
_WIDE = {"cpu": 1 << 14}
_WIDE_DEFAULT = 1 << 19


def scan_(a: Tensor, x: Tensor, reverse: bool, product: Tensor | None = None) -> None:
    """x[:, t] <- a[:, t] x[:, t-1] + x[:, t] for t = 1, 2, ... in place (t+1 for t-1 with ``reverse``).

    ``a`` and ``x`` are (batch, length, ...). The block is cut into about sqrt(length) chunks of as many steps: the
    steps run in all chunks at once, then the chunks' last states one after the other, which are then brought to the
    other tokens of the next chunk with the products of ``a``. Nothing is divided, so that ``a`` may vanish. The
    products go to ``product``, of the shape of ``a``; it may be ``a`` itself where the caller needs that no longer.
    """
    length = x.shape[1]
    steps = math.isqrt(length)
    if steps < 4 or x[:, 0].numel() >= _WIDE.get(x.device.type, _WIDE_DEFAULT):
        _scan_plainly(a, x, range(length), reverse)
        return
    chunks = length // steps
    covered = chunks * steps
    part = slice(length - covered, length) if reverse else slice(0, covered)
    states = x[:, part].unflatten(1, (chunks, steps))
    products = a[:, part]
    if product is None:
        products = products.clone()
    elif product is not a:
        products = product[:, part].copy_(products)
    products = products.unflatten(1, (chunks, steps))
    factors = a[:, part].unflatten(1, (chunks, steps))

    order = range(steps)[::-1] if reverse else range(steps)
    for previous, step in pairwise(order):
        # The factor is read before its place takes the product, in case they share it.
        states[:, :, step].addcmul_(factors[:, :, step], states[:, :, previous])
        products[:, :, step].mul_(products[:, :, previous])
    last = order[-1]
    ends, end_products = states[:, :, last], products[:, :, last]
    chunk_order = range(chunks)[::-1] if reverse else range(chunks)
    for previous, chunk in pairwise(chunk_order):
        ends[:, chunk].addcmul_(end_products[:, chunk], ends[:, previous])
    if reverse:
        states[:, :-1, 1:].addcmul_(products[:, :-1, 1:], ends[:, 1:, None])
        rest = range(length - covered + 1)
    else:
        states[:, 1:, :-1].addcmul_(products[:, 1:, :-1], ends[:, :-1, None])
        rest = range(covered - 1, length)
    _scan_plainly(a, x, rest, reverse)


def _scan_plainly(a: Tensor, x: Tensor, tokens: range, reverse: bool) -> None:
    order = tokens[::-1] if reverse else tokens
    for previous, t in pairwise(order):
        x[:, t].addcmul_(a[:, t], x[:, previous])
